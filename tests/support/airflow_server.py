"""A real Airflow for the tests: scheduler, DAG processor, triggerer and API server, over PostgreSQL where it is there."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.command_line import invoke
from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.warm_command import WarmCommand

BIN = Path(sys.executable).parent


def copy_sample(root: Path) -> Path:
    """Copy the sample below ``root``, with its state and index beside it; returns its configuration."""
    shutil.copytree(ROOT / "docs" / "sample", root / "docs" / "sample")
    return root / "docs" / "sample" / "embedmill.toml"


def embedmill(config: Path, *arguments: str, **environment: str) -> tuple[int, Any]:
    """Run a command in this process, whose Spark is shared by all tests; returns its exit code and its object."""
    ran = invoke([*arguments, "--json", "--config", str(config)], environment)
    return ran.exit_code, json.loads(ran.stdout)


class Postgres:
    """A PostgreSQL of our own in a temporary folder; raises where none is installed."""

    def __init__(self) -> None:
        found = [shutil.which("initdb"), *map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
        self.bin = Path(next(path for path in found if path)).resolve().parent
        # It refuses to run as root, and Debian's package brings a user for it.
        self.user = "postgres" if os.geteuid() == 0 else None
        self.root = Path(tempfile.mkdtemp(prefix="embedmill-pg-"))
        if self.user:
            shutil.chown(self.root, self.user)
        [self.port] = free_ports(1)
        self._run("initdb", "-D", "data", "-A", "trust", "-U", "airflow", "-E", "UTF8", "--no-sync")
        options = f"-p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -k {self.root}"
        self._run("pg_ctl", "-D", "data", "-o", options, "-l", "log", "-w", "start")
        self._run("createdb", "-h", "127.0.0.1", "-p", str(self.port), "-U", "airflow", "airflow")

    def _run(self, command: str, *arguments: str) -> None:
        subprocess.run(
            [self.bin / command, *arguments], cwd=self.root, user=self.user, check=True, stdout=subprocess.DEVNULL
        )

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://airflow@127.0.0.1:{self.port}/airflow"

    def stop(self) -> None:
        self._run("pg_ctl", "-D", "data", "-m", "immediate", "stop")
        shutil.rmtree(self.root, ignore_errors=True)


class Airflow:
    """Airflow over the repository's DAGs. ``environment`` is added to that of all its processes."""

    def __init__(self, root: Path, environment: dict[str, str], *, serve: bool = True) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        [self.port] = free_ports(1)
        self.url = f"http://127.0.0.1:{self.port}"
        self.postgres: Postgres | None = None
        if serve:
            try:
                self.postgres = Postgres()
            except (StopIteration, OSError, LookupError, subprocess.SubprocessError):
                self.postgres = None  # SQLite then
        database = self.postgres.uri if self.postgres else f"sqlite:///{root}/airflow.db"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "EMBEDMILL"))},
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(root),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": database,
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "8",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__WORKERS": "1",
            "AIRFLOW__API_AUTH__JWT_SECRET": "only-for-a-test-" + os.urandom(16).hex(),
            "AIRFLOW__API__SECRET_KEY": os.urandom(16).hex(),
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_ports(1)[0]),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_ports(1)[0]),
            "AIRFLOW__SCHEDULER__ENABLE_HEALTH_CHECK": "False",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_SEC": "2",
            "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
            "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "EMBEDMILL__SPARK__MASTER": "local[1]",  # each job starts a Spark; a second core only adds Python workers
            "EMBEDMILL_RETRY_SECONDS": "2",
            "EMBEDMILL_NIGHTLY_CRON": "",  # only when a test asks for it
            **environment,
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.orphans: list[psutil.Process] = []
        self.command("db", "migrate")
        pool = {"slots": 1, "description": "one at a time", "include_deferred": False}
        (root / "pools.json").write_text(json.dumps({"embedmill": pool, "embedmill_build": pool}))
        self.command("pools", "import", "pools.json")  # in one process: Airflow takes seconds to start
        if serve:
            for name in ("api-server", "scheduler", "dag-processor", "triggerer"):
                self.start(name)
            self.wait("a token", self._login, 300)

    def command(self, *arguments: str, jobs: WarmCommand | None = None, seconds: float = 600) -> str:
        """Run an airflow command, whose jobs ``jobs`` does where it is given; returns what it printed."""
        with tempfile.TemporaryFile("w+") as output:
            ran = subprocess.Popen(
                [BIN / "airflow", *arguments],
                env=self.environment | ({"EMBEDMILL_COMMAND": jobs.command} if jobs else {}),
                cwd=self.root,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
            )
            try:
                assert jobs is None or jobs.serve(ran, seconds) > 0, "no task ran a command"
                code = ran.wait(seconds)
            finally:
                ran.kill()
                ran.wait()
            output.seek(0)
            printed = output.read()
        assert code == 0, f"airflow {' '.join(arguments)}: {printed[-4000:]}"
        return printed

    def start(self, name: str) -> None:
        """Start one of its processes."""
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                [BIN / "airflow", name],
                env=self.environment,
                cwd=self.root,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
            )

    def kill(self, name: str) -> None:
        """kill -9 of one of its processes alone; what it started lives on."""
        process = self.processes.pop(name)
        self.orphans += psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End everything that was started, children first noted by their own ids."""
        tree = [psutil.Process(p.pid) for p in self.processes.values() if p.poll() is None]
        tree += [child for process in tree for child in process.children(recursive=True)]
        tree += self.orphans
        for process in self.processes.values():
            process.terminate()
        for orphan in self.orphans:
            with suppress(psutil.NoSuchProcess):
                orphan.terminate()
        _, alive = psutil.wait_procs(tree, timeout=15)
        for left in alive:
            left.kill()
        psutil.wait_procs(alive, timeout=10)
        for process in self.processes.values():
            process.wait(10)
        if self.postgres:
            self.postgres.stop()

    def _login(self) -> bool:
        file = self.root / "simple_auth_manager_passwords.json.generated"
        try:
            password = json.loads(file.read_text())["admin"]
            answer = httpx.post(f"{self.url}/auth/token", json={"username": "admin", "password": password}, timeout=20)
            answer.raise_for_status()
        except (OSError, ValueError, httpx.HTTPError):
            return False
        self.token = answer.json()["access_token"]
        return True

    def api(self, method: str, path: str, body: Any = None, *, token: bool = True) -> httpx.Response:
        """Call the REST API."""
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        return httpx.request(method, f"{self.url}/api/v2/{path}", json=body, headers=headers, timeout=30)

    def unpause(self, dag: str, seconds: float = 90) -> None:
        """Wait until the DAG is there, and let it run."""
        self.wait(dag, lambda: self.api("GET", f"dags/{dag}").status_code == 200, seconds)
        self.api("PATCH", f"dags/{dag}", {"is_paused": False}).raise_for_status()

    def trigger(self, dag: str, **conf: Any) -> str:
        """Trigger a run; returns its id."""
        answer = self.api("POST", f"dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["dag_run_id"])

    def ended(self, dag: str, run: str, seconds: float = 300, jobs: WarmCommand | None = None) -> str:
        """Wait for a run's end, doing its jobs meanwhile with ``jobs`` where it is given; returns its state."""
        path = f"dags/{dag}/dagRuns/{run}"

        def over() -> bool:
            while jobs is not None and jobs.answer():
                pass
            return self.api("GET", path).json()["state"] in ("success", "failed")

        self.wait(run, over, seconds)
        return str(self.api("GET", path).json()["state"])

    def tasks(self, dag: str, run: str) -> dict[str, dict[str, Any]]:
        """The task instances of a run by their id."""
        found = self.api("GET", f"dags/{dag}/dagRuns/{run}/taskInstances").json()["task_instances"]
        return {one["task_id"]: one for one in found}

    def xcom(self, dag: str, run: str, task: str, key: str = "report") -> Any:
        """An XCom value."""
        path = f"dags/{dag}/dagRuns/{run}/taskInstances/{task}/xcomEntries/{key}?deserialize=true"
        return self.api("GET", path).json()["value"]

    def log(self, dag: str, run: str, task: str) -> str:
        """All tries of a task's log, as they lie in its files."""
        folder = self.root / "logs" / f"dag_id={dag}" / f"run_id={run}" / f"task_id={task}"
        return "".join(file.read_text() for file in sorted(folder.glob("*.log")))

    def wait(self, what: str, true: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so."""
        until = time.monotonic() + seconds
        while not true():
            dead = [name for name, process in self.processes.items() if process.poll() is not None]
            assert not dead, f"{dead} ended: {(self.root / f'{dead[0]}.log').read_text()[-2000:]}"
            assert time.monotonic() < until, f"waited {seconds:.0f} s for {what}"
            time.sleep(0.5)
