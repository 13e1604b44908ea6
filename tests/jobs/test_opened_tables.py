"""A table is opened once, and what another handle did since is seen all the same."""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import pytest
from deltalake import DeltaTable

from embedding.errors import DamagedStateError, LeaseHeldError
from jobs.state.integrity import record_versions
from jobs.state.old_files import erase_dropped
from jobs.state.storage import StatePath, remove_all
from jobs.state.store import State


@pytest.fixture(params=["folder", "moto"])
def root(request: pytest.FixtureRequest) -> StatePath:
    if request.param == "folder":
        place: StatePath = request.getfixturevalue("tmp_path") / "state"
    else:
        place = request.getfixturevalue("moto").path(f"states/{uuid.uuid4().hex}")
    return place


def rule(run_id: str) -> Mapping[str, object]:
    return {"team_id": "T01", "channel_id": "", "ids": [], "purged_at": 1, "run_id": run_id, "_delete": False}


def runs(state: State) -> list[str]:
    return sorted(state.read("purges", ["run_id"])["run_id"].to_pylist())


def test_a_reader_sees_each_commit_and_opens_the_table_once(root: StatePath, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader = State(root, fence=1), State(root)
    assert runs(reader) == []
    for run_id in "ab":
        writer.change("purges", [rule(run_id)])
        assert run_id in runs(reader)
    opened, real = [], DeltaTable.__init__

    def counted(table: DeltaTable, *given: object, **named: object) -> None:
        opened.append(table)
        real(table, *given, **named)  # type: ignore[arg-type]  # handed on as they are

    monkeypatch.setattr(DeltaTable, "__init__", counted)
    for run_id in "cd":
        writer.change("purges", [rule(run_id)])
    assert runs(reader) == runs(writer) == runs(reader.every_cut()) == ["a", "b", "c", "d"]
    assert opened == []


def test_many_commits_are_seen_by_who_made_them_and_by_who_was_away(root: StatePath) -> None:
    writer, reader = State(root, fence=1), State(root)
    writer.change("purges", [rule("first")])
    assert runs(reader) == ["first"]
    for _ in range(60):  # more than a listing tells at once, if it is not asked to
        writer._add("purges", [])
    writer.change("purges", [rule("last")])
    assert runs(reader) == runs(writer) == ["first", "last"]


def test_a_table_that_was_made_anew_is_not_taken_for_the_former_one(root: StatePath) -> None:
    first, reader = State(root, fence=1), State(root)
    for run_id in "abc":
        first.change("purges", [rule(run_id)])
    assert runs(reader) == ["a", "b", "c"]
    second = State(root, fence=2)
    second.make_anew("purges")
    assert runs(reader) == [], "its log is shorter"
    for run_id in "defghi":
        second.change("purges", [rule(run_id)])
    assert runs(reader) == list("defghi"), "its log is longer"


def test_a_late_writer_with_an_open_table_commits_to_none_that_was_made_anew(root: StatePath) -> None:
    late, second = State(root, fence=1), State(root, fence=2)
    for run_id in "abc":
        late.change("purges", [rule(run_id)])
    second.make_anew("purges")  # ends at a version below the one that the late writer has open
    with pytest.raises(LeaseHeldError):
        late.change("purges", [rule("late")])
    assert runs(State(root)) == []


def test_a_log_that_lost_what_a_checkpoint_stands_for_is_read_on(root: StatePath) -> None:
    writer, reader = State(root, fence=1), State(root)
    writer.change("purges", [rule("a")])
    assert runs(reader) == ["a"]
    erase_dropped(writer, "purges")
    writer.change("purges", [rule("b")])
    assert runs(reader) == runs(writer) == ["a", "b"]


def test_a_table_that_is_lost_while_it_is_open_is_missed(root: StatePath) -> None:
    writer, reader = State(root, cut="c", fence=1), State(root, cut="c")
    writer.change("quarantine", [{"source_id": "s", "partition": "p", "key": "k", "step": "embed", "_delete": False}])
    record_versions(root)
    assert reader.count("quarantine") == 1
    remove_all(root / "quarantine")
    with pytest.raises(DamagedStateError, match="quarantine"):
        reader.count("quarantine")
