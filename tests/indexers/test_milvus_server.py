"""Whole runs and cutovers on a real Milvus server: exact tenants, a server that dies, and searches under a cutover."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from embedding.errors import ConfigError, ReadBackError
from indexers import Settings, open_index
from indexers.base import SearchRequest
from indexers.milvus.index import MilvusIndex
from indexers.milvus.layout import COMPACTION_KEY, PROVEN_KEY, Layout
from tests.indexers.test_index_contract import DIM, rows, scanned, vectors_of
from tests.jobs.test_reindex import set_model
from tests.support.milvus_server import MISSING, PYTHON, MilvusServer
from tests.support.workspace import Workspace, message

pytestmark = pytest.mark.usefixtures("encoder_here")


@pytest.fixture
def name() -> str:
    """An index of its own: the server is shared."""
    return f"idx_{uuid.uuid4().hex[:8]}"


def on_server(space: Workspace, uri: str, name: str, *, shard_rows: int = 5_000) -> Workspace:
    space.config.write_text(
        space.config.read_text() + f'[index]\nuri = "{uri}"\nname = "{name}"\nshard_rows = {shard_rows}\n'
    )
    return space


def test_a_tenants_search_finds_all_of_its_rows_and_no_others(milvus_server: MilvusServer, name: str) -> None:
    """10 tenants of 500 rows, upserted twice and in mixed order, which is what spoils partition keys on this server.

    Asked at once, when the server looks at an eighth of its rows, and again when it has built its graph.
    """
    index = open_index("milvus", milvus_server.uri, name)
    version = f"{name}__v1"
    index.create_version(version, space_id="space", dim=DIM)
    ids = [f"{n:05d}#0" for n in range(5_000)]
    table = rows(ids, team_id=[f"T{n % 10}" for n in range(5_000)])
    for _ in range(2):
        index.upsert(version, table)
    vectors = vectors_of(table)
    for indexed in (False, True):
        if indexed:
            index.wait_until_indexed(version)
        for team in range(10):
            mine = {i for n, i in enumerate(ids) if n % 10 == team}
            found = index.search(version, vectors[team], SearchRequest(f"T{team}", k=600))
            assert {hit.chunk_id for hit in found} == mine and {hit.team_id for hit in found} == {f"T{team}"}
            ours = vectors[[n for n in range(5_000) if n % 10 == team]].astype(np.float64)
            cosines = ours @ vectors[team] / np.linalg.norm(ours, axis=1) / np.linalg.norm(vectors[team])
            assert np.allclose([hit.score for hit in found], np.sort(cosines)[::-1], atol=1e-5)
    assert index.count(version) == 5_000
    index.close()


@pytest.mark.slow
def test_answers_under_a_filter_are_exact_whatever_share_of_the_rows_passes(
    milvus_server: MilvusServer, name: str
) -> None:
    """A graph alone loses rows where few of its neighbours pass, most of them at about a twelfth."""
    index, version, count = open_index("milvus", milvus_server.uri, name), f"{name}__v1", 20_000
    index.create_version(version, space_id="space", dim=DIM)
    channels = np.random.default_rng(1).integers(0, 1_000, count)
    table = rows([f"{n:05d}#0" for n in range(count)], team_id="T0", channel_id=[f"C{c}" for c in channels])
    index.upsert(version, table)
    index.wait_until_indexed(version)
    vectors = vectors_of(table)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = np.random.default_rng(2).normal(size=(10, DIM)).astype(np.float32)
    for passing in (2, 60, 85, 120, 250, 500, 1_000):
        request = SearchRequest("T0", [f"C{n}" for n in range(passing)], k=10)
        for query in queries:
            scores = np.where(channels < passing, vectors @ query, -np.inf)
            hits = index.search(version, query, request)
            assert [hit.chunk_id for hit in hits] == [f"{n:05d}#0" for n in np.argsort(-scores)[:10]]
            assert hits[0].channel_id == f"C{channels[int(hits[0].chunk_id[:5])]}" and hits[0].text
    index.close()


def test_the_proof_catches_a_partition_key_that_loses_rows(
    milvus_server: MilvusServer, name: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This server takes upserts into a collection with a partition key and finds a few of them."""
    monkeypatch.setattr("indexers.milvus.index._proofs", {})
    index = MilvusIndex(milvus_server.uri, name)
    assert index.capabilities().engine == "Milvus 2.3.5-lite"
    with caplog.at_level(logging.INFO, "indexers.milvus.index"):
        index.create_version(f"{name}__v1", space_id="space", dim=DIM)
    (line,) = [r.getMessage() for r in caplog.records if r.name == "indexers.milvus.index"]
    assert "laid out without a partition key" in line and re.search(r"finds \d+ of its \d+ rows|are \d+ counted", line)
    assert [c for c in index._milvus.list_collections() if c.startswith(name)] == [f"{name}__v1"], "no scratch is left"

    # And where a version has such a layout, as one made on another server would, nothing is written to it.
    index._create(f"{name}__v2", "space", DIM, Layout(partition_key=True))
    index._milvus.alter_collection_properties(f"{name}__v2", {PROVEN_KEY: "Milvus 2.3.4"})
    with pytest.raises(
        ReadBackError, match="Milvus 2.3.5-lite at .* does not give back .* partition key: .*nothing was written"
    ):
        index.upsert(f"{name}__v2", rows(["a#0"]))
    assert index.count(f"{name}__v2") == 0
    # One without is proven once more on this server, and only then written to.
    index._milvus.alter_collection_properties(f"{name}__v1", {PROVEN_KEY: "Milvus 2.3.4"})
    index.upsert(f"{name}__v1", rows(["a#0"]))
    assert index._describe(f"{name}__v1").proven == "Milvus 2.3.5-lite" and index.count(f"{name}__v1") == 1
    index.close()


