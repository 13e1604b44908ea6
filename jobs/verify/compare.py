"""Verify: prove, key by key, that the index holds exactly the desired chunks; sample their vectors and their sources.

Three parties are compared: what is desired (``chunks``), what we believe (``published``) and what the index says. What
all three agree on is compared with the sources themselves, some of which are read anew (``reread``). A repair writes
through ``publish`` and passes the guard against mass deletion, so it can do nothing that a run could not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import functions as F

from jobs.plan.actions import in_scope
from jobs.plan.renames import keep_names
from jobs.scope import Scope
from jobs.state.quarantine import texts_left_out
from jobs.state.run_target import RunTarget
from jobs.state.spark_frames import arrow_frame, as_named, gathered, local_frame, read_table
from jobs.state.vector_column import unpack
from jobs.verify.source_check import Wrong

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from indexers.base import Index

SAMPLE = 200
_KINDS = ("missing", "ghost", "stale", "unledgered", "pending", "undesired", "vector", "source")
_KEY = pa.schema([("team_id", pa.string()), ("chunk_id", pa.string())])


@dataclass(frozen=True, slots=True)
class Differences:
    """Rows that differ, by kind, and up to ten chunk ids of them.

    missing: the ledger has it, the index not. ghost: the index has it, neither ledger nor desired state does.
    stale: the index holds other content or metadata than desired. unledgered: the index is right, the ledger not.
    pending: desired, not published yet. undesired: published, no longer desired. vector: not the stored vector.
    source: tables and index agree, and the source does not show it so. ``sample`` are chunks whose vector was compared.
    """

    counts: dict[str, int]
    examples: list[str]
    checked: int
    sampled: int
    sample: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All differences."""
        return sum(self.counts.values())


def not_found(spark: SparkSession, found: DataFrame, wrong: Sequence[Wrong]) -> list[Wrong]:
    """Those of ``wrong`` that no other check has found. ``found`` has at least team_id and chunk_id."""
    if not wrong:
        return []
    rows = local_frame(spark, _KEY, [{"team_id": one.team_id, "chunk_id": one.chunk_id} for one in wrong])
    seen = rows.join(found.select(*_KEY.names), on=_KEY.names, how="left_semi").toArrow()["chunk_id"].to_pylist()
    return [one for one in wrong if one.chunk_id not in set(seen)]


def with_sources(found: Differences, wrong: Sequence[Wrong]) -> Differences:
    """The differences with those that reading the sources anew has shown."""
    counts = found.counts | {"source": len(wrong)}
    return replace(found, counts=counts, examples=[*found.examples, *(one.chunk_id for one in wrong)][:10])


def compare(
    spark: SparkSession, target: RunTarget, index: Index, scope: Scope, *, sample: int = SAMPLE
) -> tuple[Differences, DataFrame]:
    """Compare index, ledger and desired state within a scope, and the vectors of ``sample`` rows.

    Returns the differences, and a frame of them (team_id, chunk_id, problem) for ``plan_repair``. Leaves what the index
    holds (SCAN) as Parquet files in ``scan`` of the run's work folder.
    """
    state, scan = target.state, target.work / "scan"
    _write_scan(index, target.version, scan)
    chunks = read_table(spark, state, "chunks")
    desired, ledger = in_scope(chunks, read_table(spark, state, "published", {"index": target.version}), scope)
    if target.rename_tokens is not None:  # what still waits for a new name is as it should be
        desired = keep_names(desired, ledger, 0)
    _, held = in_scope(chunks, gathered(as_named(spark).parquet(str(scan))), scope)
    key = ["team_id", "chunk_id"]
    joined = (
        _hashes(desired, "d")
        .join(_hashes(ledger, "l"), on=key, how="full_outer")
        .join(_hashes(held, "i"), on=key, how="full_outer")
    )
    d, ledgered, indexed = F.col("d"), F.col("l"), F.col("i")
    problem = (
        F.when(d.isNull() & ledgered.isNull(), "ghost")
        .when(d.isNull(), "undesired")
        .when(indexed.isNull() & ledgered.isNotNull(), "missing")
        .when(indexed.isNull(), "pending")
        .when(indexed != d, F.when(ledgered == indexed, "pending").otherwise("stale"))
        .when(ledgered.isNull() | (ledgered != d), "unledgered")
    )
    found = joined.withColumn("problem", problem).where("problem IS NOT NULL").select(*key, "problem")
    left_out = texts_left_out(state)
    if len(left_out):  # known to be absent, and why: that is what quarantine says
        waiting = arrow_frame(spark, left_out).withColumn("problem", F.lit("pending"))
        found = found.join(waiting, on=[*key, "problem"], how="left_anti")
    found = found.persist()
    counts = {kind: 0 for kind in _KINDS}
    counts |= {r["problem"]: r["count"] for r in found.groupBy("problem").count().collect()}
    examples = [r["chunk_id"] for r in found.select("chunk_id").orderBy("chunk_id").limit(10).collect()]
    wrong, sample_ids = _sample_vectors(spark, target, index, held, sample)
    if wrong:
        counts["vector"] = len(wrong)
        examples += [chunk for _, chunk in wrong[:10]]
        extra = spark.createDataFrame(
            [(t, c, "vector") for t, c in wrong], "team_id string, chunk_id string, problem string"
        )
        found = found.unionByName(extra)
    checked = joined.count()
    return Differences(counts, examples[:10], checked, len(sample_ids), tuple(sample_ids)), found


