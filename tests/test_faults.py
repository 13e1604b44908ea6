"""Of a fault that nobody foresaw type and place are said; its message, which may quote a document, never."""

from __future__ import annotations

import io
import threading
import traceback

import pytest

from embedding.errors import ConfigError, EmbedmillError
from jobs.engines import OwnThread
from jobs.faults import describe, safe_traceback, without_messages

TEXT = "what somebody wrote"


def careless() -> None:
    try:
        {}[TEXT]  # noqa: B018
    except KeyError as error:
        raise ValueError(f"cannot encode {TEXT}") from error


def test_a_worker_s_exception_is_one_safe_line() -> None:
    @without_messages()
    def work() -> None:
        careless()

    with pytest.raises(EmbedmillError, match="^unexpected ValueError at ") as caught:
        work()
    assert TEXT not in "".join(traceback.format_exception(caught.value))
    # An engine passes it on as the text of an exception of its own.
    assert describe(RuntimeError(f"task failed: {TEXT} {caught.value}")) == str(caught.value)


@pytest.mark.parametrize("error", [ConfigError("index.uri: no"), OSError(28, "No space left on device")])
def test_what_is_known_passes(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, without_messages():
        raise error
    assert caught.value is error


def test_a_traceback_shows_places_and_types() -> None:
    with pytest.raises(ValueError, match=TEXT) as caught:
        careless()
    shown = safe_traceback(caught.value)
    assert TEXT not in shown and "KeyError" in shown and "in careless" in shown and "message left out" in shown


def test_only_our_own_thread_prints() -> None:
    out = io.StringIO()
    ours = OwnThread(out)
    other = threading.Thread(target=lambda: print(TEXT, file=ours))  # type: ignore[call-overload]
    other.start()
    other.join()
    print("{}", file=ours)  # type: ignore[call-overload]
    assert out.getvalue() == "{}\n"
