"""A text that people wrote is in the text tables and in the index, and nowhere else: whatever fails, however much is
logged. Commands run as processes of their own, with everything that they leave behind in one place.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.canary import Canary, Onlooker, places
from tests.support.otlp import Receiver
from tests.support.paths import QUICK, ROOT
from tests.support.workspace import TEAM, TEXTS, Workspace, message

HOOK = ROOT / "tests" / "every_python"

SPARK_SECRET = "a secret of Spark"
SPARK_LOG = """
rootLogger.level = debug
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {file}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %p %c: %m%n%ex
"""


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

    def run(self, *arguments: str, words: str = "", faults: str = "", debug: bool = False) -> tuple[int, Any]:
        """Run a command to its end; its exit code and its object."""
        with Onlooker(self.canaries) as onlooker:
            process = self.start(*arguments, faults=faults, debug=debug)
            process.communicate(words.encode())
        assert onlooker.looks > 5
        self.seen |= onlooker.seen
        out = (self.outside / f"{self.runs}-{arguments[0]}.out").read_text()
        return process.returncode, json.loads(out) if out.strip() else None

    def said(self) -> str:
        """What the last command printed to standard error."""
        return next(self.outside.glob(f"{self.runs}-*.err")).read_text()

    def leaks(self) -> dict[str, set[str]]:
        """Where canaries are that have no business there."""
        (self.outside / "otlp").write_bytes(b"\n".join(self.receiver.raw))
        found = places(self.canaries, self.state, self.outside)
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


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    outside = Path(tempfile.mkdtemp(prefix="canary"))  # short: Ray's sockets lie below it
    before = set(Path("/dev/shm").glob("*"))
    space = Workspace(tmp_path_factory.mktemp("canary") / "ws")
    with Receiver() as receiver:
        yield from _bench(space, outside, before, receiver)


def _bench(space: Workspace, outside: Path, before: set[Path], receiver: Receiver) -> Iterator[Bench]:
    bench = Bench(space, outside, receiver)
    (outside / "home").mkdir()
    (outside / "events").mkdir()
    (outside / "log4j.properties").write_text(SPARK_LOG.format(file=outside / "spark.log"))
    fill(bench)
    yield bench
    assert not places(bench.canaries, *(p for p in set(Path("/dev/shm").glob("*")) - before if p.is_dir()))
    shutil.rmtree(outside, ignore_errors=True)


def fill(bench: Bench) -> None:
    """The sources of the first run: all of it can be read."""
    space, canary = bench.space, bench.canary
    large = {"padding": "x" * 1_000_000}  # so that Spark reads it
    block = {"type": "section", "text": {"type": "mrkdwn", "text": f"and {canary('attached')}"}}
    space.day(
        "general",
        [
            message(0, f"hello {canary('ordinary')}"),
            message(1, f"a first try {canary('before the edit')}"),
            message(2, f"gone tomorrow {canary('deleted')}"),
            message(
                3, "see below", attachments=[{"fallback": "x", "text": canary("attached")}], blocks=[block], **large
            ),
        ],
    )
    (space.files / "notes.txt").write_text(f"In a file: {canary('file')}\n")
    (space.files / "handbook.md").write_text(f"# About {canary('heading')}\n\nA locker opens with the code.\n")
    rows = space.root / "rows"
    rows.mkdir()
    (rows / "a.json").write_text(json.dumps({"id": "1", "body": f"row {canary('row')}", "at": "2025-03-03"}) + "\n")
    java = f"-Dlog4j2.configurationFile=file:{bench.outside}/log4j.properties"
    table = (
        '[[sources]]\nkind = "table"\nuri = "rows"\nformat = "json"\nteam_id = "T01"\n'
        '[sources.columns]\nid = "id"\ntext = "body"\ncreated_at = "at"\n'
    )
    properties = {
        **QUICK,
        "spark.eventLog.enabled": "true",
        "spark.eventLog.dir": f"file://{bench.outside}/events",
        "spark.eventLog.compress": "false",
        "spark.hadoop.fs.azure.account.key.lake": canary(SPARK_SECRET),
        "spark.driver.extraJavaOptions": java,
    }
    space.config.write_text(
        table
        + space.config.read_text()
        .replace("[spark]\n", "[spark]\nin_process_mb = 0\n")
        .replace("[model]\n", "[model]\nshard_tokens = 20\n")  # shards enough for Ray
        + "[spark.properties]\n"
        + "".join(f"{json.dumps(k)} = {json.dumps(v)}\n" for k, v in properties.items())
        + f'[telemetry]\ntextfile = "{bench.outside / "metrics"}"\nteams = ["{TEAM}"]\n'
    )


def break_sources(bench: Bench) -> None:
    """Everything that can be wrong with a source, with a canary in each."""
    space, canary = bench.space, bench.canary
    said = space.messages("general")
    edited = message(1, f"a better try {canary('edited')}") | {"edited": {"user": "U1", "ts": "1750000000.000000"}}
    bad = [
        {"type": "message", "user": "U1", "text": canary("no ts")},
        {"type": "message", "user": "U1", "text": canary("odd ts"), "ts": canary("a ts")},
        {
            "type": "message",
            "user": {"name": canary("odd user")},
            "text": [canary("odd text")],
            "ts": "1740960050.000100",
        },
        message(60, f"this one raises {canary('raises')}"),
        message(61, f"this one kills {canary('kills')}"),
    ]
    space.day("general", [said[0], edited, said[3], *bad])
    day = json.dumps([message(0, f"a day that was cut off {canary('cut off')}")], ensure_ascii=False).encode()
    cut = day.index(bench.canaries["cut off"].halves[1].encode())
    (space.export / "general" / "2025-03-04.json").write_bytes(day[: cut + 3])
    (space.export / "general" / "2025-03-05.json").write_text(json.dumps({"text": canary("no list")}))
    broken = canary("broken file").encode()
    (space.files / "broken.docx").write_bytes(b"PK\x03\x04" + broken * 20)
    (space.files / "broken.pdf").write_bytes(b"%PDF-1.7\n1 0 obj " + broken)
    (space.files / "broken.xml").write_bytes(b"<?xml version='1.0'?><a>" + broken + b"<b></a>")
    (space.root / "rows" / "b.json").write_text(
        json.dumps({"id": "2", "body": canary("odd row"), "at": canary("odd date")}) + "\n"
    )
    (space.root / "rows" / "c.json").write_text(f'{{"id": "3", "body": "{canary("cut row")}')


@pytest.mark.long
def test_a_text_is_in_the_text_column_and_the_index_and_nowhere_else(bench: Bench) -> None:
    code, body = bench.run("run")
    assert code == 0, bench.said()[-2000:]
    found = places(bench.canaries, bench.state)
    for name in ("ordinary", "attached", "file", "row"):
        assert any(w.endswith(":text") and w.startswith("state/chunks") for w in found[name]), (
            "the search finds nothing"
        )
        assert any(w.startswith("state/milvus.db/") for w in found[name])
    assert bench.leaks() == {}
    assert any((bench.outside / "events").rglob("*")) and (bench.outside / "spark.log").stat().st_size > 10_000
    assert any(bench.outside.glob("ray/session_*/logs/*")), "Ray's logs are somewhere else"

    break_sources(bench)
    code, body = bench.run("run", faults="encoder")
    assert code == 3, bench.said()[-2000:]
    assert body["documents"]["quarantined"] >= 10
    code, body = bench.run("search", "-", "--team", TEAM, words=bench.canary("query"))
    assert code == 0 and body["hits"]
    shown = next(bench.outside.glob(f"{bench.runs}-search.out"))
    shown.unlink()  # texts of the hits, that were asked for
    code, body = bench.run("search", "-", "--team", TEAM, words=bench.canary("query"), faults="query")
    assert code == 1 and body["error"]["message"].startswith("unexpected ValueError at "), body
    code, body = bench.run("report", "--out", str(bench.outside / "page.html"))
    assert code == 0 and (bench.outside / "page.html").stat().st_size > 10_000
    for document in (f"{TEAM}/m/C1/1740960060.000100", f"{TEAM}/f/notes.txt", f"{TEAM}/f/broken.pdf"):
        assert bench.run("explain", document, "--team", TEAM)[0] == 0
    assert bench.run("doctor")[0] == 0 == bench.run("status", "--check")[0]
    assert bench.leaks() == {}
    spans = {span.name for span in bench.receiver.spans}
    assert {"embedmill run", "embed", "extract", "publish"} <= spans and bench.receiver.metrics
    assert next((bench.outside / "metrics").iterdir()).stat().st_size > 1_000


@pytest.mark.long
@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("fault", ["cut", "shard", "table", "index", "ledger", "query"])
def test_a_library_that_quotes_a_text_in_its_exception_is_not_quoted(bench: Bench, fault: str, debug: bool) -> None:
    said = bench.space.messages("random")
    bench.space.day("random", [*said, message(100 + len(said), f"new {bench.canary(f'{fault} {debug}')}")])
    command = ("search", "-", "--team", TEAM) if fault == "query" else ("run",)
    code, _ = bench.run(*command, faults=fault, debug=debug, words=bench.canary("query"))
    assert code == 1
    assert "unexpected ValueError at " in bench.said() or debug and "ValueError: (message left out)" in bench.said()
    assert bench.leaks() == {}


@pytest.mark.long
def test_a_killed_run_leaves_texts_in_its_scratch_alone_and_the_next_run_clears_it(bench: Bench) -> None:
    bench.space.day("random", [message(n, f"{TEXTS[n % 6]} {bench.canary('killed')}") for n in range(300)])
    with bench.start("run") as process:
        started = time.monotonic()
        while not any(bench.state.glob("work/*/texts/shard=*/*.parquet")):
            assert process.poll() is None and time.monotonic() - started < 120
            time.sleep(0.002)
        children = psutil.Process(process.pid).children(recursive=True)
        os.kill(process.pid, signal.SIGKILL)
    psutil.wait_procs(children, timeout=90)
    leaks = bench.leaks()
    assert all(where.startswith("state/work/") for place in leaks.values() for where in place), leaks
    code, _ = bench.run("run")
    assert code in (0, 3)
    assert bench.leaks() == {}
    left = {p.name for p in (bench.state / "work").rglob("*") if p.is_file()}
    assert left == {"engines.log", "log4j2.properties", "alive.json"}, (
        "the last run's engines have ended, their texts are gone"
    )
    assert not list((bench.state / "work").glob(f"engines-*-{process.pid}"))
