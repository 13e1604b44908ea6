"""A text that people wrote is in the text tables and in the index, and nowhere else: whatever fails, however much is
logged. Commands run as processes of their own, with everything that they leave behind in one place.
"""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from tests.support.canary import places
from tests.support.canary_bench import SPARK_SECRET, Bench, opened_bench
from tests.support.paths import ON_RAY, QUICK
from tests.support.workspace import TEAM, TEXTS, message

SPARK_LOG = """
rootLogger.level = debug
rootLogger.appenderRef.file.ref = file
appender.file.type = File
appender.file.name = file
appender.file.fileName = {file}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %p %c: %m%n%ex
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with opened_bench(tmp_path_factory.mktemp("canary"), fill) as bench:
        yield bench


def fill(bench: Bench) -> None:
    """The sources of the first run: all of it can be read."""
    space, canary = bench.space, bench.canary
    (bench.outside / "log4j.properties").write_text(SPARK_LOG.format(file=bench.outside / "spark.log"))
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
        .replace("[model]\n", ON_RAY + "[model]\nshard_tokens = 20\n")
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