def test_what_this_server_does_not_have_is_refused_before_it_is_tried(milvus_server: MilvusServer, name: str) -> None:
    for settings, key in ((Settings(storage="float16"), "index.storage"), (Settings(hybrid=True), "index.hybrid")):
        index = open_index("milvus", milvus_server.uri, name, settings=settings)
        with pytest.raises(ConfigError, match=f"{key}: Milvus 2.3.5-lite has no"):
            index.create_version(f"{name}__v1", space_id="space", dim=DIM)
        assert index.versions() == []
        index.close()
    index = open_index("milvus", milvus_server.uri, name)
    index.create_version(f"{name}__v1", space_id="space", dim=DIM)
    with pytest.raises(ConfigError, match=f"{name}__v1 on Milvus 2.3.5-lite has no index of words; it has no BM25"):
        index.match(f"{name}__v1", "words", SearchRequest("T0"))
    index.close()


def test_runs_verify_purge_and_reindex_on_a_server(
    milvus_server: MilvusServer, workspace: Workspace, name: str
) -> None:
    space = on_server(workspace, milvus_server.uri, name)
    first = space.run()
    assert first.code == 0 and space.verify().code == 0
    assert space.call("reindex").body["activated"] and space.verify().code == 0
    assert space.call("purge", "--team", "T01", "--channel", "C2").body["removed"]["index"] == 4
    assert space.run().code == 0 and space.verify().code == 0
    assert space.call("rollback").code == 0 and space.run().code == 0 and space.verify().code == 0
    # This server is not left to compact by itself.
    assert space.call("gc", "--dry-run").body["compacted"] == space.call("gc").body["compacted"] == [f"{name}__v1"]
    assert space.verify().code == 0


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[MilvusServer]:
    if not PYTHON.exists():
        pytest.skip(MISSING)
    server = MilvusServer(tmp_path / "server")
    yield server
    server.stop()


@pytest.mark.long
def test_a_server_that_dies_in_the_middle_of_a_publish(mortal: MilvusServer, workspace: Workspace, name: str) -> None:
    space = on_server(workspace, mortal.uri, name, shard_rows=200)
    for day in range(1, 11):
        texts = [message(day * 1_000 + n, f"Report {day}-{n} of the harbour") for n in range(300)]
        space.day("general", texts, day=f"2025-04-{day:02d}")
    command = [sys.executable, "-m", "jobs.cli", "run", "--config", str(space.config)]
    with (space.root / "err").open("w") as err:
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=err)
        ledger = space.root / "state" / "published" / "_delta_log"
        deadline = time.monotonic() + 180
        while run.poll() is None and len(list(ledger.glob("*.json"))) < 4 and time.monotonic() < deadline:
            time.sleep(0.02)
        assert run.poll() is None, "the run ended before the server could die"
        mortal.kill()
        assert run.wait(timeout=300) == 1
    said = (space.root / "err").read_text()
    assert "Milvus at" in said and "Traceback" not in said
    mortal.start()
    again = space.run()
    assert again.code == 0 and again.body["chunks"]["embedded"] == 0, "vectors are stored before they are published"
    checked = space.verify()
    assert checked.code == 0 and checked.body["index_rows"] == again.body["chunks"]["total"] == 3_000 + 8


