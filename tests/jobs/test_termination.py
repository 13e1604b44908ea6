"""A signal that asks a command to end: one line, a record of the run, and no process that outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.chaos.world import lives
from tests.support.paths import ALWAYS_SPARK, ROOT
from tests.support.workspace import LARGE, Workspace, message

pytestmark = pytest.mark.usefixtures("encoder_here")  # of the run that follows; one that is asked to end has Ray

WORKING = """
import ctypes, os, signal, subprocess, sys, time
from jobs import termination
for number in termination.ASKS:
    signal.signal(number, signal.default_int_handler)  # also where the tests run under nohup
termination.GRACE_SECONDS = float(sys.argv[2])
termination.heed(lambda number: os.write(2, termination.line(number).encode()))
child = subprocess.Popen(["sleep", "60"])
def work():
    if sys.argv[1] == "heeds":
        try:
            print(child.pid, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            termination.end_now(128 + termination.came())
    elif sys.argv[1] == "swallows":
        said = False
        while True:
            try:
                said or print(child.pid, flush=True)
                said = True
                time.sleep(60)
            except BaseException:
                pass
    elif sys.argv[1] == "overridden":
        with termination.kept(signal.SIGTERM):
            ctypes.CDLL(None).signal(signal.SIGTERM, ctypes.c_void_p(1))  # ignored, by an engine's own code
        try:
            print(child.pid, flush=True)
            time.sleep(60)
        except KeyboardInterrupt:
            termination.end_now(128 + termination.came())
work()
"""


STARTED: list[subprocess.Popen[str]] = []


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """End what a test started, and close its pipes."""
    yield
    while STARTED:
        process = STARTED.pop()
        process.kill()
        process.communicate()


def working(how: str, grace: float) -> tuple[subprocess.Popen[str], psutil.Process]:
    process = subprocess.Popen(
        [sys.executable, "-c", WORKING, how, str(grace)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    STARTED.append(process)
    assert process.stdout is not None
    return process, psutil.Process(int(process.stdout.readline()))


def assert_gone(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + 5
    while (left := [p for p in processes if lives(p)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signal_ends_the_process_and_what_it_started(number: signal.Signals) -> None:
    process, child = working("heeds", 60)
    process.send_signal(number)
    assert process.wait(10) == 128 + number
    assert_gone([child])


def test_work_that_takes_no_notice_is_ended_from_outside() -> None:
    process, child = working("swallows", 0.5)
    process.terminate()
    assert process.wait(10) == 143
    assert (
        process.stderr is not None and process.stderr.read() == "ended by SIGTERM; run the same command again to go on"
    )
    assert_gone([child])


def test_second_signal_is_of_somebody_who_will_not_wait() -> None:
    process, child = working("swallows", 60)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(10) == 130
    assert_gone([child])


def test_an_engine_does_not_take_the_signal_away() -> None:
    process, child = working("overridden", 0.5)
    time.sleep(0.3)
    process.terminate()
    assert process.wait(10) == 143
    assert_gone([child])


@contextmanager
def started(workspace: Workspace, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A run in a process of its own, which is gone after the block."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored under nohup, and a child inherits that
    try:
        run = subprocess.Popen(
            [sys.executable, "-m", "jobs.cli", "run", "--json", "--config", str(workspace.config)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment | {name: value for name, value in os.environ.items() if name != "EMBEDMILL_DEBUG"},
        )
    finally:
        signal.signal(signal.SIGINT, before)
    try:
        yield run
    finally:
        run.kill()
        run.communicate()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "reached", "engine", "environment"),
    [
        (signal.SIGINT, "work/*/extract/part-*.parquet", "java", ALWAYS_SPARK),
        (signal.SIGTERM, "vectors/_delta_log/*1.json", "raylet", {"EMBEDMILL__RAY__MIN_TOKENS": "0"}),
        (signal.SIGTERM, "vectors/_delta_log/*1.json", "", {}),
    ],
    ids=["interrupt-extract by Spark", "terminate-embed by Ray", "terminate-embed alone"],
)
def test_run_that_is_asked_to_end_says_one_line_and_is_simply_run_again(
    workspace: Workspace, number: signal.Signals, reached: str, engine: str, environment: dict[str, str]
) -> None:
    reports = [message(n, f"report {n} of {n % 7} lines from desk {n % 13}", **LARGE) for n in range(150)]
    workspace.day("general", reports)
    text = workspace.config.read_text().replace("[model]\n", "[model]\nshard_tokens = 200\n")
    workspace.config.write_text(text + "[index]\nshard_rows = 20\n")
    with started(workspace, **environment) as run:
        deadline = time.monotonic() + 180
        while not any((workspace.root / "state").glob(reached)):
            assert run.poll() is None and time.monotonic() < deadline
            time.sleep(0.01)
        engines = psutil.Process(run.pid).children(recursive=True)
        names = [engine.name() for engine in engines]
        run.send_signal(number)
        said, err = run.communicate(timeout=30)
    word = "interrupted" if number == signal.SIGINT else "ended by SIGTERM"
    assert err == f"embedmill: {word}; run the same command again to go on\n"
    assert json.loads(said)["error"]["exit_code"] == run.returncode == 128 + number
    assert len(engines) > (2 if engine else 0)
    assert {"java", "raylet"} & {*names} == {engine} - {""}
    assert_gone(engines)

    [last] = workspace.call("status").body["last_runs"]
    assert last["status"] == "failed"
    assert workspace.run().code == 0 and workspace.verify().code == 0
    left = [folder.name for folder in (workspace.root / "state" / "work").iterdir() if folder.is_dir()]
    assert [name for name in left if not name.endswith(str(os.getpid()))] == [], "and its scratch has gone"
