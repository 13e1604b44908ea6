"""Commands over texts that are nowhere else, as processes of their own, with all that they leave behind in one place."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.canary import Canary, Onlooker, places
from tests.support.otlp import Receiver
from tests.support.paths import ROOT
from tests.support.workspace import Workspace

HOOK = ROOT / "tests" / "every_python"
SPARK_SECRET = "a secret of Spark"


@dataclass
class Bench:
    """A workspace with canaries, and a folder for everything that a process leaves outside of it."""

    space: Workspace
    outside: Path  # TMPDIR, home, Spark's logs and events, what commands print, metrics, traces, pages
    receiver: Receiver
    canaries: dict[str, Canary] = field(default_factory=dict)
    runs: int = 0
    seen: set[str] = field(default_factory=set)

    def canary(self, name: str) -> str:
        """The text of a canary, made on first use."""
        return self.canaries.setdefault(name, Canary()).text

    @property
    def state(self) -> Path:
        return self.space.root / "state"

    def start(self, *arguments: str, faults: str = "", debug: bool = False) -> subprocess.Popen[bytes]:
        self.runs += 1
        environment = {
            k: v for k, v in os.environ.items() if not k.startswith(("EMBEDMILL", "RAY_", "SPARK", "PYSPARK"))
        }
        environment |= {
            "PYTHONPATH": f"{HOOK}:{ROOT}",
            "TMPDIR": str(self.outside),
            "HOME": str(self.outside / "home"),
            "JAVA_TOOL_OPTIONS": f"-Djava.io.tmpdir={self.outside}",
            "RAY_BACKEND_LOG_LEVEL": "debug",
            "EMBEDMILL_TEST_FAULTS": faults,
            "EMBEDMILL_PROGRESS": "lines",
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.receiver.http,
        }
        if debug:
            environment["EMBEDMILL_DEBUG"] = "1"
        printed = self.outside / f"{self.runs}-{arguments[0]}"
        with Path(f"{printed}.out").open("wb") as out, Path(f"{printed}.err").open("wb") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", *arguments, "--config", str(self.space.config), "--json"],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=err,
                cwd=self.outside,
            )

    def run(
        self, *arguments: str, words: str = "", faults: str = "", debug: bool = False, looks: int = 5
    ) -> tuple[int, Any]:
        """Run a command to its end; its exit code and its object. Its processes are looked at more than ``looks`` times."""
        with Onlooker(self.canaries) as onlooker:
            process = self.start(*arguments, faults=faults, debug=debug)
            process.communicate(words.encode())
        assert onlooker.looks > looks
        self.seen |= onlooker.seen
        out = (self.outside / f"{self.runs}-{arguments[0]}.out").read_text()
        return process.returncode, json.loads(out) if out.strip() else None

    def said(self) -> str:
        """What the last command printed to standard error."""
        return next(self.outside.glob(f"{self.runs}-*.err")).read_text()

    def leaks(self) -> dict[str, set[str]]:
        """Where canaries are that have no business there."""
        (self.outside / "otlp").write_bytes(b"\n".join(self.receiver.raw))
        found = places(self.canaries, self.state, self.outside, self.space.root / "registry")
        leaks = {}
        for name, where in found.items():
            allowed = {w for w in where if self._allowed(w, ("meta", "title") if name == "heading" else ("text",))}
            if name == SPARK_SECRET:  # Spark tells its settings below WARN; its log is off unless somebody asks for it
                allowed |= {w for w in where if w.endswith("/spark.log")}
            if where - allowed:
                leaks[name] = where - allowed
        if self.seen:
            leaks["processes"] = self.seen
        return leaks

    def _allowed(self, where: str, columns: tuple[str, ...]) -> bool:
        if where.startswith("state/milvus.db/"):
            return True
        file, _, found = where.partition(":")
        return file.startswith("state/chunks/cut=") and found in ("", "text", *columns)


@contextmanager
def opened_bench(folder: Path, fill: Callable[[Bench], None]) -> Iterator[Bench]:
    """A bench whose sources ``fill`` writes. In the end no canary may be in shared memory, either."""
    outside = Path(tempfile.mkdtemp(prefix="canary"))  # short: Ray's sockets lie below it
    before = set(Path("/dev/shm").glob("*"))
    with Receiver() as receiver:
        bench = Bench(Workspace(folder / "ws"), outside, receiver)
        (outside / "home").mkdir()
        (outside / "events").mkdir()
        fill(bench)
        yield bench
    assert not places(bench.canaries, *(p for p in set(Path("/dev/shm").glob("*")) - before if p.is_dir()))
    shutil.rmtree(outside, ignore_errors=True)
