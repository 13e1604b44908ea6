"""Cuts the plan's rows into shards for the index."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

from jobs.plan.plan import READY
from jobs.publish.publisher import parquet_files
from jobs.state.spark_frames import as_named, gathered, read_table

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.state.run_target import RunTarget


def prepare(spark: SparkSession, target: RunTarget, *, shard_rows: int, ready: bool) -> int:
    """Join planned rows with their vectors into files of at most ``shard_rows``; returns how many rows have none.

    All rows, or only those that the plan found ``ready``. A row without a vector is one whose text could not be
    encoded: it is in quarantine and is not published.
    """
    work = target.work
    planned = work / "rows" / f"shard={READY}" if ready else work / "rows"
    if not planned.exists():
        return 0
    rows = gathered(as_named(spark).parquet(str(planned)).drop("shard"))
    wanted = rows.select("team_id", "content_hash").distinct()
    vectors = (
        read_table(spark, target.state, "vectors", {"space_id": target.space_id})
        .join(wanted, on=["team_id", "content_hash"], how="left_semi")
        .dropDuplicates(["team_id", "content_hash"])  # two killed runs may both have stored it; the vectors are equal
        .select("team_id", "content_hash", "vector")
    )
    joined = rows.join(vectors, on=["team_id", "content_hash"], how="inner")
    joined.write.option("maxRecordsPerFile", shard_rows).parquet(str(work / "publish"), mode="overwrite")
    return _count(planned) - _count(work / "publish")


def _count(folder: Path) -> int:
    return sum(int(pq.read_metadata(file).num_rows) for file in parquet_files(folder))
