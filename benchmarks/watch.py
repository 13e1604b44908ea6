"""Runs a command and keeps the peak memory of every process below it, under names that a reader knows.

Of each process: peak resident memory (the kernel's own high-water mark where there is /proc), its anonymous part, and
at a slower rate its unique set size. Resident memory counts shared pages (libraries, Ray's object store) in every
process that maps them; unique does not, and proportional (pss) splits them.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SAMPLE_SECONDS = 0.2
# For unique and proportional size the kernel walks all pages of a process: seldom, and for at most one part in so many
# of a core.
DEEP_SECONDS = 1.0
DEEP_SHARE = 20
END_SECONDS = 20.0  # how long processes may outlive their driver before they are named as left over
_MB = 1 << 20

# First match wins; of the command line, as far as it matters.
_NAMES = (
    ("pyspark.daemon", "spark python"),
    ("pyspark/daemon", "spark python"),
    ("org.apache.spark.launcher", "spark launcher"),
    ("org.apache.spark", "spark jvm"),
    ("EncodeShard", "ray actor"),
    ("jobs.embed.encoder_process", "encoder process"),
    ("ray::", "ray worker"),
    ("default_worker.py", "ray worker"),
    ("/agent.py", "ray service"),
    ("/agent/main.py", "ray service"),
    ("gcs_server", "ray gcs"),
    ("/ray/", "ray service"),
    ("milvus", "milvus lite"),
)


@dataclass
class Peak:
    """Highest values of one process, in MB."""

    label: str
    rss: float = 0.0
    anon: float = 0.0
    uss: float = 0.0


@dataclass
class Watched:
    """What a command came to. ``together`` is the highest sum of proportional sizes at one moment, in MB."""

    code: int
    seconds: float
    stdout: str
    stderr: str
    together: float
    left_over: int
    peaks: list[Peak] = field(default_factory=list)

    def by_label(self) -> dict[str, dict[str, float]]:
        """Processes of a name put together: how many, the largest, and the sum of their peaks."""
        found: dict[str, dict[str, float]] = {}
        for peak in self.peaks:
            row = found.setdefault(peak.label, dict.fromkeys(("processes", "rss", "anon", "uss", "rss_sum"), 0.0))
            row["processes"] += 1
            row["rss_sum"] += peak.rss
            for name in ("rss", "anon", "uss"):
                row[name] = max(row[name], getattr(peak, name))
        return {
            label: {name: round(value, 1) for name, value in row.items()}
            for label, row in sorted(found.items(), key=lambda item: -item[1]["rss_sum"])
        }


class _Tree:
    """A process and all below it, also those whose parent has gone."""

    def __init__(self, root: int, label: str) -> None:
        self._label = label
        self._root = psutil.Process(root)
        self._known: dict[int, tuple[psutil.Process, Peak]] = {}
        self._deep_at = 0.0
        self.together = 0.0

    def sample(self) -> None:
        """Look at every process once."""
        began = time.monotonic()
        deep = began >= self._deep_at
        together = 0.0
        for process in self._alive():
            try:
                peak = self._known.setdefault(process.pid, (process, Peak("")))[1]
                peak.label = self._label if process.pid == self._root.pid else _name(process)
                rss, anon = _resident(process)
                peak.rss, peak.anon = max(peak.rss, rss), max(peak.anon, anon)
                if deep:
                    full = process.memory_full_info()
                    peak.uss = max(peak.uss, full.uss / _MB)
                    together += getattr(full, "pss", full.uss) / _MB
            except psutil.Error:
                continue  # it ended between two looks
        if deep:
            self.together = max(self.together, together)
            ended = time.monotonic()
            self._deep_at = ended + max(DEEP_SECONDS, DEEP_SHARE * (ended - began))

    def _alive(self) -> list[psutil.Process]:
        found = {pid: process for pid, (process, _) in self._known.items() if process.is_running()}
        for parent in [self._root, *found.values()]:
            try:
                found |= {child.pid: child for child in parent.children(recursive=parent is self._root)}
            except psutil.Error:
                continue
        if self._root.is_running():
            found[self._root.pid] = self._root
        return list(found.values())

    def wait(self) -> int:
        """Wait for what outlives the root; returns how many are still there at the end."""
        left = [process for process, _ in self._known.values() if process.pid != self._root.pid]
        return len(psutil.wait_procs(left, timeout=END_SECONDS)[1])

    def stop(self) -> None:
        """End the processes seen here and no other."""
        processes = [process for process, _ in self._known.values()]
        for process in processes:
            try:
                process.terminate()
            except psutil.Error:
                continue
        for process in psutil.wait_procs(processes, timeout=END_SECONDS)[1]:
            process.kill()

    @property
    def peaks(self) -> list[Peak]:
        """One for each process that was seen long enough to have a name."""
        return [peak for _, peak in self._known.values() if peak.label]


def watch(
    command: Sequence[str], *, cwd: Path, env: Mapping[str, str], logs: Path, label: str, look: bool = True
) -> Watched:
    """Run a command to its end while watching it. ``logs`` is a folder for its output; ``label`` names its process.

    Without ``look`` only its time is taken: looking at the memory of twenty processes slows them by a tenth.
    """
    logs.mkdir(parents=True, exist_ok=True)
    out, err = logs / "stdout", logs / "stderr"
    start = time.monotonic()
    with out.open("wb") as stdout, err.open("wb") as stderr:
        running = subprocess.Popen(command, cwd=cwd, env=dict(env), stdout=stdout, stderr=stderr)
        tree = _Tree(running.pid, label)
        try:
            while look and running.poll() is None:
                tree.sample()
                time.sleep(SAMPLE_SECONDS)
            running.wait()
            seconds = time.monotonic() - start
            left = tree.wait()
        except BaseException:
            tree.sample()  # also ends processes that were never sampled
            tree.stop()
            running.wait()
            raise
    return Watched(running.returncode, seconds, out.read_text(), err.read_text(), tree.together, left, tree.peaks)


def peak_of(pid: int) -> float:
    """Peak resident memory of a process so far, in MB."""
    return _resident(psutil.Process(pid))[0]


def _name(process: psutil.Process) -> str:
    arguments = process.cmdline()
    if arguments and arguments[0].endswith("/raylet"):
        return "ray raylet"  # whose arguments hold the command lines of the others
    line = " ".join(arguments) or process.name()
    return next((name for part, name in _NAMES if part in line), "other")


def _resident(process: psutil.Process) -> tuple[float, float]:
    """Peak resident and present anonymous memory, in MB."""
    try:
        status = dict(line.split(":", 1) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) / 1024, int(status["RssAnon"].split()[0]) / 1024
    except (OSError, KeyError, ValueError):
        rss = process.memory_info().rss / _MB
        return rss, rss
