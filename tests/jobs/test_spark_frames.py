"""Frames are gathered by what the session was started for, and by no property of Spark that a user may set."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT
from tests.support.workspace import Workspace

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
