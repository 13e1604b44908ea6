"""Hosts on one machine: network namespaces with addresses, names and a /tmp of their own, joined by a bridge.

Only root may make them, and not everywhere: see ``why_not``. What is not below /tmp or ``hidden`` is seen by all.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_PATH = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_HOLD = """
hostname {name}
mount -t tmpfs tmpfs /tmp
for hidden in {hidden}; do mount -t tmpfs tmpfs $hidden; done
echo "127.0.0.1 localhost\n{address} {name}" > /tmp/hosts
mount --bind /tmp/hosts /etc/hosts
echo up
exec sleep infinity
"""


def why_not() -> str:
    """Why there can be no hosts here; empty where there can."""
    if os.geteuid() or not all(shutil.which(word, path=_PATH) for word in ("ip", "unshare", "nsenter")):
        return "only root makes hosts, with iproute2 and util-linux"
    name = f"em{os.getpid()}"
    if _done("ip", "netns", "add", name):
        _done("ip", "netns", "del", name)
        return ""
    return "no network namespaces can be made here"


def _done(*words: str) -> bool:
    return subprocess.run(words, capture_output=True, check=False, env={**os.environ, "PATH": _PATH}).returncode == 0


def _do(*words: str) -> None:
    subprocess.run(words, capture_output=True, check=True, env={**os.environ, "PATH": _PATH})


class Host:
    """A host of the network at an ``address``."""

    def __init__(self, name: str, address: str, bridge: str, hidden: Sequence[Path]) -> None:
        self.name, self.address = name, address
        self.started: list[subprocess.Popen[bytes]] = []
        # Names of interfaces have 15 characters.
        self._cable, inside = f"{name}o", f"{name}i"
        outside = self._cable
        _do("ip", "netns", "add", name)
        _do("ip", "link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
        _do("ip", "link", "set", outside, "master", bridge, "up")
        for words in (f"addr add {address}/24 dev {inside}", f"link set {inside} up", "link set lo up"):
            _do("ip", "-n", name, *words.split())
        script = _HOLD.format(name=name, address=address, hidden=" ".join(f"'{folder}'" for folder in hidden))
        self._holder = subprocess.Popen(
            ["ip", "netns", "exec", name, "unshare", "--mount", "--uts", "sh", "-ec", script],
            stdout=subprocess.PIPE,
            env={**os.environ, "PATH": _PATH},
        )
        assert self._holder.stdout is not None
        with self._holder.stdout as said:
            assert said.readline() == b"up\n"

    def start(self, words: Sequence[str], log: Path, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a program on the host."""
        with log.open("ab") as sink:
            within = ["nsenter", "-t", str(self._holder.pid), "--mount", "--uts", "--net", "--"]
            process = subprocess.Popen(
                [*within, *words],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd="/",
                env={**os.environ, **environment, "PATH": _PATH},
            )
        self.started.append(process)
        return process

    def holds(self, text: bytes) -> list[str]:
        """Files of the host's own /tmp in which a text is."""
        look = (
            "import os, sys\n"
            "for folder, _, names in os.walk('/tmp'):\n"
            "    for name in names:\n"
            "        path = os.path.join(folder, name)\n"
            "        if os.path.isfile(path) and sys.argv[1].encode() in open(path, 'rb').read():\n"
            "            print(path)\n"
        )
        words = ["nsenter", "-t", str(self._holder.pid), "--mount", "--", sys.executable, "-c", look, text.decode()]
        done = subprocess.run(words, capture_output=True, text=True, check=True, env={**os.environ, "PATH": _PATH})
        return done.stdout.splitlines()

    def runs(self, name: str) -> bool:
        """Whether a program that was started on the host runs one whose command line has a name in it."""
        alive = [process.pid for process in self.started if process.poll() is None]
        for one in (child for pid in alive for child in psutil.Process(pid).children(recursive=True)):
            try:
                if name in " ".join(one.cmdline()):
                    return True
            except psutil.NoSuchProcess:
                continue
        return False

    def kill(self) -> None:
        """Kill every program of the host. The kernel closes its connections, so that others know at once."""
        for process in self.started:
            kill_tree(process)
        self.started.clear()

    def lose(self) -> None:
        """Lose the host as by a loss of power: others hear nothing of it any more, not even that it is gone."""
        _do("ip", "link", "set", self._cable, "down")
        self.kill()

    def join(self) -> None:
        """Bring a lost host back to the network, with no program on it."""
        _do("ip", "link", "set", self._cable, "up")

    def remove(self) -> None:
        """Take the host away."""
        self.kill()
        kill_tree(self._holder)
        _done("ip", "netns", "del", self.name)


def kill_tree(process: subprocess.Popen[bytes]) -> None:
    """Kill a program and all that it has started."""
    tree = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for one in tree:
        try:
            one.send_signal(signal.SIGKILL)
        except psutil.NoSuchProcess:
            continue
    process.kill()
    process.wait()
    psutil.wait_procs(tree, timeout=10)


class Network:
    """A bridge at ``address`` and hosts behind it. This process is a host too, at that address."""

    def __init__(self, hosts: int, hidden: Sequence[Path] = ()) -> None:
        self._name = f"em{os.getpid() % 100_000}"
        part = os.getpid() % 250 + 2
        self.address = f"10.77.{part}.1"
        self.hosts: list[Host] = []
        _do("ip", "link", "add", self._name, "type", "bridge")
        try:
            _do("ip", "addr", "add", f"{self.address}/24", "dev", self._name)
            _do("ip", "link", "set", self._name, "up")
            for number in range(hosts):
                name, address = f"{self._name}{'abcdefgh'[number]}", f"10.77.{part}.{10 + number}"
                self.hosts.append(Host(name, address, self._name, hidden))
        except BaseException:
            self.remove()
            raise

    def remove(self) -> None:
        """Take all of it away."""
        for host in self.hosts:
            host.remove()
        _done("ip", "link", "del", self._name)
