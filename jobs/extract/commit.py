"""Commits the difference between what was read and the text tables ``chunks`` and ``removals``.

``ownership`` decides, and ``held_deletions`` where something could not be read. Nothing is read from a source here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import functions as F

from embedding.records import CHUNK
from jobs.extract import ownership
from jobs.extract.conversations import Commit, changed_conversations
from jobs.extract.extracted import CHUNK_ROW, REJECTED_ROW, REMOVED_ROW
from jobs.extract.held_deletions import Kept
from jobs.state.row_counts import written
from jobs.state.spark_frames import local_frame, read_rows, read_table, write_parts
from jobs.state.tables import REMOVALS, TABLES

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from jobs.extract.changes import Extraction, SourceChanges
    from jobs.extract.held_deletions import At
    from jobs.extract.readings import Readings
    from jobs.state.store import State

_AT = [("source_id", pa.string()), ("partition", pa.string())]
_COVERED = pa.schema(_AT)
_DOCUMENT = pa.schema([("doc_id", pa.string())])
_PROTECTED = pa.schema([("doc_id", pa.string()), *_AT])
_HOLDING = pa.schema([*_AT, ("anything", pa.bool_()), ("listed", pa.bool_()), ("reason", pa.string())])
_NAMED = pa.schema([("doc_id", pa.string()), *_AT, ("named_reason", pa.string()), ("waits", pa.bool_())])


@dataclass(frozen=True, slots=True)
class Decision:
    """Which partition owns each document, by what was ``read`` and what was known; nothing of it is committed yet.

    ``claims`` are the frames of ``ownership.rank_owners``, ``winners`` those of them that count, ``decided`` the
    documents (doc_id) that they decide. ``overlaps`` are the partitions that hold the same documents, ``elsewhere`` the
    unreadable documents of partitions that were not read. ``removals`` is false where none was read or is known.
    """

    read: ownership.Read
    claims: DataFrame
    winners: DataFrame
    decided: DataFrame
    overlaps: Mapping[At, set[str]]
    elsewhere: Mapping[At, Sequence[str]]
    removals: bool


@dataclass(slots=True)
class Committed:
    """What a commit of read partitions found.

    ``overlaps``: the partitions that hold the same documents. ``lost``: quarantine rows of documents that lost to
    another one of the same id. ``kept``: by partition, documents that stayed although they are missing. ``let_go``:
    documents that were kept before and no longer are. ``again``: partitions that were not read now and have got such a
    document from another one.
    """

    overlaps: Mapping[At, set[str]] = field(default_factory=dict)
    lost: list[dict[str, object]] = field(default_factory=list)
    kept: dict[At, list[Kept]] = field(default_factory=dict)
    let_go: set[str] = field(default_factory=set)
    again: set[At] = field(default_factory=set)


@contextmanager
def decide(
    spark: SparkSession, extraction: Extraction, changes: SourceChanges, readings: Readings, rows: DataFrame
) -> Iterator[Decision]:
    """Decide which partition owns each document of the ``rows`` (EXTRACTED) that were read.

    The frames of the decision are persisted within the block.
    """
    state = extraction.state
    removals = readings.removals or state.count("removals") > 0
    elsewhere = changes.held_elsewhere(readings.partitions)
    protected = _protected(readings, elsewhere)
    covered = {*(at for at, found in readings.judged.items() if found.covered), *changes.gone}
    certain = covered - {at for at, found in readings.judged.items() if found.suspects}
    none = local_frame(spark, REMOVALS, [])
    read = ownership.Read(
        staged=rows.where(f"row = '{CHUNK_ROW}'").select(*CHUNK.names),
        removed=rows.where(f"row = '{REMOVED_ROW}'").select(*REMOVALS.names) if removals else none,
        chunks=read_table(spark, state, "chunks"),
        removals=read_table(spark, state, "removals") if removals else none,
        covered=local_frame(spark, _COVERED, [{"source_id": s, "partition": p} for s, p in sorted(covered)]),
        certain=local_frame(spark, _COVERED, [{"source_id": s, "partition": p} for s, p in sorted(certain)]),
        protected=local_frame(spark, _PROTECTED, protected),
    )
    claims = ownership.rank_owners(read, [source.source_id for source in extraction.sources]).persist()
    winners = ownership.winning(read.staged, claims).persist()
    decided = ownership.decided_by(winners, ownership.taken_away(claims))
    overlaps: dict[At, set[str]] = {}
    try:
        for pair in ownership.overlapping(claims).toArrow().to_pylist():
            overlaps.setdefault((pair["source_id"], pair["partition"]), set()).add(pair["other"])
        yield Decision(read, claims, winners, decided, overlaps, elsewhere, removals)
    finally:
        winners.unpersist()
        claims.unpersist()


def _protected(readings: Readings, elsewhere: Mapping[At, Sequence[str]]) -> list[dict[str, object]]:
    """Rows of _PROTECTED: documents that were seen, or may have been, and could not be read."""
    spared = {at: {*found.named, *found.waiting} for at, found in readings.judged.items()} | dict(elsewhere)
    return [
        {"doc_id": doc, "source_id": at[0], "partition": at[1]} for at, docs in spared.items() for doc in sorted(docs)
    ]


def commit(
    spark: SparkSession, extraction: Extraction, changes: SourceChanges, readings: Readings, decision: Decision
) -> Committed:
    """Bring ``chunks`` and ``removals`` up to date with what was decided."""
    state, read, decided = extraction.state, decision.read, decision.decided
    work = state.work(extraction.run_id)
    done = Committed(decision.overlaps)
    if decision.removals:
        _merge(state, "removals", ownership.changed_removals(read), work)
    new = ownership.new_chunks(decision.winners, read.chunks)
    changed = ownership.changed_chunks(decision.winners, read, decided)
    if not extraction.chunking.conversations and changes.read_otherwise:
        made = read.chunks.where("kind = 'thread'").select(*CHUNK.names)  # while there were to be any
        changed = changed.unionByName(made.withColumn("_delete", F.lit(True)))
    if extraction.chunking.conversations:
        _commit_with_conversations(spark, extraction, decision, new, changed)
    else:
        write_parts(state, "chunks", new)
        _merge(state, "chunks", changed, work)
    if done.overlaps:
        done.lost = [_lost(loser) for loser in ownership.losing(decision.claims).toArrow().to_pylist()]
    done.kept = _kept(spark, readings, decision)
    if decision.elsewhere:
        owners = ownership.handed_on(read, decided).toArrow().to_pylist()
        done.again = {(r["source_id"], r["partition"]) for r in owners} & decision.elsewhere.keys()
    if held := changes.held:
        ours = local_frame(spark, _DOCUMENT, [{"doc_id": doc} for doc in sorted(held)])
        done.let_go = set(ours.join(decided, on="doc_id", how="left_semi").toArrow()["doc_id"].to_pylist())
    return done


def _commit_with_conversations(
    spark: SparkSession, extraction: Extraction, decision: Decision, new: DataFrame, changed: DataFrame
) -> None:
    """Bring ``chunks`` up to date, and the conversations that these messages make."""
    state, chunks = extraction.state, decision.read.chunks
    work = state.work(extraction.run_id)
    folders = [work / "changes-chunks", work / "changes-conversations"]
    rows = written(changed, folders[0], "changes of chunks")
    staged = read_rows(spark, TABLES["chunks"].changes, folders[0])
    messages = Commit(chunks, decision.winners, new.persist(), staged)
    with changed_conversations(messages, extraction.chunking) as (made, altered):
        rows += written(altered, folders[1], "changes of conversations")
        write_parts(state, "chunks", new.unionByName(made))
    new.unpersist()
    if rows:  # one transaction: a message goes, and with it what it said in a conversation
        state.merge("chunks", _staged_rows(*folders))


def _merge(state: State, name: str, changes: DataFrame, work: Path) -> None:
    """Commit the changes of a table, all in one transaction."""
    folder = work / f"changes-{name}"
    if written(changes, folder, f"changes of {name}"):
        state.merge(name, _staged_rows(folder))


def _staged_rows(*folders: Path) -> pa.RecordBatchReader:
    parts = [ds.dataset(str(folder), format="parquet") for folder in folders]
    return ds.dataset(parts).scanner().to_reader()


def _kept(spark: SparkSession, readings: Readings, decision: Decision) -> dict[At, list[Kept]]:
    """By partition the documents that stay although it does not show them."""
    judged, whole = readings.judged, {at: row["whole"] for at, row in readings.partitions.items()}
    holding = [
        {
            "source_id": at[0],
            "partition": at[1],
            "anything": not found.covered,
            "listed": whole[at],
            "reason": found.reason,
        }
        for at, found in judged.items()
        if found.holds
    ]
    if not holding:
        return {}
    named: list[dict[str, object]] = []
    for at, found in judged.items():
        reasons = {doc: (found.reason, whole[at]) for doc in found.waiting if found.covered}
        reasons |= {doc: (reason, False) for doc, reason in found.named.items()}
        named += [
            {"doc_id": doc, "source_id": at[0], "partition": at[1], "named_reason": reason, "waits": waits}
            for doc, (reason, waits) in reasons.items()
        ]
    frame = ownership.staying(
        decision.read, local_frame(spark, _HOLDING, holding), local_frame(spark, _NAMED, named), decision.decided
    )
    kept: dict[At, list[Kept]] = {}
    for row in frame.toArrow().to_pylist():
        kept.setdefault((row["source_id"], row["partition"]), []).append(
            Kept(row["why"], row["documents"], tuple(row["ids"]), tuple(row["waiting"]))
        )
    return kept


def _lost(loser: Mapping[str, Any]) -> dict[str, object]:
    """The quarantine row of a document that lost to another of the same id and version."""
    return {
        "row": REJECTED_ROW,
        **{k: loser[k] for k in ("source_id", "partition", "team_id", "channel_id", "kind")},
        "created_at": loser["created_at"],
        "key": loser["doc_id"],
        "reason": "duplicate_document",
        "detail": "another partition holds this id with another text",
        "retry": False,
        "ignored": False,
    }
