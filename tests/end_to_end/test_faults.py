"""Of an unexpected fault type and place are said; its message, which may quote a document, never."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import traceback

import pytest

from embedding.errors import ConfigError, EmbedmillError
from jobs.config import load_config
from jobs.engines.class_archive import ClassArchive, check_java
from jobs.telemetry.error_reporting import describe, safe_traceback, without_messages
from tests.support.paths import ALWAYS_SPARK
from tests.support.workspace import Workspace

TEXT = "what somebody wrote"


def careless() -> None:
    try:
        dict[str, str]()[TEXT]  # noqa: B018
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


PRINTING = """
import atexit, os, sys, threading
from jobs.engines.terminal import OwnOutput
sys.stdout = output = OwnOutput(sys.stdout)
other = threading.Thread(target=lambda: print("another thread"))
other.start(), other.join()
os.system("echo a child")
os.write(1, b"native code\\n")
print("{}")
output.end()
atexit.register(lambda: print("too late"))
"""


def test_only_our_own_thread_prints() -> None:
    ran = subprocess.run([sys.executable, "-c", PRINTING], capture_output=True, text=True, check=True)
    assert ran.stdout == "{}\n"
    assert ran.stderr == "a child\nnative code\n"


@pytest.mark.slow
def test_what_an_engine_prints_is_in_its_log_and_not_in_the_answer(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("EMBEDMILL_DEBUG")
    # The first is printed to descriptor 1; the others are as a run has them, which starts Java in half the time.
    java = "-Xlog:gc -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "
    java += ClassArchive(load_config(workspace.config).cache, check_java(), complete=False).options()
    with workspace.config.open("a") as config:
        config.write(f'[spark.properties]\n"spark.driver.extraJavaOptions" = "{java}"\n')
    command = [sys.executable, "-m", "jobs.cli", "run", "--json", "--config", str(workspace.config)]
    ran = subprocess.run(command, env=os.environ | ALWAYS_SPARK, capture_output=True, text=True, check=True)
    assert json.loads(ran.stdout)["status"] == "ok"
    assert "[gc]" in (workspace.root / "state" / "work" / "engines.log").read_text()
    assert "[gc]" not in ran.stderr
