"""A cluster on one machine: Spark with two workers and Ray with two nodes on hosts of their own, and an object store.

This process is the driver's host. The hosts share the code, the sources and the store with it, and no other file.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyspark

from jobs.engines.environment import ENVIRONMENT, OF_NODES
from tests.support.hosts import Host, Network, kill_tree
from tests.support.object_store import KEYS, Weed
from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.ray_cluster import own_ports
from tests.support.workspace import Ran

_BIN = Path(sys.executable).parent
_TRIES, _START_SECONDS = 4, 120.0  # of a server's start
# The driver: commands one after the other, with the engines that the first has started.
_DRIVER = """
import json, sys
from jobs.engines.environment import quiet_engines
quiet_engines()
from tests.support.command_line import invoke
answers = sys.stdout
for line in sys.stdin:
    ran = invoke(json.loads(line))
    body = json.loads(ran.stdout) if ran.stdout.strip() else None
    print(json.dumps([ran.exit_code, body, ran.stderr]), file=answers, flush=True)
"""


class Cluster:
    """Started on creation, in ``folder``, which the hosts see. ``pinned``: each node of Ray has a core to itself.

    ``environment`` is that of all its processes, beside its own. ``jobs`` is the address of Ray's Jobs API, which is
    there where it is asked for by ``with_jobs``.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ray_nodes: int = 2,
        pinned: bool = False,
        with_jobs: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.network, self._pinned = folder, Network(2), pinned
        self.hosts, address = self.network.hosts, self.network.address
        self._spark_port, self._ray_port, jobs_port = free_ports(3)
        self.spark, self.ray = f"spark://{address}:{self._spark_port}", f"{address}:{self._ray_port}"
        self.jobs = f"http://{address}:{jobs_port}"
        self._own: list[subprocess.Popen[bytes]] = []
        self.environment = {
            **KEYS,
            "RAY_AUTH_MODE": "token",
            **{name: ENVIRONMENT[name] for name in OF_NODES},
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "PYTHONPATH": str(ROOT),
            "HF_HUB_OFFLINE": "1",
            "SPARK_NO_DAEMONIZE": "1",
            # Else `spark-class` asks the first python3 of the PATH, which need not be this one.
            "SPARK_HOME": str(Path(pyspark.__file__).parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            # As in conftest.py; the JVMs of hosts are not started by `spark-submit`.
            "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC",
            **(environment or {}),
        }
        try:
            self.store = Weed(folder / "store", address)
            ray = ["ray", "start", "--head", "--block", "--disable-usage-stats", f"--node-ip-address={address}"]
            ray += [f"--port={self._ray_port}", "--num-cpus=0", f"--include-dashboard={str(with_jobs).lower()}"]
            if with_jobs:
                ray += [f"--dashboard-host={address}", f"--dashboard-port={jobs_port}", *own_ports()]
            ray += ["--object-store-memory=100000000", f"--temp-dir={self._short()}"]
            self._begin(lambda: self._start("ray", str(_BIN / ray[0]), *ray[1:]), "ray")
            master = ["org.apache.spark.deploy.master.Master", "--host", address, "--port", str(self._spark_port)]
            master += ["--webui-port", str(free_ports(1)[0])]
            self._begin(lambda: self._start("spark", str(_BIN / "spark-class"), *master), "spark", "ALIVE")
            for number, host in enumerate(self.hosts):
                self._begin_host(host, ray=number < ray_nodes)
        except BaseException:
            self.stop()
            raise

    def start_spark(self, host: Host) -> subprocess.Popen[bytes]:
        """Start Spark's worker on a host, with one core."""
        words = [str(_BIN / "spark-class"), "org.apache.spark.deploy.worker.Worker", "--cores", "1", "--memory", "1g"]
        words += ["--host", host.address, "--work-dir", "/tmp/spark", "--webui-port", "0", self.spark]
        return host.start(words, self.folder / f"{host.name}-spark.log", self.environment)

    def bring_back(self, host: Host) -> None:
        """Bring a host that was lost back, with its engines; returns when they belong to the cluster."""
        host.join()
        self._begin_host(host)

    def _begin_host(self, host: Host, *, ray: bool = True) -> None:
        self._begin(lambda: self.start_spark(host), f"{host.name}-spark", "Successfully registered with master")
        if ray:
            self._begin(lambda: self.start_ray(host), f"{host.name}-ray")

    def start_ray(self, host: Host) -> subprocess.Popen[bytes]:
        """Start a node of Ray on a host, with one core."""
        words = ["taskset", "-c", str(self.hosts.index(host))] if self._pinned else []
        words += [str(_BIN / "ray"), "start", "--block", "--disable-usage-stats", f"--address={self.ray}"]
        words += [f"--node-ip-address={host.address}", "--num-cpus=1", "--object-store-memory=100000000"]
        return host.start(words, self.folder / f"{host.name}-ray.log", self.environment)

    @property
    def entrypoint(self) -> str:
        """What a launcher runs as a job of Ray."""
        return f"{sys.executable} -m jobs.cli.cluster_entrypoint"

    def reaches(self, host: Host, uri: str) -> None:
        """Raise where a server does not answer to a host."""
        address = urlsplit(uri)
        look = f"import socket; socket.create_connection(({address.hostname!r}, {address.port}), 10)"
        log = self.folder / f"{host.name}-reaches.log"
        assert host.start([sys.executable, "-c", look], log, {}).wait(60) == 0, log.read_text()

    def config(self) -> str:
        """The sections of a configuration that use the cluster."""
        return (
            f'[spark]\nmaster = "{self.spark}"\nin_process_mb = 0\n[spark.properties]\n"spark.executor.memory" = "700m"\n'
            f'[ray]\naddress = "{self.ray}"\n'
        )

    def driver(self) -> Driver:
        """A process that runs commands on this host."""
        return Driver(self.environment, self.folder)

    def stop(self) -> None:
        """End all of it."""
        for process in self._own:
            kill_tree(process)
        if hasattr(self, "store"):
            self.store.stop()
        self.network.remove()
        shutil.rmtree(self._short(), ignore_errors=True)

    def _short(self) -> str:
        """Ray makes socket names below it, which are short."""
        folder = Path("/tmp") / f"em{os.getpid()}"
        folder.mkdir(exist_ok=True)
        return str(folder)

    def _start(self, name: str, *words: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{name}.log").open("ab") as log:
            environment = {**os.environ, **self.environment}
            self._own.append(
                subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd="/")
            )
        return self._own[-1]

    def _begin(
        self, start: Callable[[], subprocess.Popen[bytes]], name: str, said: str = "Ray runtime started"
    ) -> None:
        """Start a server until its log says that it is one of the cluster: Ray gives up on a busy machine.

        A raylet dies where its agent takes more than 15 s to start, and `ray start` then waits for it for ever.
        """
        log = self.folder / f"{name}.log"
        for _ in range(_TRIES):
            log.unlink(missing_ok=True)
            process, until = start(), time.monotonic() + _START_SECONDS
            while process.poll() is None and time.monotonic() < until:
                if said in log.read_text(errors="replace"):
                    return
                time.sleep(0.2)
            kill_tree(process)
        raise AssertionError(f"{name} did not come up: {log.read_text(errors='replace')[-2000:]}")


class Driver:
    """Runs commands, one after the other, in a process of its own."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._log = (folder / "driver.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=folder,
            env={**os.environ, **environment},
        )

    def call(self, config: Path, *arguments: str) -> Ran:
        """Run a command. RuntimeError where the process died."""
        assert self.process.stdin is not None and self.process.stdout is not None
        words = [*arguments, "--config", str(config), "--json"]
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the driver died: {self.process.wait()}")
        code, body, err = json.loads(answer)
        return Ran(code, body, err)

    def stop(self) -> None:
        """End it."""
        with self.process:  # closes its pipes, and waits
            self.process.kill()
        self._log.close()


def ended(ran: Ran) -> Any:
    """The body of a command that ended well."""
    assert ran.code == 0, ran
    return ran.body
