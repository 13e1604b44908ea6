"""The local launcher: a job's output, exit code and end, and that nothing of it outlives the task."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.paths import ROOT

DAGS = ROOT / "dags"

# Of a job: it starts a child which would sleep for long, and says its id.
CHILD = """
import os, subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
print("child", child.pid, file=sys.stderr, flush=True)
"""


@pytest.fixture(autouse=True)
def _dags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DAGS))


def lost() -> type[Exception]:
    from embedmill_airflow.launchers import JobLost

    return JobLost


def launch(folder: Path, script: str) -> tuple[Any, Any]:
    """The launcher and a job whose command is a script."""
    from embedmill_airflow.launchers import Job
    from embedmill_airflow.launchers.local import Local

    file = folder / "job.py"
    file.write_text(script)
    return Local(f"{sys.executable} {file}"), Job("a-job", ("--json",), "none", {"SEEN": "1"})


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def gone(pid: int, seconds: float = 10) -> bool:
    until = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


def child_of(caplog: pytest.LogCaptureFixture) -> int:
    until = time.monotonic() + 20
    while time.monotonic() < until:
        for record in caplog.records:
            if record.getMessage().startswith("child "):
                return int(record.getMessage().split()[1])
        time.sleep(0.05)
    raise AssertionError("no child was started")


OUTCOME = """
import json, os, sys
print(json.dumps({"seen": os.environ["SEEN"], "given": sys.argv[1:]}))
print("on the way", file=sys.stderr)
sys.exit(3)
"""


def test_the_outcome_is_the_exit_code_and_the_object(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    launcher, job = launch(tmp_path, OUTCOME)
    outcome = launcher.run(job, log=logging.getLogger("task"))
    assert (outcome.code, outcome.body) == (3, {"seen": "1", "given": ["--json"]})
    assert "on the way" in caplog.text and "seen" not in caplog.text


def test_a_job_that_dies_without_a_word_is_a_failure(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    launcher, job = launch(tmp_path, CHILD + "os.kill(os.getpid(), 9)")
    with pytest.raises(lost(), match="SIGKILL"):
        launcher.run(job, log=logging.getLogger("task"))
    assert gone(child_of(caplog))


def test_stop_ends_the_job_and_what_it_started(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    launcher, job = launch(tmp_path, CHILD + "time.sleep(60)")
    raised: list[BaseException] = []

    def run() -> None:
        try:
            launcher.run(job, log=logging.getLogger("task"))
        except lost() as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    child = child_of(caplog)
    launcher.stop(job)
    thread.join(20)
    assert gone(child) and "SIGTERM" in str(raised[0])


TASK = """
import logging, sys
sys.path.insert(0, sys.argv[1])
from embedmill_airflow.launchers import Job
from embedmill_airflow.launchers.local import Local
log = logging.getLogger("task")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(logging.StreamHandler(sys.stdout))
Local(f"{sys.executable} {sys.argv[2]}").run(Job("a", (), "none", {}), log=log)
"""


def test_a_job_ends_with_the_task_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "job.py").write_text("import time; time.sleep(60)")
    with subprocess.Popen(
        [sys.executable, tmp_path / "task.py", DAGS, tmp_path / "job.py"],
        stdout=subprocess.PIPE,
        text=True,
    ) as task:
        assert task.stdout is not None
        pid = next(int(line.split()[1]) for line in task.stdout if line.startswith("process "))
        assert alive(pid)
        task.send_signal(signal.SIGKILL)
        assert gone(pid)


def test_a_job_sees_its_secrets_and_nothing_of_airflow_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from embedmill_airflow.launchers import Job
    from embedmill_airflow.launchers.local import Local

    monkeypatch.setenv("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", "postgresql://a:secret@nowhere/b")
    (tmp_path / "job.py").write_text("import json, os; print(json.dumps(dict(os.environ)))")
    start = Local(f"{sys.executable} {tmp_path / 'job.py'}", {"EMBEDMILL__INDEX__TOKEN": "a-token"})
    seen = start.run(Job("a", (), "none", {"EMBEDMILL_CONFIG": "a.toml"}), log=logging.getLogger("task")).body
    assert seen is not None
    assert seen["EMBEDMILL__INDEX__TOKEN"] == "a-token" and seen["EMBEDMILL_CONFIG"] == "a.toml"
    assert not [name for name in seen if name.startswith("AIRFLOW")]
