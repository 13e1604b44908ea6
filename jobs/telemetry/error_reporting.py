"""Unexpected faults. Only their type and place are reported, never the message: it may quote a document.

Engines write an exception of a worker into logs and events of their own, so it is made harmless before it leaves the
worker.
"""

from __future__ import annotations

import errno
import pickle
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from embedding.errors import EmbedmillError

_OURS = ("jobs", "embedding", "indexers")
_SAID = re.compile(r"unexpected \w+ at (?:[\w/]+\.py:\d+|\?)")


@contextmanager
def without_messages() -> Iterator[None]:
    """Around what runs on a worker: an unexpected exception leaves as an EmbedmillError of one safe line.

    Those of the operating system pass: they name a file and a reason, and a full disk is told by them.
    """
    said = ""
    try:
        yield
    except (EmbedmillError, OSError, MemoryError):
        raise
    except Exception as error:
        said = describe(error)
    if said:
        raise EmbedmillError(said) from None


def fault_to_bytes(error: Exception) -> bytes:
    """An error with its class, or with the nearest one of ``embedding.errors`` where its own cannot be pickled.

    For a worker's error on its way to this process; one that passes ``without_messages``.
    """
    with suppress(Exception):  # a constructor of its own, or a value that cannot be pickled
        sent = pickle.dumps(error)
        pickle.loads(sent)
        return sent
    if not isinstance(error, EmbedmillError):
        return pickle.dumps(EmbedmillError(describe(error)))
    ours = next(kind for kind in type(error).__mro__ if kind.__module__ == EmbedmillError.__module__)
    return pickle.dumps(ours(str(error)))


def fault_from_bytes(data: bytes) -> Exception:
    """The error that a worker of this run sent, with its own class."""
    error = pickle.loads(data)
    assert isinstance(error, Exception)
    return error


def describe(error: BaseException) -> str:
    """One line: type and place of an exception; of one that came from a worker, what ``without_messages`` said."""
    found = _SAID.search(str(error))
    return found[0] if found else f"unexpected {type(error).__name__} at {_place(error)}"


def safe_traceback(error: BaseException) -> str:
    """The traceback of an exception and of those that led to it, their messages left out where they are not ours."""
    seen: list[BaseException] = []
    at: BaseException | None = error
    while at is not None and at not in seen:
        seen.append(at)
        at = at.__cause__ or (None if at.__suppress_context__ else at.__context__)
    parts = []
    for one in reversed(seen):
        found = _SAID.search(str(one))
        said = str(one) if isinstance(one, EmbedmillError) else found[0] if found else "(message left out)"
        parts.append("".join(traceback.format_tb(one.__traceback__)) + f"{type(one).__name__}: {said}")
    return "\n\nwhich led to\n\n".join(parts)


def _place(error: BaseException) -> str:
    """File, from the root of its package, and line of the last frame of ours; "?" where there is none."""
    trace, found = error.__traceback__, "?"
    while trace is not None:
        module = str(trace.tb_frame.f_globals.get("__name__", "")).split(".")
        if module[0] in _OURS and module != __name__.split("."):
            file = Path(trace.tb_frame.f_code.co_filename)
            depth = len(module) + (file.name == "__init__.py")
            found = f"{'/'.join(file.parts[-depth:])}:{trace.tb_lineno}"
        trace = trace.tb_next
    return found


def disk_full(error: BaseException) -> bool:
    """Whether an error, or what caused it, is a full disk. Engines pass it on as text only."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if re.search(r"No space left on device|StorageFull|OutOfDiskError", f"{type(seen).__name__} {seen}"):
            return True
        seen = seen.__cause__ or seen.__context__
    return False
