"""A purge takes all of its scope, whatever date it has, and what it took stays away until something newer comes."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pyarrow as pa
import pytest

from embedding.errors import ConfigError
from embedding.ids import document_ids
from jobs.bodies.purge import PurgeBody
from jobs.commands.purge import purge
from jobs.commands.run import run
from jobs.config import load_config
from jobs.registry import open_registry
from jobs.registry.manifest import Seen, manifest_of
from jobs.scope import Scope
from jobs.state.store import State
from tests.support.in_process import (
    GROWING,
    Death,
    Killed,
    WatchedIndex,
    copied_with_index,
    open_pipeline,
    tables_loaded,
    without_ray,
)
from tests.support.registries import card
from tests.support.workspace import TEAM, TEXTS, Workspace, message, writing

YEAR = 365 * 86_400
FILE = f"{TEAM}/f/notes.txt"


@pytest.fixture(scope="module")
def _once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with a file and an edit that are dated a year ahead, and a file from before all time."""
    space = Workspace(tmp_path_factory.mktemp("ahead") / "ws")
    redate(space, time.time() + YEAR)
    os.utime(space.files / "handbook.md", (0, -86_400))
    edited = {"user": "U1", "ts": f"{int(time.time()) + 2 * YEAR}.000000"}
    space.day("random", [message(4, TEXTS[4]), message(5, "edited, by a clock that is wrong", edited=edited)])
    with without_ray():
        go(space)
    return space


@pytest.fixture
def ahead(tmp_path: Path, _once: Workspace) -> Iterator[Workspace]:
    space = copied_with_index(_once, tmp_path / "ws")
    with without_ray():
        yield space


def redate(space: Workspace, at: float, text: str = "") -> None:
    if text:
        (space.files / "notes.txt").write_text(text)
    os.utime(space.files / "notes.txt", (at, at))


def go(space: Workspace) -> Any:
    return run(open_pipeline(space.config), Scope(), allow_mass_delete=True)


def take(space: Workspace, death: Death | None = None, **what: Any) -> PurgeBody:
    given = {"team": TEAM, "channel": "", "ids": [], "before": None} | what
    return purge(open_pipeline(space.config, death), **given)


def held(space: Workspace) -> set[str]:
    """Documents in the index, in the texts and in the ledger, which agree."""
    index = open_pipeline(space.config).index()
    assert isinstance(index, WatchedIndex)
    state = State(space.root / "state")
    rows = [set(index._store.versions[v].rows) for v in index.versions()]
    rows += [set(state.read(name, ["chunk_id"])["chunk_id"].to_pylist()) for name in ("chunks", "published")]
    assert all(found == rows[0] for found in rows)
    return {chunk.rpartition("#")[0] for chunk in rows[0]}


def test_a_team_is_purged_whole_whatever_its_documents_are_dated(ahead: Workspace) -> None:
    assert len(held(ahead)) == 8
    receipt = take(ahead)
    assert receipt.documents.count == receipt.matched == 8 and held(ahead) == set()
    go(ahead)
    assert held(ahead) == set(), "the sources still show them, and they stay away"
    redate(ahead, time.time() + YEAR / 2)
    go(ahead)
    assert held(ahead) == set(), "newer than the purge, and older than what was purged"
    redate(ahead, time.time() + 2 * YEAR, "written anew")
    ahead.day("general", [message(99, "and a message", edited={"user": "U1", "ts": f"{int(time.time()) + 60}.000000"})])
    go(ahead)
    assert held(ahead) == {FILE, f"{TEAM}/m/C1/1740960099.000100"}, "a later version of each is a new document"


@pytest.mark.parametrize("what", [{"ids": [FILE]}, {"ids": [f"{FILE}#0"]}, {"ids": [f"{FILE}#7", FILE]}])
def test_an_id_is_purged_whatever_its_date(ahead: Workspace, what: dict[str, Any]) -> None:
    receipt = take(ahead, **what)
    assert (receipt.documents.count, receipt.ids, receipt.matched, receipt.unmatched) == (1, 1, 1, ())
    go(ahead)
    assert len(held(ahead)) == 7 and FILE not in held(ahead)


