"""What changed in a table after a number: rows and removals, and whether any of those can no longer be told."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.state.store import State
from jobs.state.tables import bucket_of
from tests.support.layered import CUT, TEAMS, append, merge


def test_what_changed_since_a_number_is_told_and_nothing_else_is_opened(tmp_path: Path) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    assert state.newest_seq("chunks") == 0 and state.changed_since("chunks", 0).read().num_rows == 0
    append(state, {(team, f"{n}"): "1" for team in TEAMS for n in range(3)})
    first = state.newest_seq("chunks")
    unchanged = state.changed_since("chunks", first)
    assert unchanged.complete and unchanged.at_most == 0 and unchanged.read().num_rows == 0
    merge(state, {("T1", "0"): "2", ("T1", "new"): "2"}, [("T2", "1")])
    append(state, {("T3", "later"): "3"})
    for path in state.files("chunks", {"bucket": bucket_of("T4")}):
        Path(path).unlink()
    changed = state.changed_since("chunks", first)
    told = changed.read(["team_id", "chunk_id", "text"]).to_pylist()
    assert changed.complete and changed.at_most == 4
    assert sorted((r["team_id"], r["chunk_id"], r["text"], r["_delete"]) for r in told) == [
        ("T1", "0", "2", False),
        ("T1", "new", "2", False),
        ("T2", "1", None, True),
        ("T3", "later", "3", False),
    ]
    assert state.changed_since("chunks", state.newest_seq("chunks")).read().num_rows == 0


def test_a_fold_changes_no_number_and_says_which_removals_it_told_no_more(tmp_path: Path) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    append(state, {("T1", "a"): "1", ("T1", "b"): "1"})
    first = state.newest_seq("chunks")
    merge(state, {("T1", "a"): "2"})
    edited = state.newest_seq("chunks")
    state.fold("chunks")
    changed = state.changed_since("chunks", first)
    assert changed.complete and changed.read(["chunk_id"])["chunk_id"].to_pylist() == ["a"], "no removal was lost"
    merge(state, {}, [("T1", "b")])
    removed = state.newest_seq("chunks")
    assert state.changed_since("chunks", edited).read(["chunk_id"]).to_pylist() == [{"chunk_id": "b", "_delete": True}]
    state.fold("chunks")
    assert state.newest_seq("chunks") == removed
    assert not state.changed_since("chunks", edited).complete, "b went, and nothing tells so now"
    assert state.changed_since("chunks", removed).complete and state.changed_since("chunks", 0).complete


@pytest.mark.parametrize("drop", ["drop", "drop_rows"])
def test_who_knows_rows_that_were_dropped_is_told_to_compare_all(tmp_path: Path, drop: str) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    append(state, {("T1", "a"): "1", ("T1", "b"): "1"})
    known = state.newest_seq("chunks") - 1
    if drop == "drop":
        state.drop("chunks", "chunk_id = 'b'")
    else:
        state.drop_rows("chunks", "T1", "chunk_id", ["b"])
    assert not state.changed_since("chunks", known).complete


def test_numbers_go_on_in_a_table_that_is_made_anew(tmp_path: Path) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    append(state, {("T1", "a"): "1"})
    before = state.newest_seq("chunks")
    state.make_anew("chunks")
    assert not state.changed_since("chunks", before).complete
    append(state, {("T1", "a"): "1"})
    assert state.newest_seq("chunks") > before and state.changed_since("chunks", before).at_most == 1