def plan_repair(
    spark: SparkSession, target: RunTarget, found: DataFrame, gone: Sequence[Wrong], *, deletes: bool = True
) -> tuple[int, int]:
    """Write the work that ``publish`` needs to repair ``found`` (team_id, chunk_id, problem).

    Returns rows to write and rows to delete. What is pending is a run's business and stays; without ``deletes`` so do
    the surplus rows of the index. ``gone`` are rows that their source does not show.
    """
    work = target.work
    chunks = read_table(spark, target.state, "chunks")
    key = ["team_id", "chunk_id"]
    write = found.where("problem IN ('missing', 'stale', 'unledgered', 'vector')").select(*key).distinct()
    rows = chunks.join(write, on=key, how="left_semi").withColumn("held", F.lit(True))
    unshown = local_frame(spark, _KEY, [{"team_id": one.team_id, "chunk_id": one.chunk_id} for one in gone])
    surplus = found.where("problem IN ('ghost', 'undesired')").select(*key).unionByName(unshown)
    surplus = surplus.where("true" if deletes else "false").distinct()
    rows.write.parquet(str(work / "rows"), mode="overwrite")
    surplus.write.parquet(str(work / "deletes"), mode="overwrite")
    return rows.count(), surplus.count()


def _hashes(frame: DataFrame, name: str) -> DataFrame:
    return frame.select("team_id", "chunk_id", F.concat_ws(":", "content_hash", "meta_hash").alias(name))


def _write_scan(index: Index, version: str, folder) -> None:  # type: ignore[no-untyped-def]
    from indexers.rows import SCAN

    folder.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(folder / "scan.parquet", SCAN) as sink:
        for batch in index.scan(version):
            sink.write_batch(batch.cast(SCAN) if batch.schema != SCAN else batch)


def _sample_vectors(
    spark: SparkSession, target: RunTarget, index: Index, held: DataFrame, size: int
) -> tuple[list[tuple[str, str]], list[str]]:
    """Of ``size`` rows of the index those whose vector is not the one in the store of record, and which had one."""
    sample = (
        held.select("team_id", "chunk_id", "content_hash").orderBy(F.xxhash64("chunk_id", "content_hash")).limit(size)
    )
    vectors = read_table(spark, target.state, "vectors", {"space_id": target.space_id})
    stored = vectors.select("team_id", "content_hash", "vector")
    rows: pa.Table = (
        sample.join(stored, on=["team_id", "content_hash"], how="inner").dropDuplicates(["chunk_id"])
    ).toArrow()
    wrong = []
    error = max(1e-5, index.vector_error(target.version))  # what the engine's way to keep vectors loses
    found = index.fetch_vectors(target.version, rows["chunk_id"].to_pylist()) if len(rows) else {}
    for row, expected in zip(rows.drop_columns(["vector"]).to_pylist(), unpack(rows["vector"]), strict=True):
        vector = found.get(row["chunk_id"])
        if vector is not None and not np.allclose(vector, expected, error, 1e-5):
            wrong.append((row["team_id"], row["chunk_id"]))
    return wrong, list(rows["chunk_id"].to_pylist())