def test_what_is_from_before_a_date_goes_though_its_edit_is_dated_ahead(ahead: Workspace) -> None:
    receipt = take(ahead, before=int(time.time() * 1e6))
    go(ahead)
    assert held(ahead) == {FILE} and receipt.documents.count == 7


def test_a_purge_that_died_is_carried_out_and_spares_what_is_newer_still(ahead: Workspace) -> None:
    with pytest.raises(Killed):
        take(ahead, Death(ahead_of="index"))
    redate(ahead, time.time() + 3 * YEAR, "written after the purge")
    go(ahead)
    assert held(ahead) == {FILE}
    writing(State(ahead.root / "state")).drop(
        "runs", "true"
    )  # as a rebuilt table: no row says that the purge has ended
    go(ahead)
    assert held(ahead) == {FILE}, "carried out once more, it takes nothing that is newer"


def test_rows_that_only_the_index_has_go_too(ahead: Workspace) -> None:
    """As a run leaves them that was killed between two writes, and whose document has left its source since."""
    index = open_pipeline(ahead.config).index()
    assert isinstance(index, WatchedIndex)
    rows = index._store.versions["messages__v1"].rows
    left = f"{TEAM}/f/left.txt#0"
    rows[left] = rows[f"{FILE}#0"] | {"chunk_id": left, "doc_id": f"{TEAM}/f/left.txt", "version": 1 << 60}
    index._store.versions["messages__v1"].vectors[left] = index._store.versions["messages__v1"].vectors[f"{FILE}#0"]
    assert take(ahead, ids=[f"{TEAM}/f/left.txt"]).matched == 1
    assert left not in rows and FILE in held(ahead)


def test_many_dates_ahead_are_kept_away_each_by_itself(ahead: Workspace) -> None:
    for n in range(60):
        file = ahead.files / f"copy {n}.txt"
        file.write_text(f"copy {n} of the notes")
        os.utime(file, (time.time() + YEAR + n, time.time() + YEAR + n))
    go(ahead)
    assert take(ahead).documents.count == 68
    file = ahead.files / "copy 5.txt"
    os.utime(file, (time.time() + YEAR + 7.5, time.time() + YEAR + 7.5))
    go(ahead)
    assert held(ahead) == {f"{TEAM}/f/copy%205.txt"}, "its own date counts, not the last of all"


def test_quarantined_records_of_a_scope_go_and_a_torn_partition_stays_reported(ahead: Workspace) -> None:
    state = writing(open_pipeline(ahead.config).state)
    base = {"source_id": "s", "partition": "p", "step": "extract", "team_id": TEAM, "reason": "r", "_delete": False}
    state.change(
        "quarantine",
        [
            base | {"key": "undated", "created_at": None},
            base | {"key": "old", "created_at": 1},
            base | {"key": "", "created_at": None},
            base | {"key": "new", "created_at": 1 << 60},
        ],
    )
    assert take(ahead, before=int(time.time() * 1e6)).removed.quarantine == 2
    assert set(state.read("quarantine", ["key"])["key"].to_pylist()) == {"", "new"}


def test_what_is_known_of_deletions_in_the_scope_goes_too(ahead: Workspace) -> None:
    state = writing(open_pipeline(ahead.config).state)
    base = {
        "source_id": "s",
        "partition": "p",
        "team_id": TEAM,
        "channel_id": "C1",
        "kind": "message",
        "created_at": 1,
        "deleted": True,
        "_delete": False,
    }
    versions = {"before": 1, "ahead": 1 << 60}
    rows = [base | {"doc_id": f"{TEAM}/m/C1/{name}", "version": version} for name, version in versions.items()]
    state.change("removals", rows)
    assert take(ahead, channel="C1").removed.removals == 1
    assert state.read("removals", ["doc_id"])["doc_id"].to_pylist() == [f"{TEAM}/m/C1/ahead"]


