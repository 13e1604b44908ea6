"""One writer at a time: waiting, taking over, and that a holder which has lost the lease cannot write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from embedding.errors import LeaseHeldError
from jobs.state.lease import Lease
from jobs.state.store import State
from tests.support.paths import ONE_CORE, ROOT
from tests.support.workspace import TEXTS, Workspace, message

pytestmark = pytest.mark.usefixtures("encoder_here")

SECONDS = 2
RULE: dict[str, object] = {
    "team_id": "T01",
    "channel_id": "",
    "ids": [],
    "before": None,
    "purged_at": 1,
    "_delete": False,
}

# Another process with a lease. It says what it does, and goes on at each line that it is sent.
HOLDER = """
import socket, sys
from pathlib import Path
root, host, seconds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
if host:
    socket.gethostname = lambda: host
from deltalake import DeltaTable
from embedding.errors import LeaseHeldError
from jobs.state.fencing import fenced
from jobs.state.lease import Lease
from jobs.state.parts import write_part
from jobs.state.store import State
from tests.jobs.test_lease import RULE, rows
state = State(root)

def say(word):
    print(word, flush=True)
    sys.stdin.readline()

def append():
    parts = write_part(root, "vectors", rows("late"))
    state.append("vectors", parts)

def begun():
    table = state.table("purges")
    with fenced(root / "purges", table, lease.number) as properties:
        say("begun")
        table.delete("team_id = 'T01'", commit_properties=properties)

work = {
    "append": append,
    "merge": lambda: state.change("purges", [RULE | {"run_id": "late"}]),
    "drop": lambda: state.drop("purges", "team_id = 'T01'"),
    "vacuum": lambda: state.vacuum("vectors", hours=0),
    "begun": begun,
}
try:
    with Lease(root, run_id="first", seconds=seconds, newest=state.newest_fence) as lease:
        state = state.for_writing(lease.number)
        lease.check()
        say("held")
        work[sys.argv[4]]()
        say("written")
except LeaseHeldError as error:
    print(type(error).__name__, flush=True)
    sys.exit(error.exit_code)
"""


def rows(run_id: str) -> Any:
    import pyarrow as pa

    from jobs.state.tables import VECTORS

    row = {"space_id": "s", "team_id": "T01", "content_hash": run_id, "vector": b"1234", "run_id": run_id}
    return pa.Table.from_pylist([row], schema=VECTORS)


@contextmanager
def holder(
    root: Path, *, host: str = "", seconds: int = SECONDS, work: str = "append"
) -> Iterator[subprocess.Popen[str]]:
    """A process that holds the lease, on another host where that is named."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root), host, str(seconds), work],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert heard(process) == "held"
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def lease(root: Path, wait: float = 0.0) -> Lease:
    return Lease(root, run_id="second", seconds=SECONDS, wait=wait, newest=State(root).newest_fence)


def is_held(root: Path) -> bool:
    try:
        with lease(root):
            return False
    except LeaseHeldError:
        return True


# -- a second writer ---------------------------------------------------------------------------------------------------


def test_a_second_run_is_refused_and_told_by_whom(workspace: Workspace) -> None:
    with holder(workspace.root / "state") as process:
        refused = workspace.run()
        assert refused.code == 5
        assert f"run first (process {process.pid} on " in refused.err and "--wait SECONDS" in refused.err
        assert workspace.call("status").body["tables"]["chunks"] == 0


def test_a_second_run_waits_where_it_is_told_to(workspace: Workspace) -> None:
    with holder(workspace.root / "state") as process:
        end = threading.Timer(2, process.kill)
        end.start()
        began = time.monotonic()
        ran = workspace.run("--wait", "60")
        end.join()
    assert ran.code == 0 and ran.body["index_rows"]["after"] == 8
    assert time.monotonic() - began > 2


def test_a_live_holder_keeps_the_lease_past_its_length(tmp_path: Path) -> None:
    with holder(tmp_path, host="elsewhere"):
        time.sleep(2 * SECONDS)
        assert is_held(tmp_path)


# -- a holder that was killed ------------------------------------------------------------------------------------------


def test_the_lease_of_a_killed_holder_is_free_at_once_on_its_machine(tmp_path: Path) -> None:
    with holder(tmp_path, seconds=600) as process:
        process.kill()
        process.wait()
        assert not is_held(tmp_path)


