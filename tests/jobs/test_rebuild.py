"""A rebuild reads back from the index what the tables lost, a few teams at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.commands.run import run
from jobs.maintenance.rebuild import _keep_good_files, rebuild
from jobs.scope import Scope
from jobs.state.integrity import Damage, find_damage
from jobs.state.lease import Lease
from jobs.state.parts import write_part
from jobs.state.store import State
from jobs.state.tables import TABLES, bucket_of
from tests.support.in_process import GROWING, open_pipeline, tables_loaded, without_ray
from tests.support.workspace import Workspace


def test_a_rebuild_loads_no_table_that_grows_with_the_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = Workspace(tmp_path / "ws")
    root = space.root / "state"
    with without_ray():
        run(open_pipeline(space.config), Scope())
        before = {name: sorted(map(str, rows(root, name))) for name in ("published", "vectors")}
        for name in before:
            shutil.rmtree(root / name)
        whole = tables_loaded(monkeypatch)
        assert rebuild(open_pipeline(space.config), wait=0.0) == ["published", "vectors"]
    assert not GROWING & set(whole)
    assert {name: sorted(map(str, rows(root, name))) for name in before} == before
    assert not list((root / "work").glob("*/scan.parquet"))


def rows(root: Path, name: str) -> list[dict[str, object]]:
    left_out = {"run_id", "source_id", "text_hash"}  # which the index does not know
    return [{k: v for k, v in row.items() if k not in left_out} for row in State(root).read(name).to_pylist()]


def damaged(state: State, name: str, damages: list[Damage]) -> None:
    """Leave of a table what a rebuild leaves."""
    with Lease(state.root, run_id="r", seconds=60) as lease:
        _keep_good_files(state, name, lease, damages)


def test_texts_that_lost_a_change_are_read_again_and_no_older_ones_come_back(tmp_path: Path) -> None:
    """A row that was removed is in a good file still, and what removed it is lost."""
    state = State(tmp_path, cut="c1", fence=1)
    rows: list[dict[str, object]] = [{"team_id": "T1", "chunk_id": chunk, "text": "x"} for chunk in ("a", "b")]
    state.change("chunks", [row | {"_delete": False} for row in rows])
    state.fold("chunks")
    [base] = state.files("chunks")
    state.change("chunks", [rows[0] | {"_delete": True}])
    Path(next(file for file in state.files("chunks") if file != base)).unlink()
    damaged(state, "chunks", find_damage(tmp_path))
    assert state.count("chunks") == 0

    state.change("chunks", [row | {"_delete": False} for row in rows])
    state.fold("chunks")
    state.change("chunks", [{"team_id": "T2", "chunk_id": "c", "text": "x", "_delete": False}])
    Path(state.files("chunks", {"bucket": bucket_of("T1")})[0]).unlink()
    damaged(state, "chunks", find_damage(tmp_path))
    assert state.read("chunks", ["chunk_id"])["chunk_id"].to_pylist() == ["c"], (
        "good files stay where rows alone are lost"
    )


def test_vectors_of_a_team_that_purged_are_not_taken_from_files_of_others(tmp_path: Path) -> None:
    state = State(tmp_path, fence=1)
    first, second = [f"T{n}" for n in range(100) if bucket_of(f"T{n}") == "03"][:2]
    for teams in ((first, second), (second,)):
        listed = [
            {"space_id": "s", "team_id": t, "content_hash": f"{len(teams)}", "vector": b"v", "run_id": "r"}
            for t in teams
        ]
        table = pa.Table.from_pylist(listed, schema=TABLES["vectors"].schema)
        state.append("vectors", write_part(tmp_path, "vectors", table))
    rule: dict[str, object] = {"team_id": first, "channel_id": "", "purged_at": 1, "run_id": "p", "_delete": False}
    state.change("purges", [rule])
    shutil.rmtree(tmp_path / "vectors" / "_delta_log")
    damaged(state, "vectors", [Damage("vectors", "vectors/_delta_log", "is missing", log=True)])
    left = state.read("vectors", ["team_id", "content_hash"]).to_pylist()
    assert sorted(tuple(row.values()) for row in left) == [(second, "1"), (second, "2")]
    for file in (tmp_path / "vectors").rglob("*.parquet"):
        if "_delta_log" not in file.parts:
            assert first.encode() not in file.read_bytes()
