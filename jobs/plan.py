"""Plan: the difference between the desired chunks and what the index holds, written down as work for embed and publish.

Leaves below the run's work folder: ``rows`` (chunks to write, with their action), ``texts/shard=N`` (distinct texts
to encode, longest first, cut by tokens) and ``deletes`` (chunk ids). Decides nothing about how they are carried out.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc
from pyspark.sql import functions as F

from embedding.errors import MassDeleteError
from jobs import diff
from jobs.frames import read_table
from jobs.scope import Scope
from jobs.state import State

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.config import Limits

_FRACTIONS = 1 << 20


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of a plan. ``tokens`` and ``texts`` are what goes to the encoder, in ``shards`` pieces."""

    total: int = 0
    embed: int = 0
    reuse: int = 0
    update: int = 0
    delete: int = 0
    unchanged: int = 0
    tokens: int = 0
    shards: int = 0
    published: int = 0

    @property
    def writes(self) -> int:
        """Rows the index must take."""
        return self.embed + self.reuse + self.update

    def to_json(self) -> dict[str, int]:
        """All counts."""
        return asdict(self)


def make_plan(
    spark: SparkSession, state: State, scope: Scope, *, run_id: str, index: str, space_id: str, shard_tokens: int
) -> Plan:
    """Compute the plan of a scope against an index version, and write it to the run's work folder."""
    work = state.work(run_id)
    within = scope.condition()
    chunks = read_table(spark, state, "chunks").where(within)
    published = read_table(spark, state, "published", {"index": index})
    vectors = read_table(spark, state, "vectors", {"space_id": space_id})
    acted = diff.actions(chunks, published.where(within), vectors).persist()
    try:
        counts = {r["action"]: r["count"] for r in acted.groupBy("action").count().collect()}
        rows = acted.where("action IN ('embed', 'reuse', 'update')")
        texts = (
            acted.where("action = 'embed'")
            .groupBy("team_id", "content_hash")
            .agg(F.first("text").alias("text"), F.first("tokens").alias("tokens"))
        )
        if counts.get("embed") or counts.get("reuse") or counts.get("update"):
            rows.write.parquet(str(work / "rows"), mode="overwrite")
        if counts.get("delete"):
            acted.where("action = 'delete'").select("team_id", "chunk_id").write.parquet(
                str(work / "deletes"), mode="overwrite"
            )
        distinct = tokens = shards = 0
        if counts.get("embed"):
            distinct, tokens, shards = _write_texts(texts.persist(), str(work / "texts"), shard_tokens)
    finally:
        acted.unpersist()
    return Plan(
        total=sum(n for action, n in counts.items() if action != "delete"),
        embed=distinct,
        reuse=counts.get("reuse", 0) + counts.get("embed", 0) - distinct,
        update=counts.get("update", 0),
        delete=counts.get("delete", 0),
        unchanged=counts.get("unchanged", 0),
        tokens=tokens,
        shards=shards,
        published=state.count("published", pc.field("index") == index),
    )


def _write_texts(texts: DataFrame, folder: str, shard_tokens: int) -> tuple[int, int, int]:
    """Cut the texts into shards of about ``shard_tokens`` with like lengths together; returns texts, tokens, shards.

    A global sort would need one task for a running total. A text's place is known well enough from the histogram of
    lengths (a few hundred rows) and, among texts of its length, from its hash.
    """
    histogram = sorted(((r["tokens"], r["count"]) for r in texts.groupBy("tokens").count().collect()), reverse=True)
    total = sum(length * count for length, count in histogram)
    shards = max(1, math.ceil(total / shard_tokens))
    before, starts = 0, []
    for length, count in histogram:
        starts.append((length, before, length * count))
        before += length * count
    spark = texts.sparkSession
    places = F.broadcast(spark.createDataFrame(starts, "tokens int, before long, width long"))
    fraction = F.pmod(F.xxhash64("content_hash"), F.lit(_FRACTIONS)) / F.lit(_FRACTIONS)
    shard = F.least(F.floor((F.col("before") + fraction * F.col("width")) * shards / total), F.lit(shards - 1))
    (
        texts.join(places, on="tokens", how="inner")
        .withColumn("shard", shard.cast("int"))
        .select("team_id", "content_hash", "text", "tokens", "shard")
        .repartition(shards, "shard")
        .sortWithinPartitions("shard", F.desc("tokens"))
        .write.partitionBy("shard")
        .parquet(folder, mode="overwrite")
    )
    texts.unpersist()
    return sum(count for _, count in histogram), total, shards


def check_deletes(plan: Plan, limits: Limits) -> None:
    """Raise MassDeleteError where the plan deletes more than both limits."""
    if plan.delete > limits.max_delete_rows and plan.delete > limits.max_delete_fraction * plan.published:
        raise MassDeleteError(
            f"the plan deletes {plan.delete:,} of {plan.published:,} rows, more than limits.max_delete_rows "
            f"({limits.max_delete_rows:,}) and limits.max_delete_fraction ({limits.max_delete_fraction:g}); "
            "check the source, or give --allow-mass-delete"
        )
