"""Which partitions are folded at the end of a run, and that gc leaves none; small files become larger ones."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.maintenance import compact
from jobs.maintenance.compact import compact_all, compact_due, sizes
from jobs.state import folding, table_files
from jobs.state.folding import SMALL, due
from jobs.state.parts import write_part
from jobs.state.store import State
from jobs.state.tables import TABLES, bucket_of
from jobs.state.writable_tables import CHECKPOINTS, COMMITS
from tests.support.layered import CUT, TEAMS, append, merge


def files(count: int, size: int, rows: int) -> list[table_files.TableFile]:
    return [table_files.TableFile(f"{n}", size, rows, {}) for n in range(count)]


@pytest.mark.parametrize(
    ("base", "changes", "expected"),
    [
        (files(1, 2 * SMALL, 1_000_000), [], False),
        (files(9, 1_000, 10), [], True),
        (files(1, 1_000, 10), files(1, 1_000, 1), True),
        (files(1, 2 * SMALL, 1_000_000), files(1, 1_000, 10), False),
        (files(1, 2 * SMALL, 1_000_000), files(9, 1_000, 10), True),
        (files(1, 2 * SMALL, 1_000_000), files(1, 9_000_000, 200_000), True),
    ],
)
def test_a_partition_is_folded_where_that_is_cheap_or_reading_it_is_dear(
    base: list[table_files.TableFile], changes: list[table_files.TableFile], expected: bool
) -> None:
    assert due(table_files.Group({}, base, changes)) is expected


def test_stored_vectors_are_joined_into_larger_files(tmp_path: Path) -> None:
    state = State(tmp_path, fence=1)

    def store(teams: Collection[str], hashes: Collection[str]) -> None:
        rows = [
            {"space_id": "s", "team_id": team, "content_hash": one, "vector": one.encode() * 4, "run_id": "r"}
            for team in teams
            for one in hashes
        ]
        table = pa.Table.from_pylist(rows, schema=TABLES["vectors"].schema)
        state.append("vectors", write_part(tmp_path, "vectors", table))

    for run in range(3):
        store(TEAMS, [f"{run}-{n}" for n in range(4)])
    before = state.read("vectors").sort_by([("team_id", "ascending"), ("content_hash", "ascending")])
    buckets = {bucket_of(team) for team in TEAMS}
    assert len(state.files("vectors")) == 3 * len(buckets)
    state.fold("vectors", state.groups("vectors"), join=2)
    assert len(state.files("vectors")) == len(buckets)
    after = state.read("vectors").sort_by([("team_id", "ascending"), ("content_hash", "ascending")])
    assert after.equals(before)
    assert state.drop_rows("vectors", "T1", "content_hash", ["0-1", "1-1", "none"]) == 2
    assert state.count("vectors") == len(before) - 2


def test_a_run_s_end_folds_what_is_due_and_gc_the_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    append(state, {(team, f"{n}"): "1" for team in TEAMS for n in range(20)})
    merge(state, {("T1", "3"): "2"})
    monkeypatch.setattr(folding, "_CHEAP", 0)
    compact_due(state, 0)
    assert sum(group.rows(changes=True) for group in state.groups("chunks")) == 1, "a twentieth of its rows"
    merge(state, {("T1", f"{n}"): "3" for n in range(3)}, [("T2", "1"), ("T2", "2"), ("T2", "3")])
    before = sizes(state)["chunks"]
    compact_due(state, 0)
    assert not any(group.changes for group in state.groups("chunks"))
    assert sizes(state)["chunks"][0] < before[0] and state.count("chunks") == 97
    merge(state, {("T3", "1"): "4"})
    for run in range(3):
        append(state, {("T4", f"{run} later"): "1"})
    compact_due(state, 0)
    assert len(state.files("chunks", {"bucket": bucket_of("T4")})) == 4, "few small files may stay"
    compact_all(state)
    assert sizes(state)["chunks"][0] == len({bucket_of(team) for team in TEAMS})
    assert state.count("chunks") == 100 and sizes(state)["runs"] == (0, 0)


@pytest.mark.parametrize(("changed", "folded"), [(0, 1), (2, 2), (1_000_000, 3)])
def test_a_run_folds_by_what_it_changed_itself(
    changed: int, folded: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that changed little does not pay at once for what a large one has left."""
    state = State(tmp_path, cut=CUT, fence=1)
    append(state, {(team, "a"): "1" for team in TEAMS})
    merge(state, {(team, "a"): "2" for team in TEAMS})
    groups = [group for group in state.groups("chunks") if group.changes]
    largest = max(sum(file.size for file in (*group.base, *group.changes)) for group in groups)
    monkeypatch.setattr(compact, "_LEAST", largest)
    monkeypatch.setattr(compact, "_OF_A_ROW", largest)
    monkeypatch.setattr(compact, "_MOST", 3 * largest)
    compact_due(state, changed)
    assert len(groups) - sum(bool(group.changes) for group in state.groups("chunks")) == folded < len(groups)


def test_one_run_folds_no_more_than_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    append(state, {(team, "a"): "1" for team in TEAMS})
    merge(state, {(team, "a"): "2" for team in TEAMS})
    monkeypatch.setattr(compact, "_MOST", 1)
    monkeypatch.setattr(compact, "_LEAST", 1)
    left = []
    for _ in TEAMS:
        compact_due(state, 0)
        left.append(sum(bool(group.changes) for group in state.groups("chunks")))
    assert left == [len(TEAMS) - 1 - n for n in range(len(TEAMS))], "at least one a run"


def test_small_tables_have_few_files_however_many_runs_there_were(tmp_path: Path) -> None:
    state = State(tmp_path, cut=CUT, fence=1)
    expected = []
    for number in range(12):
        row = {"run_id": f"{number:03}", "command": "run", "status": "ok", "started_at": number, "report": "{}"}
        expected.append({**row, "finished_at": None})
        state.change("runs", [{**row, "status": "begun", "_delete": False}])
        state.change(
            "quarantine", [{"source_id": "s", "partition": f"{number}", "key": "k", "step": "embed", "_delete": False}]
        )
        compact_due(state, 1)
        state.change("runs", [{**row, "_delete": False}])
        assert len(state.files("runs")) <= 10 and len(state.files("quarantine")) <= 10
    rows = state.read("runs").sort_by("run_id").to_pylist()
    assert rows == [{name: row[name] for name in TABLES["runs"].schema.names} for row in expected]
    assert sorted(int(one) for (one,) in state.distinct("quarantine", ["partition"])) == list(range(12))


def test_a_log_is_read_from_a_checkpoint_that_is_ten_commits_old_at_most(tmp_path: Path) -> None:
    state = State(tmp_path, fence=1)
    for number in range(13):
        state.change("runs", [{"run_id": f"{number:03}", "_delete": False}])
    log = tmp_path / "runs" / "_delta_log"
    newest = max(int(file.name[:20]) for file in log.glob("*.checkpoint.parquet"))
    assert max(int(file.stem) for file in log.glob("0*.json")) - newest < 10


def test_gc_gives_the_table_of_a_former_release_such_checkpoints(tmp_path: Path) -> None:
    state = State(tmp_path, fence=1)
    state.change("runs", [{"run_id": "000", "_delete": False}])
    state.set_properties("runs", {CHECKPOINTS: "100"})
    for _ in range(2):
        state.shorten_log("runs")
    assert state.table("runs").metadata().configuration == {CHECKPOINTS: COMMITS}
    assert state.table("runs").version() == 3, "it is told once"
