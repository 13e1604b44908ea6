"""Frames are gathered by what the session was started for, and by no property of Spark that a user may set.

A frame of a layered table holds what is read of it elsewhere.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest

from embedding.records import CHUNK
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.state import spark_frames
from jobs.state.parts import write_part
from jobs.state.spark_frames import read_table
from jobs.state.store import State
from jobs.state.tables import TABLES
from jobs.telemetry.progress import Progress
from tests.support.paths import ROOT
from tests.support.workspace import Workspace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

PARTITIONS = """
import sys
from pathlib import Path
from jobs.config import load_config
from jobs.engines.spark import start_spark
from jobs.state.spark_frames import gathered
config, folder, small = load_config(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3] == "small"
spark = start_spark(config, folder / "scratch", folder / "log", small=small, reads=False)
print("FOUND", gathered(spark.range(0, 100, 1, 4)).rdd.getNumPartitions(), spark.conf.get("spark.sql.shuffle.partitions"))
"""


def found(workspace: Workspace, tmp_path: Path, work: str, shuffle_partitions: str) -> str:
    properties = f'properties = {{"spark.sql.shuffle.partitions" = "{shuffle_partitions}"}}'
    workspace.config.write_text(workspace.config.read_text().replace("[spark]", f"[spark]\n{properties}"))
    words = [sys.executable, "-c", PARTITIONS, str(workspace.config), str(tmp_path), work]
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=180).stdout


def test_small_work_is_gathered_whatever_the_user_sets(workspace: Workspace, tmp_path: Path) -> None:
    assert "FOUND 1 7" in found(workspace, tmp_path, "small", "7")


def test_large_work_keeps_its_partitions_whatever_the_user_sets(workspace: Workspace, tmp_path: Path) -> None:
    assert "FOUND 4 1" in found(workspace, tmp_path, "large", "1")


def chunk_rows(*which: tuple[str, str, str, bool]) -> list[dict[str, object]]:
    """Rows of ``chunks`` of (team, chunk, text, whether it goes)."""
    blank: dict[str, object] = {field.name: "" if field.type == pa.string() else 0 for field in CHUNK}
    named = [{"team_id": team, "chunk_id": chunk, "text": text, "_delete": gone} for team, chunk, text, gone in which]
    return [blank | row for row in named]


def plan_of(frame: DataFrame) -> str:
    """The plan that Spark carries out."""
    return str(frame._jdf.queryExecution().executedPlan().toString())


@pytest.mark.parametrize("few_rows", [100_000, 0], ids=["handed over", "by Spark"])
def test_spark_reads_of_each_key_what_its_newest_change_left(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch, few_rows: int
) -> None:
    """And without changes the files as they are."""
    spark = Pipeline(load_config(workspace.config), Progress()).spark()
    state = State(workspace.root / "layered", cut="c1", fence=1)
    State(workspace.root / "layered", cut="c2", fence=1).change("chunks", chunk_rows(("T1", "a", "another cut", False)))
    monkeypatch.setattr(spark_frames, "FEW_ROWS", few_rows)

    def read() -> list[tuple[str, str, str]]:
        frame = read_table(spark, state, "chunks")
        assert frame.columns == CHUNK.names
        rows = sorted(tuple(row) for row in frame.select("team_id", "chunk_id", "text").collect())
        listed = state.read("chunks", ["team_id", "chunk_id", "text"]).to_pylist()
        assert rows == sorted(tuple(row.values()) for row in listed)
        return rows

    state.change("chunks", chunk_rows(("T1", "a", "1", False), ("T1", "b", "1", False), ("T2", "a", "1", False)))
    assert len(read()) == 3, "changes of a table that has no rows yet"
    state.fold("chunks")
    scan = read_table(spark, state, "chunks")
    assert len(scan.collect()) == 3 and "Join" not in plan_of(scan) and "Union" not in plan_of(scan)
    state.change("chunks", chunk_rows(("T1", "a", "2", False), ("T2", "c", "2", False)))
    state.change("chunks", chunk_rows(("T1", "a", "3", False), ("T1", "b", "", True)))
    assert read() == [("T1", "a", "3"), ("T2", "a", "1"), ("T2", "c", "2")]
    again = pa.Table.from_pylist(chunk_rows(("T1", "b", "4", False)), schema=TABLES["chunks"].changes)
    parts = write_part(str(state.root), "chunks", again.select(CHUNK.names), "c1", seq=state.next_seq("chunks"))
    state.append("chunks", parts)
    assert read() == [("T1", "a", "3"), ("T1", "b", "4"), ("T2", "a", "1"), ("T2", "c", "2")]
    state.fold("chunks", join=2)
    assert read() == [("T1", "a", "3"), ("T1", "b", "4"), ("T2", "a", "1"), ("T2", "c", "2")]
