"""Extract: read the source partitions that changed and bring ``chunks``, ``quarantine`` and ``sources`` up to date.

Listing is the driver's; opening, parsing, normalising and chunking are the executors' (``reader``). The order of the
commits is that the partitions are being read (``seen``), chunks, quarantine, sources: a crash between two of them
reads the same partitions again and finds nothing left to change.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from embedding.records import CHUNK, Rejected
from jobs.frames import as_named, gathered, local_frame, read_table, spark_ddl, write_parts
from jobs.quarantine import EXTRACT, replace
from jobs.reader import EXTRACTED, Chunking, reader, reject_row
from jobs.scope import Scope
from jobs.seen import begin_sources, end_sources, stamp
from jobs.sources.base import NameMap, Partition, PurgeRule, Source
from jobs.state import State

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession


# A partition on its way to an executor. Its path is bytes: a file's name need not be UTF-8.
_TO_READ = pa.schema(
    [
        ("task", pa.int32()),
        ("source", pa.int32()),
        ("key", pa.string()),
        ("path", pa.binary()),
        ("fingerprint", pa.string()),
        ("size", pa.int64()),
        ("channel_id", pa.string()),
        ("first", pa.int64()),
    ]
)
_COVERED = pa.schema([("source_id", pa.string()), ("partition", pa.string())])


@dataclass(slots=True)
class ExtractReport:
    """What extract did: partitions opened, records read (documents, rejected and skipped by reason)."""

    partitions: int = 0
    opened: int = 0
    read: int = 0
    rejected: int = 0
    skipped: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Work:
    """Which partitions to read, and which are gone."""

    read: list[tuple[int, Partition]]
    gone: list[tuple[str, str]]
    rejected: list[tuple[Source, Rejected]]
    total: int


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
    work = _choose(sources, known, chunking, scope)
    report = ExtractReport(partitions=work.total, opened=len(work.read))

    def quarantine(rejects: list[dict[str, object]], touched: set[tuple[str, str]]) -> None:
        read = touched | {(source.source_id, "") for source in sources}
        replace(
            state, EXTRACT, rejects, run_id=run_id, now=now, again=lambda r: (r["source_id"], r["partition"]) in read
        )

    if not work.read and not work.gone:
        quarantine([reject_row(s, "", r) for s, r in work.rejected], set())
        report.rejected = len(work.rejected)
        report.read = report.rejected
        return report

    spark = spark_of(sum(partition.size for _, partition in work.read))
    staged = state.work(run_id) / "extract"
    _read_partitions(spark, state, sources, chunking, work.read, staged)
    rows = gathered(as_named(spark).schema(spark_ddl(EXTRACTED)).parquet(str(staged)))
    told = ds.dataset(str(staged), schema=EXTRACTED).to_table(filter=pc.field("row") != "chunk").to_pylist()
    partitions = [r for r in told if r["row"] == "partition"]
    rejects: list[dict[str, object]] = [r for r in told if r["row"] == "rejected"]

    whole = [(p["source_id"], p["partition"]) for p in partitions if p["whole"]]
    overlaps, duplicates = _commit_chunks(
        spark, state, rows, whole + work.gone, sources, staged.parent,
        begin=lambda found: begin_sources(state, known, partitions, found, run_id),
    )  # fmt: skip
    rejects += [reject_row(source, "", reject) for source, reject in work.rejected] + duplicates
    touched = {(p["source_id"], p["partition"]) for p in partitions} | set(work.gone)
    quarantine(rejects, touched)
    end_sources(state, sources, work.read, work.gone, partitions, overlaps, chunking, run_id)

    for partition in partitions:
        report.read += partition["documents"]
        for reason, count in json.loads(partition["skipped"]).items():
            report.skipped[reason] = report.skipped.get(reason, 0) + count
    report.rejected = len(rejects)
    report.read += sum(report.skipped.values()) + len(rejects) - len(duplicates)
    return report


# -- what to read ------------------------------------------------------------------------------------------------------


def changed_partitions(state: State, sources: Sequence[Source], chunking: Chunking) -> int:
    """How many partitions differ from what was read last; opens none."""
    known = {(r["source_id"], r["partition"]): r for r in state.read("sources").to_pylist()}
    work = _choose(sources, known, chunking, Scope())
    return len(work.read) + len(work.gone)


def _choose(
    sources: Sequence[Source], known: dict[tuple[str, str], dict[str, object]], chunking: Chunking, scope: Scope
) -> _Work:
    chosen: dict[tuple[str, str], tuple[int, Partition]] = {}
    listed: dict[tuple[str, str], tuple[int, Partition]] = {}
    gone: list[tuple[str, str]] = []
    rejected: list[tuple[Source, Rejected]] = []
    for number, source in enumerate(sources):
        if scope.teams and source.team_id is not None and source.team_id not in scope.teams:
            continue
        if scope.kind is not None and source.kind != scope.kind:
            continue
        listing = source.listing()
        names = NameMap(source.names)
        rejected += [(source, r) for r in listing.rejected]
        for partition in listing.partitions:
            at = (source.source_id, partition.key)
            listed[at] = (number, partition)
            if scope.may_hold(source, partition) and _changed(known.get(at), partition, source, names, chunking):
                chosen[at] = (number, partition)
        if listing.complete:
            # What was refused (a file or a folder that is now a link out of the root) is not gone, only out of reach.
            refused = {r.key for r in listing.rejected}
            gone += [
                at for at in known
                if at[0] == source.source_id and at not in listed
                and (not scope.channels) and scope.since is None and scope.until is None
                and not _below(at[1], refused)
            ]  # fmt: skip
    _add_overlapping(chosen, listed, gone, known)
    return _Work(list(chosen.values()), gone, rejected, len(listed))


def _below(key: str, refused: set[str]) -> bool:
    """Whether a partition or a folder that it lies in was refused."""
    return key in refused or any(key[:cut] in refused for cut, letter in enumerate(key) if letter == "/")


def _changed(
    row: dict[str, object] | None, partition: Partition, source: Source, names: NameMap, chunking: Chunking
) -> bool:
    return (
        row is None
        or bool(row["retry"])
        or row["fingerprint"] != stamp(partition)
        or row["reader"] != f"{source.reader}:{chunking.version}"
        or row["refs_hash"] != names.fingerprint(row["refs"] or [])  # type: ignore[arg-type]
    )


def _add_overlapping(
    chosen: dict[tuple[str, str], tuple[int, Partition]],
    listed: dict[tuple[str, str], tuple[int, Partition]],
    gone: list[tuple[str, str]],
    known: dict[tuple[str, str], dict[str, object]],
) -> None:
    """Where two partitions hold one document, a change of either must look at both again."""
    moved = set(chosen) | set(gone)
    for at, row in known.items():
        others = {tuple(o.split("\0", 1)) for o in row["overlaps"] or []}  # type: ignore[attr-defined]
        group = others | {at}
        if others and group & moved:
            for member in group:
                if member in listed:
                    chosen[member] = listed[member]


# -- on the executors --------------------------------------------------------------------------------------------------


def _read_partitions(
    spark: SparkSession, state: State, sources: Sequence[Source], chunking: Chunking,
    work: list[tuple[int, Partition]], staged: Path,
) -> None:  # fmt: skip
    rules = [
        PurgeRule(r["team_id"], r["channel_id"], frozenset(r["ids"] or ()), r["before"], r["purged_at"])
        for r in state.read("purges").to_pylist()
    ]
    # Largest first and dealt round, so that no task ends up with all the heavy ones.
    ordered = sorted(work, key=lambda item: -item[1].size)
    width = max(1, min(len(ordered), spark.sparkContext.defaultParallelism * 4))
    rows = [
        asdict(p) | {"source": n, "path": os.fsencode(p.path), "task": place % width}
        for place, (n, p) in enumerate(ordered)
    ]
    frame = local_frame(spark, _TO_READ, rows).repartitionById(width, "task").drop("task")
    read = reader(list(sources), chunking, rules)
    frame.mapInArrow(read, spark_ddl(EXTRACTED)).write.parquet(str(staged), mode="overwrite")


# -- commits -----------------------------------------------------------------------------------------------------------


def _commit_chunks(
    spark: SparkSession, state: State, rows: DataFrame, covered: list[tuple[str, str]], sources: Sequence[Source],
    work: Path, *, begin: Callable[[dict[tuple[str, str], set[str]]], None],
) -> tuple[dict[tuple[str, str], set[str]], list[dict[str, object]]]:  # fmt: skip
    """Close the difference between what was read and ``chunks``.

    ``covered`` are the partitions that were read whole or are gone: what they owned and no longer hold is deleted.
    ``begin`` is told which partitions overlap, before the first commit. Returns that, and the quarantine rows of
    documents that lost to another of the same id.
    """
    from jobs import diff

    staged = rows.where("row = 'chunk'").select(*CHUNK.names)
    owned = read_table(spark, state, "chunks")
    order = [source.source_id for source in sources]
    covered_frame = local_frame(spark, _COVERED, [{"source_id": s, "partition": p} for s, p in sorted(set(covered))])
    claims = diff.rank_owners(staged, owned, covered_frame, order).persist()
    winners = diff.winning(staged, claims).persist()
    try:
        overlaps: dict[tuple[str, str], set[str]] = {}
        for pair in diff.overlapping(claims).toArrow().to_pylist():
            overlaps.setdefault((pair["source_id"], pair["partition"]), set()).add(pair["other"])
        begin(overlaps)
        write_parts(state, "chunks", diff.new_chunks(winners, owned))
        protected = rows.where("row = 'rejected' AND doc_id != ''").select("doc_id").distinct()
        changes = diff.changed_chunks(winners, owned, covered_frame, protected)
        folder = work / "changes"
        changes.write.parquet(str(folder), mode="overwrite")
        changed = ds.dataset(str(folder))
        if changed.count_rows():
            state.merge("chunks", changed.scanner().to_reader())
        lost = [
            {
                "row": "rejected", **{k: loser[k] for k in ("source_id", "partition", "team_id", "channel_id", "kind")},
                "created_at": loser["created_at"], "key": loser["doc_id"], "reason": "duplicate_document",
                "detail": "another partition holds this id with another text", "retry": False,
            }
            for loser in (diff.losing(claims).toArrow().to_pylist() if overlaps else ())
        ]  # fmt: skip
    finally:
        winners.unpersist()
        claims.unpersist()
    return overlaps, lost
