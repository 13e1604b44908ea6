"""What a run leaves can be read by its user alone, for any umask and any maker of the folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from indexers.milvus.index import MilvusIndex
from jobs.state.store import State
from tests.support.workspace import Workspace


@pytest.fixture(params=[0o000, 0o022])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def readable_by_others(root: Path) -> list[Path]:
    """Files that a way leads to on which every folder lets group or others through, and that they may read."""
    found = []
    for folder, names, files in os.walk(root):
        if not stat.S_IMODE(os.stat(folder).st_mode) & 0o011:
            names.clear()  # closed to others
            continue
        found += [Path(folder, f) for f in files if stat.S_IMODE(os.stat(Path(folder, f)).st_mode) & 0o044]
    return found


def test_a_run_leaves_nothing_that_others_may_read(workspace: Workspace, umask: int) -> None:
    with workspace.config.open("a") as config:
        config.write('[index]\nuri = "elsewhere/milvus.db"\n')
    assert workspace.run().code == 0
    for root in (workspace.root / "state", workspace.root / "elsewhere"):
        assert sum(1 for p in root.rglob("*") if p.is_file()) > 2
        assert readable_by_others(root) == []


def test_a_folder_that_was_open_is_closed(tmp_path: Path, umask: int) -> None:
    for folder in (tmp_path / "state", tmp_path / "milvus.db"):
        folder.mkdir()
        folder.chmod(0o755)
    assert State(tmp_path / "state").private
    MilvusIndex(str(tmp_path / "milvus.db"), "messages").close()
    assert [stat.S_IMODE((tmp_path / n).stat().st_mode) for n in ("state", "milvus.db")] == [0o700, 0o700]