def test_an_id_that_nothing_is_known_of_is_kept_away_and_said_so(ahead: Workspace) -> None:
    new = f"{TEAM}/f/still to come.txt".replace(" ", "%20")
    receipt = take(ahead, ids=[FILE, new])
    assert (receipt.ids, receipt.matched, receipt.unmatched) == (2, 1, (new,))
    (ahead.files / "still to come.txt").write_text("written before the purge, and read after it")
    os.utime(ahead.files / "still to come.txt", (time.time() - 60, time.time() - 60))
    go(ahead)
    assert new not in held(ahead)


def test_ids_of_another_team_and_an_unknown_team_are_refused(ahead: Workspace) -> None:
    before = held(ahead)
    with pytest.raises(ConfigError, match="1 of 2 are no ids of team T01, for example 'T02/f/notes.txt'"):
        take(ahead, ids=["T02/f/notes.txt", FILE])
    with pytest.raises(ConfigError, match="nothing is known of team 'T0l'; known are T01"):
        take(ahead, team="T0l")
    assert held(ahead) == before and State(ahead.root / "state").count("purges") == 0


def test_the_command_warns_of_what_it_did_not_find(ran: Workspace) -> None:
    done = ran.call("purge", "--team", TEAM, "--ids", f"{FILE}#0,{TEAM}/f/typo.txt")
    assert done.code == 0 and done.body["matched"] == 1 and done.body["removed"]["index"] == 1
    assert "nothing is known of 1 of the ids, for example T01/f/typo.txt" in done.err
    nothing = ran.call("purge", "--team", TEAM, "--channel", "C404")
    assert nothing.code == 0 and nothing.body["matched"] == 0 and "nothing in this scope" in nothing.err
    assert ran.call("purge", "--team", "T0l").code == 2


def test_a_purge_loads_no_table_that_grows_with_the_chunks(ahead: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tables_loaded(monkeypatch)
    take(ahead, channel="C1")
    assert whole and not GROWING & set(whole)


def test_models_are_marked_before_anything_goes_that_says_what_they_saw(
    ran: Workspace, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A document may have another channel than when it was trained on: then its id alone tells, and that is gone soon."""
    registry = open_registry(load_config(ran.config))
    (tmp_path / "model").mkdir()
    [document, *_] = document_ids(pa.array(open_pipeline(ran.config).state.read("chunks", ["chunk_id"])["chunk_id"]))
    seen = manifest_of(open_pipeline(ran.config).state.hash_key, [Seen(document.as_py(), TEAM, "C9", 0)])
    registry.add("chat", tmp_path / "model", seen, lambda number: card(number))
    with monkeypatch.context() as patch:
        patch.setattr(State, "drop_rows", Mock(side_effect=Killed))
        with pytest.raises(Killed):
            purge(open_pipeline(ran.config), team=TEAM, channel="", ids=[document.as_py()], before=None)
    taint = registry.taint("chat", 1)
    assert taint is not None and taint.documents == 1
    assert ran.run().code == 0, "it carries the purge out"


def test_a_registry_that_is_away_is_said_before_anything_goes(ran: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    text = ran.config.read_text()
    ran.config.write_text(f'{text}[registry]\nuri = "http://127.0.0.1:9"\n')
    before = open_pipeline(ran.config).state.read("chunks").num_rows
    told = ran.call("purge", "--team", TEAM)
    assert told.code == 1 and "registry.uri: http://127.0.0.1:9: could not list the models" in told.err, told
    state = open_pipeline(ran.config).state
    assert state.read("chunks").num_rows == before and not state.read("purges").num_rows
    assert ran.run().code == 0 == ran.call("status").code, "nothing else asks for it"
