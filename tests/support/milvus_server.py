"""A real Milvus server for tests: started on a folder and a port of its own, killed, and started again on both.

Its binary comes from a package that does not share an environment with ours: `make test` installs it into
.venv-milvus, and EMBEDMILL_MILVUS_PYTHON names another interpreter that has it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from pathlib import Path

import psutil
from filelock import FileLock

from tests.support.paths import ROOT
from tests.support.ports import free_ports

PYTHON = Path(os.environ.get("EMBEDMILL_MILVUS_PYTHON") or ROOT / ".venv-milvus" / "bin" / "python")
# The program, which its package has packed by LZMA: four core-seconds that each new folder of a server would cost.
UNPACKED = PYTHON.parents[1] / "unpacked"
MISSING = f"no Milvus server: {PYTHON} is not there; `make test` makes it"

# Tells the server's process id, and ends it with its own standard input. The package looks for a free port without
# SO_REUSEADDR, which the server itself has: where connections of a killed server linger it would take the next one.
_LAUNCH = """
import socket, sys
from milvus import MilvusServer
class Reusing(socket.socket):
    def bind(self, address):
        self.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        super().bind(address)
socket.socket = Reusing
server = MilvusServer()
server.set_base_dir(sys.argv[1])
server.listen_port = int(sys.argv[2])
server.start()
print(server.server_proc.pid, server.listen_port, flush=True)
sys.stdin.read()
server.stop()
"""


# How often its parts look at each other's work, in ms: by itself it takes seconds to load what tests have just made.
_OFTEN = {
    "QUERYCOORD_CHECKINTERVAL": "100",
    "QUERYCOORD_DISTPULLINTERVAL": "100",
    "QUERYCOORD_CHECKHANDOFFINTERVAL": "500",
    "INDEXCOORD_SCHEDULER_INTERVAL": "100",
    "QUERYNODE_STATS_PUBLISHINTERVAL": "200",
    "PROXY_TIMETICKINTERVAL": "50",
}


class MilvusServer:
    """A running server; ``uri`` stays the same over ``kill`` and ``start``."""

    def __init__(self, folder: Path, address: str = "127.0.0.1", *, session_seconds: int = 0) -> None:
        """``session_seconds``, 0 its default: after which its parts take each other for dead, and do not recover.

        A machine that is too busy needs many; after a kill they wait as long for each other.
        """
        self._folder = folder
        self._session = {"COMMON_SESSION_TTL": str(session_seconds)} if session_seconds else {}
        self._port, client, peer = free_ports(3)
        # Its embedded etcd listens at 2380 unless told otherwise, so that a machine could have one server only.
        etcd = {"listen-client-urls": client, "advertise-client-urls": client, "listen-peer-urls": peer}
        etcd |= {"initial-advertise-peer-urls": peer, "initial-cluster": peer}
        self._etcd = "".join(
            f"{key}: {'default=' * (key == 'initial-cluster')}http://127.0.0.1:{port}\n" for key, port in etcd.items()
        )
        self.uri = f"http://{address}:{self._port}"  # it listens at all addresses of this machine
        self._launcher: subprocess.Popen[str] | None = None
        self._pid = 0
        self.start()

    def start(self) -> None:
        """Start it and wait until it answers. RuntimeError with its own words where it does not."""
        self._folder.mkdir(parents=True, exist_ok=True)
        etcd = self._folder / "etcd.yaml"
        etcd.write_text(self._etcd)
        # One at a time: the package looks for ports that are free, and two at once find the same.
        with FileLock(Path(tempfile.gettempdir(), f"embedmill-milvus-{os.getuid()}.lock")):
            if os.access(UNPACKED.parent, os.W_OK) and not (self._folder / "bin").exists():
                UNPACKED.mkdir(exist_ok=True)
                (self._folder / "bin").symlink_to(UNPACKED)
            self._launcher = subprocess.Popen(
                [str(PYTHON), "-c", _LAUNCH, str(self._folder), str(self._port)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, **_OFTEN, **self._session, "ETCD_CONFIG_PATH": str(etcd)},
            )
            assert self._launcher.stdout is not None
            answer = self._launcher.stdout.readline().strip()
        if not answer:
            raise RuntimeError(f"Milvus did not start: {self._launcher.communicate()[1][-500:]}")
        self._pid, port = map(int, answer.split())
        assert port == self._port, "it listens at another port than it was told"

    def kill(self) -> None:
        """End it as a power cut would."""
        os.kill(self._pid, signal.SIGKILL)
        self.stop()

    def stop(self) -> None:
        """End it, if it runs."""
        if self._launcher is None:
            return
        server = psutil.Process(self._pid) if psutil.pid_exists(self._pid) else None
        self._launcher.communicate(timeout=60)
        if server is not None:
            psutil.wait_procs([server], timeout=30)
        self._launcher = None
