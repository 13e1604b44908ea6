"""Reads sampled partitions from their source again and compares what they show with the index.

The other checks of ``verify`` compare tables and index with each other: where all of them are wrong in the same way,
only the source itself tells. What partitions show is decided by a run's own reader; which event of a document counts,
by the same order: the newest version, a deletion before a text, then the later source, then the later partition.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from embedding.ids import document_id, document_ids
from indexers.rows import SCAN
from jobs.extract.broken_conversations import conversations_with
from jobs.extract.changes import Extraction, changed
from jobs.extract.extracted import CHUNK_ROW, REJECTED_ROW, REMOVED_ROW, TO_READ, to_read
from jobs.extract.partition_reader import reader
from jobs.extract.unlisted_partitions import find_unlisted
from jobs.sources.base import NameMap, Partition
from jobs.state.frames import columns
from jobs.state.purge_rules import purge_rules
from jobs.state.staging import staged

if TYPE_CHECKING:
    from jobs.state.frames import Frame, Frames
    from jobs.state.storage import StatePath
    from jobs.state.store import State

PARTITIONS = 64
BYTES = 32_000_000  # of source, together; a larger partition is left to another check
_AT = pa.schema([("source_id", pa.string()), ("partition", pa.string())])
_DOCUMENT = pa.schema([("doc_id", pa.string())])
_CHUNK = [
    "doc_id",
    "chunk_id",
    "team_id",
    "channel_id",
    "kind",
    "created_at",
    "content_hash",
    "version",
    "source_id",
    "partition",
]
_REMOVAL = ["doc_id", "team_id", "channel_id", "kind", "created_at", "version", "deleted", "source_id", "partition"]

At = tuple[str, str]  # source_id, partition


class Wrong(NamedTuple):
    """A row of the index that the sources do not show so; ``gone`` if they do not show its chunk at all."""

    team_id: str
    chunk_id: str
    at: At
    gone: bool


@dataclass(frozen=True, slots=True)
class Event:
    """What a partition says of a document: its text as hashes by chunk id, or that it is gone (no chunks)."""

    version: int
    rank: int  # of the source in the configuration
    at: At
    deleted: bool = False
    chunks: Mapping[str, str] = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)  # team_id, channel_id, kind, created_at

    @property
    def order(self) -> tuple[int, bool, int, str]:
        """The greater one counts."""
        return self.version, self.deleted, self.rank, self.at[1]


@dataclass(slots=True)
class Shown:
    """What the partitions that were read say: events by document, and what nothing may be concluded of."""

    events: dict[str, list[Event]] = field(default_factory=dict)
    unreadable: set[str] = field(default_factory=set)  # documents
    open: set[At] = field(default_factory=set)  # partitions that may hold more than they show


# -- which partitions --------------------------------------------------------------------------------------------------


def choose(extraction: Extraction, wanted: Iterable[At]) -> list[tuple[int, Partition]]:
    """Choose the partitions to read: those that are ``wanted``, then others in an order that changes with the run.

    All that are as they were read last, or as many as the bounds allow.
    """
    known, scope, chunking = extraction.known(), extraction.scope, extraction.chunking
    first = set(wanted)
    listed: list[tuple[bool, bytes, int, Partition]] = []
    for number, source in enumerate(extraction.sources):
        partitions, names = source.listing().partitions, NameMap(source.names)
        for partition in partitions:
            at = (source.source_id, partition.key)
            if scope.may_hold(source, partition) and not changed(known.get(at), partition, source, names, chunking):
                place = _place(extraction.run_id, at)
                listed.append((at not in first, place, number, partition))
    chosen: list[tuple[int, Partition]] = []
    size = 0
    for _, _, number, partition in sorted(listed, key=lambda one: one[:2]):
        if len(chosen) < PARTITIONS and size + partition.size <= BYTES:
            chosen.append((number, partition))
            size += partition.size
    return chosen


def _place(run_id: str, at: At) -> bytes:
    """A partition's place in a run's order."""
    return hashlib.blake2b(repr((run_id, at)).encode("utf-8", "backslashreplace"), digest_size=8).digest()


# -- what they show ----------------------------------------------------------------------------------------------------


def read_again(extraction: Extraction, chosen: Sequence[tuple[int, Partition]]) -> Shown:
    """Read the partitions in this process, in bounded memory: of a text only its hash is kept."""
    sources = extraction.sources
    rank = {source.source_id: n for n, source in enumerate(sources)}
    shown = Shown()
    texts: dict[tuple[str, At, int], Event] = {}
    asked = pa.Table.from_pylist([to_read(n, partition) for n, partition in chosen], schema=TO_READ).to_batches()
    for batch in reader(list(sources), extraction.chunking, purge_rules(extraction.state))(iter(asked)):
        for row in batch.drop_columns(["text", "meta"]).to_pylist():
            at = (row["source_id"], row["partition"])
            if row["row"] == CHUNK_ROW:
                key = (row["doc_id"], at, row["version"])
                if key not in texts:
                    texts[key] = Event(row["version"], rank[at[0]], at, chunks={}, about=row)
                    shown.events.setdefault(row["doc_id"], []).append(texts[key])
                texts[key].chunks[row["chunk_id"]] = row["content_hash"]  # type: ignore[index]
            elif row["row"] == REMOVED_ROW:
                event = Event(row["version"], rank[at[0]], at, row["deleted"], about=row)
                shown.events.setdefault(row["doc_id"], []).append(event)
            elif row["row"] == REJECTED_ROW:
                if not row["ignored"] and row["doc_id"]:
                    shown.unreadable.add(row["doc_id"])
                elif not row["ignored"]:
                    shown.open.add(at)
            elif not row["whole"]:
                shown.open.add(at)
    return shown


# -- comparing ---------------------------------------------------------------------------------------------------------


def differing(
    shown: Shown, stored: Mapping[str, Sequence[Event]], indexed: Mapping[str, Mapping[str, str]], read: set[At]
) -> Iterator[tuple[str, Event | None, Event | None, set[str]]]:
    """Documents that the index does not hold as their sources show them, in tables and index alike.

    ``stored`` are the events that the tables know by document, of any partition; ``indexed`` the content hash by chunk
    id that the index holds, by document; ``read`` the partitions of ``shown``. Yields the document, what counts now,
    what the tables have, and the chunks that differ. What the tables do not have so is another check's to find.
    """
    for doc in sorted(shown.events.keys() | stored.keys()):
        if doc in shown.unreadable:
            continue
        known = [event for event in stored.get(doc, ()) if event.chunks]
        believed = max(known, key=lambda event: event.order, default=None)
        elsewhere = [event for event in stored.get(doc, ()) if event.at not in read]
        now = max([*shown.events.get(doc, ()), *elsewhere], key=lambda event: event.order, default=None)
        if now is None and believed is not None and believed.at in shown.open:
            continue
        wanted = now.chunks if now is not None else {}
        if wanted == (believed.chunks if believed is not None else {}):
            continue
        held = indexed.get(doc, {})
        wrong = {chunk for chunk in wanted.keys() | held.keys() if wanted.get(chunk) != held.get(chunk)}
        if wrong:
            yield doc, now, believed, wrong


def check_sources(
    frames: Frames, extraction: Extraction, *, scan: StatePath, sample: Sequence[str]
) -> tuple[list[Wrong], int]:
    """Compare what the index holds (SCAN, staged in ``scan``) with sampled partitions of its sources.

    ``sample`` are chunk ids whose partitions come first. Returns the rows that differ, and how many partitions were
    read. Partitions that changed since they were read are a run's business, also those that change meanwhile; those
    that are in no table of what was read count as read and empty.
    """
    state, sources = extraction.state, extraction.sources
    near = frames.sql(
        "SELECT DISTINCT c.source_id, c.partition FROM {chunks} c SEMI JOIN {wanted} w ON c.chunk_id = w.doc_id",
        chunks=frames.table(state, "chunks"),
        wanted=frames.local(_DOCUMENT, [{"doc_id": chunk} for chunk in sample]),
    )
    owners = frames.collect(near).to_pylist() if sample else []
    first = {(row["source_id"], row["partition"]) for row in owners}
    chosen = choose(extraction, first)
    lost = find_unlisted(frames, state, sources)
    if not chosen and not lost:
        return [], 0
    shown = read_again(extraction, chosen)
    read = {(sources[n].source_id, p.key) for n, p in chosen} | lost
    _leave_open(state, shown, read)
    stored = _stored(frames, state, [source.source_id for source in sources], shown, read)
    indexed = _indexed(scan, {*shown.events, *stored})
    found = []
    for doc, now, believed, wrong in differing(shown, stored, indexed, read):
        event = now or believed
        assert event is not None
        about = event.about
        if extraction.scope.covers(about["team_id"], about["channel_id"], about["kind"], about["created_at"]):
            said = [one.at for one in (now, believed, *shown.events.get(doc, ())) if one is not None]
            at = next((place for place in said if place in read), event.at)
            found += [Wrong(about["team_id"], chunk, at, not (now and chunk in now.chunks)) for chunk in sorted(wrong)]
    if found:  # was the source changed while it was read?
        again = {(sources[n].source_id, p.key) for n, p in choose(extraction, read)}
        found = [wrong for wrong in found if wrong.at in again or wrong.at in lost]
    return found, len(chosen)


def read_anew(state: State, wrong: Sequence[Wrong], gone: Sequence[Wrong], run_id: str) -> int:
    """Have the next run read again the partitions of ``wrong`` rows, and drop the texts that are ``gone``.

    The conversations that hold these texts go with them. Returns how many partitions.

    Call it only while holding the lease.
    """
    at = {one.at for one in wrong}
    rows = [r for r in state.read("sources").to_pylist() if (r["source_id"], r["partition"]) in at]
    state.change("sources", [{**row, "fingerprint": "", "run_id": run_id, "_delete": False} for row in rows])
    dropped = {(one.team_id, one.chunk_id) for one in gone}
    for team in {one.team_id for one in gone}:
        documents = {document_id(one.chunk_id) for one in gone if one.team_id == team}
        dropped |= {(team, chunk) for chunk in conversations_with(state, team, documents)}
    state.change("chunks", [{"team_id": team, "chunk_id": chunk, "_delete": True} for team, chunk in sorted(dropped)])
    return len(rows)


def _leave_open(state: State, shown: Shown, read: set[At]) -> None:
    """What is held back, and is said to be, is no difference."""
    for row in state.read("sources", ["source_id", "partition", "held_back", "unlisted"]).to_pylist():
        if (row["held_back"] or row["unlisted"]) and (row["source_id"], row["partition"]) in read:
            shown.open.add((row["source_id"], row["partition"]))


def _stored(frames: Frames, state: State, order: Sequence[str], shown: Shown, read: set[At]) -> dict[str, list[Event]]:
    """What the tables know of the documents that were shown, and of those that the partitions own."""
    rank = {source: n for n, source in enumerate(order)}
    chunks = frames.table(state, "chunks")
    about = frames.sql(
        "SELECT doc_id FROM {docs} UNION SELECT c.doc_id FROM {chunks} c "
        "SEMI JOIN {own} o ON c.source_id = o.source_id AND c.partition = o.partition",
        docs=frames.local(_DOCUMENT, [{"doc_id": doc} for doc in sorted(shown.events)]),
        chunks=chunks,
        own=frames.local(_AT, [{"source_id": source, "partition": key} for source, key in sorted(read)]),
    )
    found: dict[str, list[Event]] = {}
    texts: dict[tuple[str, At, int], Event] = {}
    with frames.keep(about) as documents:

        def known(rows: Frame, names: Sequence[str]) -> list[dict[str, Any]]:
            query = f"SELECT {columns(names, 'r')} FROM {{rows}} r SEMI JOIN {{about}} a ON r.doc_id = a.doc_id"
            answer: list[dict[str, Any]] = frames.collect(frames.sql(query, rows=rows, about=documents)).to_pylist()
            return answer

        for row in known(chunks, _CHUNK):
            at = (row["source_id"], row["partition"])
            key = (row["doc_id"], at, row["version"])
            if key not in texts:
                texts[key] = Event(row["version"], rank.get(at[0], -1), at, chunks={}, about=row)
                found.setdefault(row["doc_id"], []).append(texts[key])
            texts[key].chunks[row["chunk_id"]] = row["content_hash"]  # type: ignore[index]
        for row in known(frames.table(state, "removals"), _REMOVAL) if state.count("removals") else ():
            at = (row["source_id"], row["partition"])
            event = Event(row["version"], rank.get(at[0], -1), at, bool(row["deleted"]), about=row)
            found.setdefault(row["doc_id"], []).append(event)
    return found


def _indexed(scan: StatePath, documents: set[str]) -> dict[str, dict[str, str]]:
    """Content hashes by chunk id, by document, of what the index holds of some documents."""
    wanted = pa.array(sorted(documents), pa.string())
    found: dict[str, dict[str, str]] = {}
    for batch in staged(scan).data(SCAN).to_batches(columns=["chunk_id", "content_hash"]):
        docs = document_ids(batch["chunk_id"])
        here = pc.is_in(docs, wanted)
        rows = zip(
            docs.filter(here).to_pylist(),
            batch["chunk_id"].filter(here).to_pylist(),
            batch["content_hash"].filter(here).to_pylist(),
            strict=True,
        )
        for doc, chunk, content in rows:
            found.setdefault(doc, {})[chunk] = content
    return found
