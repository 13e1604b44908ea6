"""A real Ray of one node with its Jobs API on 127.0.0.1, with every process of it ended by its own id."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import psutil

from tests.support.paths import ROOT
from tests.support.ports import free_ports

_LISTENERS = (
    "dashboard-agent-listen-port",
    "dashboard-agent-grpc-port",
    "metrics-export-port",
    "ray-client-server-port",
    "runtime-env-agent-port",
    "node-manager-port",
)


def own_ports() -> list[str]:
    """Options of `ray start --head` that keep its lesser servers off the ports of another Ray on this machine."""
    return [f"--{name}={port}" for name, port in zip(_LISTENERS, free_ports(len(_LISTENERS)), strict=True)]


class RayCluster:
    """Started on creation. ``environment`` is the cluster's own, which its jobs inherit.

    It asks for a token: the one that Ray keeps for this user, or RAY_AUTH_TOKEN of its environment.
    """

    def __init__(self, **environment: str) -> None:
        ray = Path(sys.executable).with_name("ray")
        own = {**os.environ, "PYTHONPATH": str(ROOT), "RAY_AUTH_MODE": "token", **environment}
        # Loopback alone: by default Ray takes the machine's address where it is told 127.0.0.1.
        own["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        if "RAY_AUTH_TOKEN" not in own:
            subprocess.run([ray, "get-auth-token", "--generate"], check=True, capture_output=True, env=own)
        self.root = Path(tempfile.mkdtemp(prefix="em-ray-", dir="/tmp"))  # short: Ray makes socket names below it
        gcs, dashboard = free_ports(2)
        self.address = f"http://127.0.0.1:{dashboard}"
        self._log = (self.root / "start.log").open("wb")
        self.process = subprocess.Popen(
            [
                ray,
                "start",
                "--head",
                "--block",
                "--disable-usage-stats",
                "--node-ip-address=127.0.0.1",
                f"--port={gcs}",
                "--include-dashboard=true",
                "--dashboard-host=127.0.0.1",
                f"--dashboard-port={dashboard}",
                "--num-cpus=2",
                "--object-store-memory=100000000",
                f"--temp-dir={self.root}/r",
                *own_ports(),
            ],
            env=own,
            stdout=self._log,
            stderr=self._log,
        )
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        tree = []
        if self.process.poll() is None:
            tree = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        _, alive = psutil.wait_procs(tree, timeout=10)
        for left in alive:
            left.kill()
        psutil.wait_procs(alive, timeout=10)
        self.process.wait(20)
        self._log.close()
        shutil.rmtree(self.root, ignore_errors=True)

    def _wait(self) -> None:
        until = time.monotonic() + 90
        while time.monotonic() < until:
            said = (self.root / "start.log").read_text()
            assert self.process.poll() is None, said[-2000:]
            try:
                urlopen(f"{self.address}/api/version", timeout=10).close()
            except HTTPError:  # it is up, and asks for its token
                return
            except OSError:
                time.sleep(0.5)
        raise AssertionError(f"Ray's Jobs API did not come up: {said[-2000:]}")
