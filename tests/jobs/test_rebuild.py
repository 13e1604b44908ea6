"""A rebuild reads back from the index what the tables lost, a few teams at a time."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jobs.commands.run import run
from jobs.maintenance.rebuild import rebuild
from jobs.scope import Scope
from jobs.state.store import State
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
