"""Extract: read the source partitions that changed and bring the text tables up to date with them.

The driver lists; executors open, parse, normalise and chunk (``partition_reader``). The order of the commits is: that
the partitions are being read (``begin_sources``), removals, chunks, quarantine, sources. After a crash between two of
them the same partitions are read again, and nothing is left to change.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs.extract.changes import choose_partitions
from jobs.extract.held_deletions import At, ids_held, judge, note_unlisted
from jobs.extract.partition_reader import (
    CHUNK_ROW,
    EXTRACTED,
    PARTITION_ROW,
    REJECTED_ROW,
    REMOVED_ROW,
    TO_READ,
    Chunking,
    reader,
    reject_row,
    to_read,
)
from jobs.extract.source_state import begin_sources, end_sources
from jobs.scope import Scope
from jobs.sources.base import Partition, Source
from jobs.state.purge_rules import PurgeRule
from jobs.state.quarantine import EXTRACT, replace
from jobs.state.row_counts import expect
from jobs.state.spark_frames import as_named, gathered, local_frame, spark_ddl
from jobs.state.store import State

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


_TO_READ = pa.schema([("task", pa.int32()), *TO_READ])


@dataclass(slots=True)
class ExtractReport:
    """What extract did: partitions opened, records read (documents, rejected, ignored, and skipped by reason)."""

    partitions: int = 0
    opened: int = 0
    read: int = 0
    rejected: int = 0
    ignored: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


def extract(
    spark_of: Callable[[int], SparkSession],
    state: State,
    sources: Sequence[Source],
    chunking: Chunking,
    scope: Scope,
    *,
    run_id: str,
    now: int,
) -> ExtractReport:
    """Bring the text tables up to date with the sources.

    ``spark_of(bytes to read)`` starts Spark, and is called only where a partition must be read or has gone. ``now`` is
    the time of the run (µs). Raises SourceError for a source whose root is missing or empty.
    """
    known = {(r["source_id"], r["partition"]): r for r in state.read("sources").to_pylist()}
    work = choose_partitions(sources, known, chunking, scope)
    report = ExtractReport(partitions=len(work.listed), opened=len(work.read))
    note_unlisted(state, known, work.unlisted, work.listed, now=now, run_id=run_id)

    def quarantine(rejects: list[dict[str, object]], touched: set[At]) -> None:
        read = touched | {(source, "") for source in work.looked}
        replace(
            state, EXTRACT, rejects, run_id=run_id, now=now, again=lambda r: (r["source_id"], r["partition"]) in read
        )
        report.ignored = sum(bool(r["ignored"]) for r in rejects)
        report.rejected = len(rejects) - report.ignored

    unlisted = [reject_row(source, "", reject) for source, reject in work.rejected]
    if not work.read and not work.gone:
        quarantine(unlisted, set())
        report.read = len(unlisted)
        return report

    from jobs.extract.commit import commit

    spark = spark_of(sum(partition.size for _, partition in work.read))
    staged = state.work(run_id) / "extract"
    _read_partitions(spark, state, sources, chunking, work.read, staged)
    partitions, rejects = _told(staged, {(sources[n].source_id, p.key) for n, p in work.read})
    by_partition: dict[At, list[dict[str, Any]]] = {}
    for reject in rejects:
        by_partition.setdefault((reject["source_id"], reject["partition"]), []).append(reject)
    whole = {(p["source_id"], p["partition"]): p["whole"] for p in partitions}
    judged = {at: judge(known.get(at), complete, by_partition.get(at, ())) for at, complete in whole.items()}
    rows = gathered(as_named(spark).schema(spark_ddl(EXTRACTED)).parquet(str(staged)))
    done = commit(
        spark,
        state,
        rows,
        judged,
        whole,
        work.gone,
        [source.source_id for source in sources],
        staged.parent,
        removals=any(REMOVED_ROW in p["sent"] for p in partitions) or state.count("removals") > 0,
        held=set().union(*(ids_held(row) for row in known.values() if row["held_back"] or row["held"])),
        elsewhere={
            at: row["named"] for at, row in known.items() if row["named"] and at not in whole and at not in work.gone
        },
        begin=lambda overlaps: begin_sources(state, known, list(whole), work.gone, overlaps, run_id),
    )
    quarantine([*rejects, *unlisted, *done.lost], {*whole, *work.gone})
    end_sources(state, sources, known, work.read, work.gone, partitions, judged, done, chunking, run_id=run_id, now=now)

    for partition in partitions:
        report.read += partition["documents"]
        for reason, count in json.loads(partition["skipped"]).items():
            report.skipped[reason] = report.skipped.get(reason, 0) + count
    report.read += sum(report.skipped.values()) + len(rejects) + len(unlisted)
    return report


def _told(staged: Path, asked: set[At]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """What the executors say of each partition, and what they rejected.

    Raises EmbedmillError where that is not what they were asked for: each partition once, with all its rows.
    """
    staged.mkdir(exist_ok=True)
    data = ds.dataset(str(staged), schema=EXTRACTED, format="parquet")
    told = data.to_table(filter=pc.field("row").isin([PARTITION_ROW, REJECTED_ROW])).to_pylist()
    partitions = [r for r in told if r["row"] == PARTITION_ROW]
    found = Counter((r["source_id"], r["partition"]) for r in partitions)
    expect("extract", "source partitions", len(asked), sum(min(n, 1) for at, n in found.items() if at in asked))
    expect("extract", "readings of source partitions", len(asked), found.total())
    there: Counter[tuple[str, str, str]] = Counter()
    for batch in data.to_batches(columns=["row", "source_id", "partition"]):
        rows = pa.Table.from_batches([batch]).group_by(batch.schema.names).aggregate([([], "count_all")])
        for row in rows.to_pylist():
            there[row["row"], row["source_id"], row["partition"]] += row["count_all"]
    for partition in partitions:
        sent = json.loads(partition["sent"])
        for kind in (CHUNK_ROW, REMOVED_ROW, REJECTED_ROW):
            at = kind, partition["source_id"], partition["partition"]
            expect("extract", f"{kind} rows of a partition", sent.get(kind, 0), there[at])
    return partitions, [r for r in told if r["row"] == REJECTED_ROW]


# -- what to read ------------------------------------------------------------------------------------------------------


def purge_rules(state: State) -> list[PurgeRule]:
    """The rules of all purges, which keep purged documents out."""
    return [
        PurgeRule(r["team_id"], r["channel_id"], frozenset(r["ids"] or ()), r["before"], r["purged_at"])
        for r in state.read("purges").to_pylist()
    ]


# -- on the executors --------------------------------------------------------------------------------------------------


def _read_partitions(
    spark: SparkSession,
    state: State,
    sources: Sequence[Source],
    chunking: Chunking,
    work: list[tuple[int, Partition]],
    staged: Path,
) -> None:
    # Largest first and dealt round, so that no task ends up with all the heavy ones.
    ordered = sorted(work, key=lambda item: -item[1].size)
    width = max(1, min(len(ordered), spark.sparkContext.defaultParallelism * 4))
    rows = [{**to_read(n, p), "task": place % width} for place, (n, p) in enumerate(ordered)]
    frame = local_frame(spark, _TO_READ, rows).repartitionById(width, "task").drop("task")
    read = reader(list(sources), chunking, purge_rules(state))
    frame.mapInArrow(read, spark_ddl(EXTRACTED)).write.parquet(str(staged), mode="overwrite")