def test_also_where_nobody_has_buried_the_killed_process(tmp_path: Path) -> None:
    with holder(tmp_path, seconds=600) as process:
        process.kill()
        deadline = time.monotonic() + 10
        while is_held(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert time.monotonic() < deadline


def test_the_lease_of_a_holder_killed_elsewhere_is_free_when_it_expires(tmp_path: Path) -> None:
    with holder(tmp_path, host="elsewhere") as process:
        process.kill()
        killed = time.monotonic()
        assert is_held(tmp_path), "its death cannot be known here"
        with lease(tmp_path, wait=30) as second:
            assert time.monotonic() - killed > SECONDS / 2
            assert second.took_over and second.number == 2


def test_a_host_of_the_same_name_is_another_machine(tmp_path: Path) -> None:
    """Two containers with one host name: the process that is asked for does not exist in the second."""
    with holder(tmp_path, seconds=600):
        file = tmp_path / "lease.json"
        held = json.loads(file.read_text()) | {"machine": "another boot pid:[1]", "pid": 2**22 + 1}
        file.write_text(json.dumps(held))
        assert is_held(tmp_path)


# -- clocks ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_set_takes_nothing_from_a_holder_on_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    """The time of day moves, and with it the boot's and every process's start by the time of day."""
    from psutil import _pslinux

    now, boot = time.time, _pslinux.boot_time
    with holder(tmp_path, seconds=60):
        monkeypatch.setattr(time, "time", lambda: now() + hours * 3600)
        monkeypatch.setattr(_pslinux, "boot_time", lambda: boot() + hours * 3600)
        assert is_held(tmp_path)


def test_a_holder_elsewhere_with_a_clock_ahead_is_given_up_after_its_length(tmp_path: Path) -> None:
    with holder(tmp_path, host="elsewhere") as process:
        process.kill()
        file = tmp_path / "lease.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"expires": time.time() + 86_400}))
        assert is_held(tmp_path)
        with lease(tmp_path, wait=SECONDS + 3):
            pass


# -- a holder that wakes up late ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["", "elsewhere"], ids=["this machine", "another machine"])
@pytest.mark.parametrize("work", ["append", "merge", "drop", "vacuum", "begun"])
def test_a_holder_that_wakes_up_late_cannot_write(tmp_path: Path, work: str, host: str) -> None:
    """It is stopped after it was told that it holds the lease, or with a commit begun, and does not ask again."""
    state = State(tmp_path, fence=1)
    state.change("purges", [RULE | {"run_id": "before"}])
    with holder(tmp_path, host=host, work=work) as process:
        if work == "begun":
            go_on(process)
            assert heard(process) == "begun"
        os.kill(process.pid, signal.SIGSTOP)
        with lease(tmp_path, wait=30) as second:
            assert second.took_over
            state = state.for_writing(second.number)
            state.raise_fence()
            from jobs.state.parts import write_part

            state.change("purges", [RULE | {"run_id": "second"}])
            waiting = write_part(tmp_path, "vectors", rows("second"))  # a worker's file, not committed yet
            before = contents(state)
            os.kill(process.pid, signal.SIGCONT)
            go_on(process)
            assert heard(process) == "LeaseHeldError" and process.wait() == 5
            assert contents(state) == before
            state.append("vectors", waiting)
            assert state.read("vectors", ["run_id"])["run_id"].to_pylist() == ["second"]
        assert not is_held(tmp_path), "the late one has not taken what is not its own"


def contents(state: State) -> dict[str, Any]:
    return {name: (state.table(name).version(), state.read(name).to_pylist()) for name in ("purges", "vectors")}


def test_a_late_holder_is_also_refused_when_the_lease_is_free_again(tmp_path: Path) -> None:
    state = State(tmp_path)
    with holder(tmp_path, work="merge") as process:
        os.kill(process.pid, signal.SIGSTOP)
        for _ in range(2):
            with lease(tmp_path, wait=30) as later:
                state = state.for_writing(later.number)
                if later.took_over:
                    state.raise_fence()
        os.kill(process.pid, signal.SIGCONT)
        go_on(process)
        assert heard(process) == "LeaseHeldError" and process.wait() == 5
        assert state.count("purges") == 0


@pytest.mark.slow
def test_a_command_that_wakes_up_late_changes_nothing(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan is stopped while it reads an old export. Another has read the new one when it goes on."""
    monkeypatch.setenv("EMBEDMILL__STATE__LEASE_SECONDS", "5")
    state = workspace.root / "state"
    command = [sys.executable, "-m", "jobs.cli", "plan", "--config", str(workspace.config), "--json"]
    late = subprocess.Popen(
        command, env=os.environ | ONE_CORE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        stop_when(late, lambda: any(state.glob("work/*/extract")))
        workspace.day("general", [message(0, "The lockers moved to the station"), message(1, TEXTS[1])])
        ran = workspace.call("plan", "--wait", "60")
        assert ran.code == 0 and ran.body["chunks"]["total"] == 6
        before = {name: State(state).table(name).version() for name in ("chunks", "sources", "runs", "quarantine")}
        os.kill(late.pid, signal.SIGCONT)
        out, err = late.communicate(timeout=120)
        assert late.returncode == 5, err
        assert json.loads(out)["error"]["kind"] == "LeaseHeldError"
        assert {name: State(state).table(name).version() for name in before} == before
    finally:
        late.kill()
        late.communicate()
    texts = State(state).read("chunks", ["text"])["text"].to_pylist()
    assert "The lockers moved to the station" in texts and TEXTS[2] not in texts
    assert workspace.run().body["chunks"]["total"] == 6 and workspace.verify().code == 0


def stop_when(process: subprocess.Popen[str], reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not reached():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)
