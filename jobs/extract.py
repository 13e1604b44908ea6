"""Extract: read the source partitions that changed and bring ``chunks``, ``quarantine`` and ``sources`` up to date.

Listing is the driver's; opening, parsing, normalising and chunking are the executors', in Arrow batches. The order of
the commits is chunks, quarantine, sources: a crash between two of them reads the same partitions again and finds
nothing left to change.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.dataset as ds

from embedding import ids
from embedding.chunking import Chunker, ChunkLimits
from embedding.records import CHUNK, Document, Rejected, Skipped
from jobs.frames import read_table, spark_ddl, write_parts
from jobs.scope import Scope
from jobs.sources.base import NameMap, Partition, PurgeRule, Source
from jobs.state import State
from jobs.tables import QUARANTINE

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

STEP = "extract"
_BATCH_DOCUMENTS = 2_000
_BATCH_CHARACTERS = 4_000_000

# What executors send back: chunks, rejects and one line for each partition, told apart by ``row``.
EXTRACTED = pa.schema(
    [
        pa.field("row", pa.string()),
        *[f.with_nullable(True) for f in CHUNK],
        pa.field("key", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("retry", pa.bool_()),
        pa.field("whole", pa.bool_()),
        pa.field("documents", pa.int64()),
        pa.field("skipped", pa.string()),  # JSON, count by reason
        pa.field("refs", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, slots=True)
class Chunking:
    """What an executor needs to cut and hash text."""

    tokenizer_file: str
    limits: ChunkLimits
    hash_key: bytes
    version: str


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
    spark_of: Callable[[], SparkSession],
    state: State,
    sources: Sequence[Source],
    chunking: Chunking,
    scope: Scope,
    *,
    run_id: str,
    now: int,
) -> ExtractReport:
    """Bring the text tables up to date with the sources.

    ``spark_of`` starts Spark, and is called only where a partition must be read or has gone. ``now`` is the time of
    the run (µs). Raises SourceError for a source whose root is missing or empty.
    """
    known = {(r["source_id"], r["partition"]): r for r in state.read("sources").to_pylist()}
    work = _choose(sources, known, chunking, scope)
    report = ExtractReport(partitions=work.total, opened=len(work.read))
    if not work.read and not work.gone:
        _commit_quarantine(state, [_listing_row(s, r) for s, r in work.rejected], sources, set(), run_id, now)
        report.rejected = len(work.rejected)
        report.read = report.rejected
        return report

    spark = spark_of()
    staged = state.work(run_id) / "extract"
    _read_partitions(spark, state, sources, chunking, work.read, staged)
    rows = spark.read.schema(spark_ddl(EXTRACTED)).parquet(str(staged))
    tally = ("source_id", "partition", "documents", "skipped", "refs", "whole", "retry")
    partitions = rows.where("row = 'partition'").select(*tally).collect()
    rejects = [r.asDict() for r in rows.where("row = 'rejected'").collect()]

    whole = [(p.source_id, p.partition) for p in partitions if p.whole]
    overlaps, duplicates = _commit_chunks(spark, state, rows, whole + work.gone, sources, staged.parent)
    rejects += [_listing_row(source, reject) for source, reject in work.rejected] + duplicates
    touched = {(p.source_id, p.partition) for p in partitions} | set(work.gone)
    _commit_quarantine(state, rejects, sources, touched, run_id, now)
    _commit_sources(state, sources, work, partitions, overlaps, chunking, run_id)

    for partition in partitions:
        report.read += partition.documents
        for reason, count in json.loads(partition.skipped).items():
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
            # A partition whose file was refused (a link that now leaves the root) is not gone, only out of reach.
            refused = {r.key for r in listing.rejected}
            gone += [
                at for at in known
                if at[0] == source.source_id and at not in listed and at[1] not in refused
                and (not scope.channels) and scope.since is None and scope.until is None
            ]  # fmt: skip
    _add_overlapping(chosen, listed, gone, known)
    return _Work(list(chosen.values()), gone, rejected, len(listed))


def _changed(
    row: dict[str, object] | None, partition: Partition, source: Source, names: NameMap, chunking: Chunking
) -> bool:
    return (
        row is None
        or bool(row["retry"])
        or row["fingerprint"] != f"{partition.fingerprint}:{partition.path}"
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
    schema = "source int, key string, path string, fingerprint string, size long, channel_id string, first long"
    # Largest first and dealt round, so that no task ends up with all the heavy ones.
    ordered = sorted(work, key=lambda item: -item[1].size)
    width = max(1, min(len(ordered), spark.sparkContext.defaultParallelism * 4))
    dealt = [item for start in range(width) for item in ordered[start::width]]
    rows = [(n, p.key, p.path, p.fingerprint, p.size, p.channel_id, p.first) for n, p in dealt]
    frame = (
        spark.createDataFrame(spark.sparkContext.parallelize(rows, width), schema)
        if rows
        else spark.createDataFrame([], schema)
    )
    read = _reader(list(sources), chunking, rules)
    frame.mapInArrow(read, spark_ddl(EXTRACTED)).write.parquet(str(staged), mode="overwrite")


def _reader(
    sources: list[Source], chunking: Chunking, rules: list[PurgeRule]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def read(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
        chunker = Chunker(chunking.tokenizer_file, chunking.limits)
        pending: list[tuple[str, str, Document]] = []
        size = 0
        others: list[dict[str, object]] = []
        for batch in batches:
            for row in batch.to_pylist():
                source = sources[row["source"]]
                partition = Partition(
                    row["key"], row["path"], row["fingerprint"], row["size"], row["channel_id"], row["first"]
                )
                at = {"source_id": source.source_id, "partition": partition.key}
                tally = {"row": "partition", "documents": 0, "whole": True, "retry": False, **at}
                skipped: dict[str, int] = {}
                refs: set[str] = set()
                for record in source.read(partition):
                    match record:
                        case Document():
                            if any(rule.covers(record) for rule in rules):
                                skipped["purged"] = skipped.get("purged", 0) + 1
                                continue
                            tally["documents"] += 1
                            refs |= record.refs
                            pending.append((source.source_id, partition.key, record))
                            size += len(record.text)
                            if len(pending) >= _BATCH_DOCUMENTS or size >= _BATCH_CHARACTERS:
                                yield from _chunk(pending, chunker, chunking.hash_key)
                                pending, size = [], 0
                        case Rejected():
                            others.append(_reject_row(source, partition.key, record))
                            if record.whole or not record.doc_id:
                                tally["whole"] = False  # who knows which document this was: delete nothing
                            if record.retry:
                                tally["retry"] = True
                        case Skipped():
                            skipped[record.reason] = skipped.get(record.reason, 0) + record.count
                others.append({**tally, "skipped": json.dumps(skipped), "refs": sorted(refs)})
        if pending:
            yield from _chunk(pending, chunker, chunking.hash_key)
        if others:
            yield from pa.Table.from_pylist(others, schema=EXTRACTED).to_batches()

    return read


def _reject_row(source: Source, partition: str, reject: Rejected) -> dict[str, object]:
    return {
        "row": "rejected", "source_id": source.source_id, "partition": partition, "key": reject.key,
        "team_id": source.team_id or "", "channel_id": reject.channel_id, "kind": source.kind,
        "created_at": reject.created_at, "reason": reject.reason, "detail": reject.detail, "retry": reject.retry,
        "whole": reject.whole, "doc_id": reject.doc_id,
    }  # fmt: skip


def _listing_row(source: Source, reject: Rejected) -> dict[str, object]:
    return _reject_row(source, "", reject)


def _chunk(documents: list[tuple[str, str, Document]], chunker: Chunker, hash_key: bytes) -> Iterator[pa.RecordBatch]:
    """Cut documents and build the CHUNK columns of their pieces."""
    columns: dict[str, list[object]] = {name: [] for name in CHUNK.names}
    for (source_id, partition, document), spans in zip(
        documents, chunker.split_batch([d.text for _, _, d in documents]), strict=True
    ):
        meta = ids.dump_meta(document.meta)
        mark = 0
        for number, span in enumerate(spans):
            text = document.text[span.start : span.end]
            if document.marks:
                while mark + 1 < len(document.marks) and document.marks[mark + 1].start <= span.start:
                    mark += 1
                inside = document.marks[mark].meta if document.marks[mark].start <= span.start else {}
                meta = ids.dump_meta({**document.meta, **inside})
            shown = (
                document.doc_id, number, document.channel_id, document.channel_name, document.kind,
                document.created_at, document.updated_at, meta,
            )  # fmt: skip
            values = (
                ids.chunk_id(document.doc_id, number), document.doc_id, number, document.team_id, document.channel_id,
                document.channel_name, document.kind, document.created_at, document.updated_at, text, meta,
                span.tokens, ids.content_hash(hash_key, document.team_id, text), ids.meta_hash(shown),
                document.version, source_id, partition,
            )  # fmt: skip
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    chunks = pa.Table.from_pydict(columns, schema=CHUNK)
    filled = [
        chunks[f.name] if f.name in CHUNK.names
        else pa.array(["chunk"] * len(chunks)) if f.name == "row"
        else pa.nulls(len(chunks), f.type)
        for f in EXTRACTED
    ]  # fmt: skip
    yield from pa.Table.from_arrays(filled, schema=EXTRACTED).to_batches()


# -- commits -----------------------------------------------------------------------------------------------------------


def _commit_chunks(
    spark: SparkSession, state: State, rows: DataFrame, covered: list[tuple[str, str]], sources: Sequence[Source],
    work: Path,
) -> tuple[dict[tuple[str, str], set[str]], list[dict[str, object]]]:  # fmt: skip
    """Close the difference between what was read and ``chunks``.

    ``covered`` are the partitions that were read whole or are gone: what they owned and no longer hold is deleted.
    Returns which partitions overlap, and the quarantine rows of documents that lost to another of the same id.
    """
    from jobs import diff

    staged = rows.where("row = 'chunk'").select(*CHUNK.names)
    owned = read_table(spark, state, "chunks")
    order = [source.source_id for source in sources]
    covered_frame = spark.createDataFrame(covered or [("", "")], "source_id string, partition string").distinct()
    winners, overlapping, losers = diff.resolve_owners(staged, owned, covered_frame, order)
    winners = winners.persist()
    try:
        write_parts(state, "chunks", diff.new_chunks(winners, owned))
        protected = rows.where("row = 'rejected' AND doc_id != ''").select("doc_id").distinct()
        changes = diff.changed_chunks(winners, owned, covered_frame, protected)
        folder = work / "changes"
        changes.write.parquet(str(folder), mode="overwrite")
        if spark.read.schema(changes.schema).parquet(str(folder)).limit(1).count():
            state.merge("chunks", ds.dataset(str(folder)).scanner().to_reader())
    finally:
        winners.unpersist()
    overlaps: dict[tuple[str, str], set[str]] = {}
    for pair in overlapping.toArrow().to_pylist():
        overlaps.setdefault((pair["source_id"], pair["partition"]), set()).add(pair["other"])
    lost = [
        {
            "row": "rejected", **{k: loser[k] for k in ("source_id", "partition", "team_id", "channel_id", "kind")},
            "created_at": loser["created_at"], "key": loser["doc_id"], "reason": "duplicate_document",
            "detail": "another partition holds this id with another text and is newer", "retry": False,
        }
        for loser in losers.toArrow().to_pylist()
    ]  # fmt: skip
    return overlaps, lost


def _commit_quarantine(
    state: State, rejects: list[dict[str, object]], sources: Sequence[Source], touched: set[tuple[str, str]],
    run_id: str, now: int,
) -> None:  # fmt: skip
    """Replace the quarantine of every partition that was looked at; a repeated fault counts its tries."""
    listed = {(source.source_id, "") for source in sources}
    before = {
        (r["source_id"], r["partition"], r["key"]): r
        for r in state.read("quarantine").to_pylist()
        if r["step"] == STEP and (r["source_id"], r["partition"]) in touched | listed
    }
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for reject in rejects:
        at = (reject["source_id"], reject["partition"], reject["key"])
        old = before.get(at)
        rows[at] = {
            **{name: reject.get(name) for name in QUARANTINE.names},
            "step": STEP,
            "attempts": 1 + (old["attempts"] if old else 0),
            "first_seen": old["first_seen"] if old else now,
            "last_seen": now,
            "run_id": run_id,
            "_delete": False,
        }
    rows |= {at: {**row, "_delete": True} for at, row in before.items() if at not in rows}
    state.change("quarantine", list(rows.values()))


def _commit_sources(
    state: State, sources: Sequence[Source], work: _Work, partitions: Sequence[object],
    overlaps: dict[tuple[str, str], set[str]], chunking: Chunking, run_id: str,
) -> None:  # fmt: skip
    names = {source.source_id: NameMap(source.names) for source in sources}
    listed = {(sources[n].source_id, p.key): (sources[n], p) for n, p in work.read}
    rows: list[dict[str, object]] = []
    for row in partitions:
        at = (row.source_id, row.partition)  # type: ignore[attr-defined]
        source, partition = listed[at]
        rows.append(
            {
                "source_id": at[0], "partition": at[1], "fingerprint": f"{partition.fingerprint}:{partition.path}",
                "reader": f"{source.reader}:{chunking.version}", "refs": row.refs,  # type: ignore[attr-defined]
                "refs_hash": names[at[0]].fingerprint(row.refs),  # type: ignore[attr-defined]
                "overlaps": sorted(overlaps.get(at, ())), "retry": row.retry,  # type: ignore[attr-defined]
                "documents": row.documents, "run_id": run_id, "_delete": False,  # type: ignore[attr-defined]
            }
        )  # fmt: skip
    rows += [{"source_id": s, "partition": p, "_delete": True} for s, p in work.gone]
    state.change("sources", rows)
