"""Guard: refuses what would delete much of an index, of a team's rows in it, or of what a source gave.

A share of the whole says little where one team or one source has lost all it had: so both limits hold for every one of
them. Conversations do not count: they come and go with their messages. Asked on every way that deletes: a run, its
steps, a cutover, a repair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedding.errors import MassDeleteError
from embedding.ids import CONVERSATION

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.config_sections import Limits
    from jobs.state.run_target import RunTarget
    from jobs.state.store import State


@dataclass(frozen=True, slots=True)
class Loss:
    """Of the rows that an index holds of a team and a source: how many, and how many of them would be deleted.

    ``source_id`` is empty where it is not known: in a ledger of an earlier version, or of a row in no table.
    """

    team_id: str
    source_id: str
    held: int
    deleted: int


def check_deletes(losses: Iterable[Loss], limits: Limits, *, what: str = "rows") -> None:
    """Raise MassDeleteError where more goes than both limits allow, of all, of a team, or of a source."""
    groups: dict[str, list[int]] = {}
    for loss in losses:
        names = ["the index", f"team {loss.team_id}"] + [f"source {loss.source_id}"] * bool(loss.source_id)
        for name in names:
            group = groups.setdefault(name, [0, 0])
            group[0] += loss.held
            group[1] += loss.deleted
    # Of the index first, as that says most; the worst of the others after it.
    for name, (held, deleted) in sorted(
        groups.items(), key=lambda item: (item[0] != "the index", -item[1][1], item[0])
    ):
        if deleted > limits.max_delete_rows and deleted > limits.max_delete_fraction * held:
            raise MassDeleteError(
                f"{deleted:,} of {held:,} {what} of {name} would be deleted, more than limits.max_delete_rows "
                f"({limits.max_delete_rows:,}) and limits.max_delete_fraction ({limits.max_delete_fraction:g}); "
                "check the source, or give --allow-mass-delete"
            )


def planned_losses(spark: SparkSession, target: RunTarget) -> list[Loss]:
    """What the deletes in a run's work folder (team_id, chunk_id) take from each team and source of an index."""
    from pyspark.sql import functions as F

    from jobs.state.spark_frames import as_named

    deletes = as_named(spark).parquet(str(target.work / "deletes")).select("team_id", "chunk_id").distinct()
    deletes = deletes.where(~F.col("chunk_id").rlike(CONVERSATION))
    key = ["team_id", "chunk_id"]
    counted = (
        _held(spark, target.state, target.version)
        .join(deletes.withColumn("goes", F.lit(1)), on=key, how="full_outer")  # a ghost is in no ledger
        .groupBy("team_id", F.coalesce("source", F.lit("")).alias("source"))
        .agg(F.count("*").alias("held"), F.count("goes").alias("deleted"))
    )
    return [Loss(r["team_id"], r["source"], r["held"], r["deleted"]) for r in counted.collect()]


def cutover_losses(spark: SparkSession, state: State, *, live: str, version: str) -> list[Loss]:
    """How many documents fewer than ``live`` a version has, by team and source."""
    from pyspark.sql import functions as F

    def documents(index: str) -> Mapping[tuple[str, str], int]:
        rows = _held(spark, state, index).where(F.col("chunk_id").endswith("#0"))
        counted = rows.groupBy("team_id", F.coalesce("source", F.lit("")).alias("source")).count()
        return {(r["team_id"], r["source"]): r["count"] for r in counted.collect()}

    before, after = documents(live), documents(version)
    # What a source has more than before stands against what it lost to: signed, so that moves between them cancel out.
    return [
        Loss(team, source, before.get((team, source), 0), before.get((team, source), 0) - after.get((team, source), 0))
        for team, source in sorted(before.keys() | after.keys())
    ]


def guard_deletes(spark: SparkSession, target: RunTarget, deletes: int, limits: Limits) -> None:
    """Raise MassDeleteError where the ``deletes`` in a run's work folder are too many. Asks the tables if it may be."""
    if deletes > limits.max_delete_rows:
        check_deletes(planned_losses(spark, target), limits)


def _held(spark: SparkSession, state: State, index: str) -> DataFrame:
    """The ledger's rows of an index: team_id, chunk_id, source (of its text now, else of when it was written)."""
    from pyspark.sql import functions as F

    from jobs.state.spark_frames import read_table

    chunks = read_table(spark, state, "chunks").select("team_id", "chunk_id", F.col("source_id").alias("owner"))
    ledger = read_table(spark, state, "published", {"index": index}).select("team_id", "chunk_id", "source_id")
    ledger = ledger.where(~F.col("chunk_id").rlike(CONVERSATION))
    return ledger.join(chunks, on=["team_id", "chunk_id"], how="left").select(
        "team_id", "chunk_id", F.coalesce("owner", "source_id").alias("source")
    )
