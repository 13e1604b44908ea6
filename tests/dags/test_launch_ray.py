"""The launcher for a running Ray cluster, against a real one: output, retries, stopping, and what dies without a word."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.ray_cluster import RayCluster
from tests.support.workspace import Workspace

DAGS = ROOT / "dags"
LOG = logging.getLogger("task")
REAL = f"{sys.executable} -m jobs.cli.cluster_entrypoint"

# A job of the real entry point whose command line is replaced: it notes that it began, and ends as it is told.
JOB = """
import json, os, subprocess, sys, time
from pathlib import Path
from jobs.cli import app, cluster_entrypoint
folder, end = Path(sys.argv[1]), json.loads(sys.argv[2])
def main():
    with (folder / "begun").open("a") as file:
        print(os.getpid(), file=file)
    print(end.get("says", "on the way"), file=sys.stderr, flush=True)
    if end.get("child"):
        child = subprocess.Popen(["sleep", "60"])
        (folder / "child").write_text(str(child.pid))
    while end.get("waits") and not (folder / "go").exists():
        time.sleep(0.05)
    if end.get("dies"):
        os.kill(os.getpid(), 9)
    print(json.dumps(end.get("body", {"done": 1})))
    sys.exit(end.get("code", 0))
app.main = main
cluster_entrypoint.main()
"""


@pytest.fixture(autouse=True)
def _dags(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.syspath_prepend(str(DAGS))
    caplog.set_level(logging.INFO, "task")


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    started = RayCluster(CLUSTER_S_OWN="kept-by-the-cluster")
    yield started
    started.stop()


class Task:
    """One task of a DAG run: the same job for each of its tries."""

    def __init__(self, cluster: RayCluster, folder: Path) -> None:
        self.address, self.folder = cluster.address, folder
        self.name = f"embedmill-{os.urandom(6).hex()}"
        (folder / "job.py").write_text(JOB)

    def launcher(self, command: str = "", **options: Any) -> Any:
        from embedmill_airflow.launchers.ray_jobs import RayJobs

        command = command or f"{sys.executable} {self.folder / 'job.py'} {self.folder}"
        return RayJobs(self.address, command=command, poll_seconds=0.2, **options)

    def job(self, *arguments: str, **end: Any) -> Any:
        from embedmill_airflow.launchers import Job

        return Job(self.name, arguments or (json.dumps(end),), "ray", {"SEEN": "1"})

    def run(self, **end: Any) -> Any:
        return self.launcher().run(self.job(**end), log=LOG)

    def first_try(self, **end: Any) -> subprocess.Popen[bytes]:
        """A try in a process of its own, which can be killed as a worker is."""
        command = f"{sys.executable} {self.folder / 'job.py'} {self.folder}"
        script = (
            f"import sys, logging; sys.path.insert(0, {str(DAGS)!r})\n"
            "from embedmill_airflow.launchers import Job; from embedmill_airflow.launchers.ray_jobs import RayJobs\n"
            f"job = Job({self.name!r}, ({json.dumps(end)!r},), 'ray', {{}})\n"
            f"RayJobs({self.address!r}, command={command!r}).run(job, log=logging.getLogger())\n"
        )
        process = subprocess.Popen([sys.executable, "-c", script])
        wait(lambda: self.begun == 1)
        return process

    @property
    def begun(self) -> int:
        file = self.folder / "begun"
        return len(file.read_text().split()) if file.exists() else 0

    def status(self) -> str:
        from ray.job_submission import JobSubmissionClient

        found = [one for one in JobSubmissionClient(self.address).list_jobs() if self.name in (one.submission_id or "")]
        return ",".join(one.status.value for one in found) or "gone"


@pytest.fixture
def task(cluster: RayCluster, tmp_path: Path) -> Task:
    return Task(cluster, tmp_path)


def wait(met: Callable[[], bool], seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < until
        time.sleep(0.1)


def lost() -> type[Exception]:
    from embedmill_airflow.launchers import JobLost

    return JobLost


def alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_real_command_s_exit_code_error_and_log_come_back(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    job = task.job("step", "embed", "--run-id", "r", "--json", "--config", "nowhere.toml")
    outcome = task.launcher(REAL).run(job, log=LOG)
    assert outcome.code == 2 and outcome.body["error"]["kind"] == "ConfigError"
    assert "embedmill: " in caplog.text and "nowhere.toml" in caplog.text  # its line for a person
    assert '{"error"' not in caplog.text  # the object is the outcome's alone


def test_quarantine_is_an_outcome_and_not_a_lost_job(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    outcome = task.run(code=3, body={"documents": {"quarantined": 1}})
    assert (outcome.code, outcome.body) == (3, {"documents": {"quarantined": 1}})
    assert caplog.text.count("on the way") == 1


def test_a_retry_attaches_to_the_job_that_runs(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    first = task.first_try(waits=True, body={"done": 7})
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert task.status() == "RUNNING"
    threading.Timer(1, (task.folder / "go").touch).start()
    assert task.run(waits=True).body == {"done": 7}
    assert task.begun == 1 and "attached" in caplog.text and "on the way" in caplog.text


def test_a_retry_takes_the_outcome_that_nobody_read(task: Task) -> None:
    first = task.first_try(waits=True, body={"done": 7})
    first.send_signal(signal.SIGKILL)
    first.wait()
    (task.folder / "go").touch()
    wait(lambda: task.status() == "SUCCEEDED")
    assert task.run().body == {"done": 7} and task.begun == 1
    assert task.status() == "gone"
    assert task.run().body == {"done": 1} and task.begun == 2  # of a task that was cleared


def test_a_retry_runs_again_what_had_failed(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    assert task.run(code=1, says="the first try").code == 1
    caplog.clear()
    assert task.run(says="the second try").code == 0
    assert task.begun == 2 and "the second try" in caplog.text and "the first try" not in caplog.text


def test_an_earlier_try_s_outcome_is_not_that_of_a_try_that_died(task: Task) -> None:
    assert task.run(code=3).code == 3
    with pytest.raises(lost(), match="without its report"):
        task.run(dies=True)


def test_a_killed_job_is_lost(task: Task) -> None:
    with pytest.raises(lost(), match=r"without its report \(FAILED, exit (-9|137)\)"):
        task.run(dies=True)


def test_a_command_that_reports_nothing_is_lost_although_it_succeeds(task: Task) -> None:
    with pytest.raises(lost(), match=r"without its report \(SUCCEEDED, exit 0\)"):
        task.launcher("true").run(task.job(), log=LOG)


def test_stop_ends_the_job_and_what_it_started(task: Task) -> None:
    launcher, job = task.launcher(), task.job(waits=True, child=True)
    raised: list[BaseException] = []

    def run() -> None:
        try:
            launcher.run(job, log=LOG)
        except lost() as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait(lambda: (task.folder / "child").exists() and (task.folder / "child").read_text() != "")
    child, own = int((task.folder / "child").read_text()), int((task.folder / "begun").read_text())
    launcher.stop(job)
    thread.join(30)
    assert "STOPPED" in str(raised[0]) and task.status() == "STOPPED"
    wait(lambda: not alive(child) and not alive(own), 10)


def test_a_retry_whose_job_the_first_try_stops_begins_it_anew(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    """Airflow tells a try that it lost sight of to end when the next has begun; that one failed with it."""
    first, job = task.launcher(), task.job(waits=True, body={"done": 7})
    stopped: list[BaseException] = []

    def run() -> None:
        try:
            first.run(job, log=logging.getLogger("another task"))
        except lost() as error:
            stopped.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait(lambda: task.begun == 1)

    def stop_the_first() -> None:
        wait(lambda: "attached" in caplog.text)
        first.stop(job)
        wait(lambda: task.begun == 2)
        (task.folder / "go").touch()

    threading.Thread(target=stop_the_first).start()
    assert task.launcher().run(job, log=LOG).body == {"done": 7}
    thread.join(30)
    assert "STOPPED" in str(stopped[0]) and task.begun == 2


def test_a_retry_that_is_stopped_itself_begins_nothing(task: Task) -> None:
    first = task.first_try(waits=True)
    first.send_signal(signal.SIGKILL)
    first.wait()
    launcher, job = task.launcher(), task.job(waits=True)
    stopper = threading.Timer(2, launcher.stop, (job,))
    stopper.start()
    with pytest.raises(lost(), match="STOPPED"):
        launcher.run(job, log=LOG)
    assert task.begun == 1 and task.status() == "STOPPED"


def test_stopping_what_never_began_does_nothing(task: Task) -> None:
    task.launcher().stop(task.job())
    assert task.status() == "gone"


def test_secrets_stay_out_of_the_runtime_environment_and_the_log(task: Task, caplog: pytest.LogCaptureFixture) -> None:
    job = task.job("-c", "import json, os; print(json.dumps(dict(os.environ)))")
    script = task.folder / "environment.py"
    script.write_text(
        "import json, os\nfrom jobs.cli import app, cluster_entrypoint\nseen = dict(os.environ)\n"
        "app.main = lambda: print(json.dumps(seen))\ncluster_entrypoint.main()\n"
    )
    seen = task.launcher(f"{sys.executable} {script}").run(job, log=LOG).body
    assert seen["CLUSTER_S_OWN"] == "kept-by-the-cluster" and "EMBEDMILL__INDEX__TOKEN" not in seen
    assert seen["EMBEDMILL__RAY__ADDRESS"] == "auto" and seen["RAY_ADDRESS"] and seen["SEEN"] == "1"
    passed = task.launcher(f"{sys.executable} {script}", secrets={"EMBEDMILL__INDEX__TOKEN": "a-token"})
    assert passed.run(job, log=LOG).body["EMBEDMILL__INDEX__TOKEN"] == "a-token"
    assert "a-token" not in caplog.text


def test_a_cluster_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    from embedmill_airflow.launchers import Job
    from embedmill_airflow.launchers.ray_jobs import RayJobs

    [port] = free_ports(1)
    with pytest.raises(ConnectionError):
        RayJobs(f"http://127.0.0.1:{port}").run(Job("a", (), "ray", {}), log=LOG)


@pytest.mark.slow
def test_a_cluster_s_token_comes_from_the_environment_and_is_shown_nowhere(tmp_path: Path) -> None:
    token, script = os.urandom(32).hex(), tmp_path / "environment.py"
    cluster = RayCluster(RAY_AUTH_TOKEN=token)
    try:
        script.write_text(
            "import ray; from jobs.cli import app, cluster_entrypoint\napp.main = lambda: ray.init('auto')\ncluster_entrypoint.main()"
        )
        client = (
            f"import sys, logging; sys.path.insert(0, {str(DAGS)!r}); logging.basicConfig(level=20)\n"
            "from embedmill_airflow.launchers import Job; from embedmill_airflow.launchers.ray_jobs import RayJobs\n"
            f"start = RayJobs({cluster.address!r}, command={f'{sys.executable} {script}'!r}, poll_seconds=0.2)\n"
            "print('CODE', start.run(Job('a', (), 'ray', {}), log=logging.getLogger()).code)"
        )
        known, unknown = (
            subprocess.run(
                [sys.executable, "-c", client],
                env=os.environ | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": one},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            ).stdout
            for one in (token, os.urandom(32).hex())
        )
    finally:
        cluster.stop()
    assert "CODE 0" in known and token not in known, known[-3000:]
    assert "CODE" not in unknown and "AuthenticationError" in unknown, unknown[-3000:]


@pytest.mark.long
def test_a_run_on_the_cluster_publishes_and_uses_that_ray(
    task: Task, cluster: RayCluster, workspace: Workspace
) -> None:
    from ray.util.state import list_actors

    job = task.job("run", "--json", "--config", str(workspace.config))
    outcome = task.launcher(REAL).run(job, log=LOG)
    assert outcome.code == 0 and outcome.body["chunks"]["embedded"] > 0
    assert workspace.verify().code == 0
    assert [one for one in list_actors(address=cluster.address) if "EncodeShard" in one.class_name]


@pytest.mark.slow
def test_a_job_whose_cluster_died_is_lost(task: Task, cluster: RayCluster) -> None:
    """The last test of this file: the cluster of the others dies."""

    def stop_once_begun() -> None:
        wait(lambda: task.begun == 1)
        cluster.stop()

    threading.Thread(target=stop_once_begun).start()
    with pytest.raises(lost(), match="does not answer"):
        task.launcher(patience_seconds=2).run(task.job(waits=True), log=LOG)
