"""Commits the difference between what was read and the text tables ``chunks`` and ``removals``.

``ownership`` decides, and ``held_deletions`` where something could not be read. Nothing is read from a source here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from embedding.records import CHUNK
from jobs.extract import ownership
from jobs.extract.conversations import Commit, changed_conversations
from jobs.extract.extracted import CHUNK_ROW, REJECTED_ROW, REMOVED_ROW
from jobs.extract.held_deletions import Kept
from jobs.state.frames import Frame, Frames, columns
from jobs.state.staging import staged
from jobs.state.tables import REMOVALS, TABLES

if TYPE_CHECKING:
    from jobs.extract.changes import Extraction, SourceChanges
    from jobs.extract.held_deletions import At
    from jobs.extract.readings import Readings
    from jobs.state.storage import StatePath
    from jobs.state.store import State
    from jobs.state.table_files import Wanted

_FEW_DOCUMENTS = 20_000  # read by a run, whose row groups are picked out
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
    claims: Frame
    winners: Frame
    decided: Frame
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
    frames: Frames, extraction: Extraction, changes: SourceChanges, readings: Readings, rows: Frame
) -> Iterator[Decision]:
    """Decide which partition owns each document of the ``rows`` (EXTRACTED) that were read.

    The frames of the decision are kept within the block.
    """
    state = extraction.state
    removals = readings.removals or state.count("removals") > 0
    elsewhere = changes.held_elsewhere(readings.partitions)
    protected = _protected(readings, elsewhere)
    covered = {*(at for at, found in readings.judged.items() if found.covered), *changes.gone}
    certain = covered - {at for at, found in readings.judged.items() if found.suspects}
    none = frames.local(REMOVALS, [])
    read_chunks = _rows_of(frames, rows, CHUNK_ROW, CHUNK.names)
    removed = _rows_of(frames, rows, REMOVED_ROW, REMOVALS.names) if removals else none
    wanted = _wanted(frames, changes, readings, read_chunks, removed)
    with ExitStack() as kept:
        read = ownership.Read(
            frames=frames,
            staged=read_chunks,
            removed=removed,
            chunks=kept.enter_context(_chunks(frames, state, wanted)),
            removals=frames.table(state, "removals") if removals else none,
            covered=frames.local(_COVERED, [{"source_id": s, "partition": p} for s, p in sorted(covered)]),
            certain=frames.local(_COVERED, [{"source_id": s, "partition": p} for s, p in sorted(certain)]),
            protected=frames.local(_PROTECTED, protected),
        )
        claimed = ownership.rank_owners(read, [source.source_id for source in extraction.sources])
        claims = kept.enter_context(frames.keep(claimed))
        winners = kept.enter_context(frames.keep(ownership.winning(read, claims)))
        decided = ownership.decided_by(read, winners, claims)
        overlaps: dict[At, set[str]] = {}
        for pair in frames.collect(ownership.overlapping(read, claims)).to_pylist():
            overlaps.setdefault((pair["source_id"], pair["partition"]), set()).add(pair["other"])
        yield Decision(read, claims, winners, decided, overlaps, elsewhere, removals)


@contextmanager
def _chunks(frames: Frames, state: State, wanted: Wanted | None) -> Iterator[Frame]:
    """What decides of ``chunks``; of few documents it is read once for all questions."""
    chunks = frames.table(state, "chunks", wanted=wanted)
    if wanted is None:
        yield chunks
        return
    tables = [pa.table({column: pa.array(sorted(values), pa.string())}) for column, values in wanted.items()]
    named = {table.column_names[0]: frames.local(table.schema, table) for table in tables}
    any_of = " OR ".join(f"c.{column} IN (SELECT {column} FROM {{{column}}})" for column in named)
    rows = frames.sql(f"SELECT {columns(CHUNK.names, 'c')} FROM {{chunks}} c WHERE {any_of}", chunks=chunks, **named)
    with frames.keep(rows) as kept:
        yield kept


def _wanted(frames: Frames, changes: SourceChanges, readings: Readings, chunks: Frame, removed: Frame) -> Wanted | None:
    """What decides of ``chunks``: the documents that were read, and what the partitions held that were read or went.

    None where these are many.
    """
    if sum(partition["documents"] for partition in readings.partitions.values()) > _FEW_DOCUMENTS:
        return None
    named = frames.sql("SELECT doc_id FROM {chunks} UNION SELECT doc_id FROM {removed}", chunks=chunks, removed=removed)
    return {
        "doc_id": frames.collect(named)["doc_id"].to_pylist(),
        "partition": {partition for _, partition in (*readings.partitions, *changes.gone)},
    }


def _rows_of(frames: Frames, rows: Frame, kind: str, names: Sequence[str]) -> Frame:
    return frames.sql(f"SELECT {columns(names)} FROM {{rows}} WHERE row = '{kind}'", rows=rows)


def _protected(readings: Readings, elsewhere: Mapping[At, Sequence[str]]) -> list[dict[str, object]]:
    """Rows of _PROTECTED: documents that were seen, or may have been, and could not be read."""
    spared = {at: {*found.named, *found.waiting} for at, found in readings.judged.items()} | dict(elsewhere)
    return [
        {"doc_id": doc, "source_id": at[0], "partition": at[1]} for at, docs in spared.items() for doc in sorted(docs)
    ]


def commit(extraction: Extraction, changes: SourceChanges, readings: Readings, decision: Decision) -> Committed:
    """Bring ``chunks`` and ``removals`` up to date with what was decided."""
    state, read, decided = extraction.state, decision.read, decision.decided
    frames, work = read.frames, state.work(extraction.run_id)
    done = Committed(decision.overlaps)
    if decision.removals:
        _merge(frames, state, "removals", ownership.changed_removals(read), work)
    new = ownership.new_chunks(read, decision.winners)
    changed = ownership.changed_chunks(read, decision.winners, decided)
    if not extraction.chunking.conversations and changes.read_otherwise:
        changed = frames.sql(
            f"SELECT * FROM {{changed}} UNION ALL SELECT {columns(CHUNK.names)}, TRUE AS _delete FROM {{chunks}} "
            "WHERE kind = 'thread'",  # made while there were to be any
            changed=changed,
            chunks=frames.table(state, "chunks"),
        )
    if extraction.chunking.conversations:
        unsure = changes.unsure(readings.partitions, extraction.chunking)
        _commit_with_conversations(extraction, decision, new, changed, unsure)
    else:
        frames.write_parts(state, "chunks", new)
        _merge(frames, state, "chunks", changed, work)
    if done.overlaps:
        done.lost = [_lost(loser) for loser in frames.collect(ownership.losing(read, decision.claims)).to_pylist()]
    done.kept = _kept(readings, decision)
    if decision.elsewhere:
        owners = frames.collect(ownership.handed_on(read, decided)).to_pylist()
        done.again = {(r["source_id"], r["partition"]) for r in owners} & decision.elsewhere.keys()
    if held := changes.held:
        ours = frames.local(_DOCUMENT, [{"doc_id": doc} for doc in sorted(held)])
        freed = frames.sql(
            "SELECT o.doc_id FROM {ours} o SEMI JOIN {decided} d ON o.doc_id = d.doc_id", ours=ours, decided=decided
        )
        done.let_go = set(frames.collect(freed)["doc_id"].to_pylist())
    return done


def _commit_with_conversations(
    extraction: Extraction, decision: Decision, new: Frame, changed: Frame, unsure: Sequence[At]
) -> None:
    """Bring ``chunks`` up to date, and the conversations that these messages make.

    Where a run died after the first of the two commits, nothing is new in its partitions and their conversations are
    not yet right: of those (``unsure``) all that counts is looked at.
    """
    state, frames = extraction.state, decision.read.frames
    work = state.work(extraction.run_id)
    folders = [work / "changes-chunks", work / "changes-conversations"]
    rows = frames.write(changed, folders[0])
    changes = frames.files(TABLES["chunks"].changes, staged(folders[0]))
    with frames.keep(new) as fresh:
        again = frames.sql(
            f"SELECT {columns(CHUNK.names, 'w')} FROM {{winners}} w SEMI JOIN {{unsure}} u "
            "ON w.source_id = u.source_id AND w.partition = u.partition",
            winners=decision.winners,
            unsure=frames.local(_COVERED, [{"source_id": s, "partition": p} for s, p in unsure]),
        )
        messages = Commit(state, decision.read.chunks, again, fresh, changes)
        with changed_conversations(frames, messages, extraction.chunking) as (made, altered):
            rows += frames.write(altered, folders[1])
            added = frames.sql("SELECT * FROM {fresh} UNION ALL SELECT * FROM {made}", fresh=fresh, made=made)
            frames.write_parts(state, "chunks", added)
    if rows:  # one transaction: a message goes, and with it what it said in a conversation
        state.merge("chunks", _staged_rows(*folders))


def _merge(frames: Frames, state: State, name: str, changes: Frame, work: StatePath) -> None:
    """Commit the changes of a table, all in one transaction."""
    folder = work / f"changes-{name}"
    if frames.write(changes, folder):
        state.merge(name, _staged_rows(folder))


def _staged_rows(*folders: StatePath) -> pa.RecordBatchReader:
    found = [staged(folder) for folder in folders]
    return ds.dataset([one.data() for one in found if one.files]).scanner().to_reader()


def _kept(readings: Readings, decision: Decision) -> dict[At, list[Kept]]:
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
    frames = decision.read.frames
    frame = ownership.staying(
        decision.read, frames.local(_HOLDING, holding), frames.local(_NAMED, named), decision.decided
    )
    kept: dict[At, list[Kept]] = {}
    for row in frames.collect(frame).to_pylist():
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