@pytest.mark.long
def test_a_server_that_dies_after_a_compaction_forgets_no_delete(mortal: MilvusServer, name: str) -> None:
    """Deletes that reach several segments while they are compacted into one, as on every night of a large index.

    The version is one of an earlier embedmill: this server was left to compact it by itself.
    """
    index = MilvusIndex(mortal.uri, name)
    version = f"{name}__v1"
    index.create_version(version, space_id="space", dim=DIM)
    segments = [[f"{s}{n:03d}#0" for n in range(200)] for s in "abcd"]
    index._milvus.alter_collection_properties(version, {COMPACTION_KEY: "false"})
    for ids in segments:
        index.upsert(version, rows(ids))
        index.wait_until_indexed(version)
    index._milvus.alter_collection_properties(version, {COMPACTION_KEY: "true"})
    added = [f"e{n:03d}#0" for n in range(20)]
    index.upsert(version, rows(added))
    index.wait_until_indexed(version)  # a server that may would compact all of them now
    gone = [i for ids in segments for i in ids[:30]]
    index.delete(version, gone)
    index.wait_until_indexed(version)
    time.sleep(15)  # longer than it takes this server to see that a compaction has ended
    kept = sorted({i for ids in [*segments, added] for i in ids} - set(gone))
    assert scanned(index, version)["chunk_id"].to_pylist() == kept
    index.close()
    mortal.kill()
    mortal.start()
    index = MilvusIndex(mortal.uri, name)
    assert scanned(index, version)["chunk_id"].to_pylist() == kept
    # Compaction is embedmill's to ask for, and it does so where nothing is written meanwhile.
    index.compact(version)
    assert scanned(index, version)["chunk_id"].to_pylist() == kept and not index._describe(version).compacted
    index.close()


@pytest.mark.long
def test_the_owner_of_a_version_outlives_a_server_that_dies(mortal: MilvusServer, name: str) -> None:
    """2.3.5 keeps the change of properties before the last over its next start."""
    index = MilvusIndex(mortal.uri, name)
    made, adopted = f"{name}__v1", f"{name}__v2"
    index.create_version(made, space_id="space", dim=DIM, owner="state-a")
    index.create_version(adopted, space_id="space", dim=DIM)
    index.set_owner(adopted, "state-a")
    index.set_owner(adopted, "state-b")
    index.upsert(adopted, rows(["a#0"]))
    index.close()
    mortal.kill()
    mortal.start()
    index = MilvusIndex(mortal.uri, name)
    assert (index.owner_of(made), index.owner_of(adopted)) == ("state-a", "state-b")
    assert (index.space_of(adopted), index._describe(adopted).compacted) == ("space", False)
    index.close()


def test_searches_during_a_reindex_a_cutover_and_a_rollback(
    milvus_server: MilvusServer, workspace: Workspace, name: str
) -> None:
    """20 threads search through the alias all the time: none fails, none sees two versions in one answer.

    All texts are edited before the reindex, which is to another space: each answer's texts tell its version.
    Those of the earlier version are gone from it when it is shown again.
    """
    space = on_server(workspace, milvus_server.uri, name, shard_rows=50)

    def write(word: str) -> None:
        texts = [message(n, f"{word} {n} of the harbour") for n in range(400)]
        space.day("harbour", texts, day="2025-04-01")

    space.channels({"C1": "general", "C2": "random", "C9": "harbour"})
    write("Report")
    assert space.run().code == 0
    write("Edited")
    set_model(space, "max_tokens = 64")
    stop, faults, answers = threading.Event(), [], []

    def search(seed: int) -> None:
        index = open_index("milvus", milvus_server.uri, name)
        vectors = np.random.default_rng(seed).normal(size=(50, 384)).astype(np.float32)
        while not stop.is_set():
            for vector in vectors:
                try:
                    hits = index.search(None, vector, SearchRequest("T01", channels=["C9"], k=5))
                    answers.append((len(hits), *sorted({hit.text.split()[0] for hit in hits})))
                except Exception as error:
                    faults.append(repr(error))
                if stop.wait(0.2):  # all in one process with the reindex: leave it some of the interpreter
                    break
        index.close()

    threads = [threading.Thread(target=search, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    try:
        built = space.call("reindex")
        assert built.code == 0 and built.body["activated"]
        time.sleep(1)
        before = len(answers)
        back = space.call("rollback")
        assert back.code == 0 and back.body["index"] == f"{name}__v1" and not back.body["configured"]
        time.sleep(1)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not faults and len(answers) > 100
    assert set(answers[:before]) == {(5, "Report"), (5, "Edited")}, "an answer of one that was not whole"
    # Every text was edited since: a rollback takes the earlier ones out, and this server shows a delete when it may.
    assert all(len(answer) <= 2 for answer in answers), "an answer of two versions"
    assert answers[-1] != (5, "Edited")
