"""The command ``explain``: where a document is, and why it is there or is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

import pyarrow.compute as pc

from embedding.ids import MAX_DOC_ID, bounded_id, document_id, file_id, is_cut
from embedding.records import Removed
from indexers.base import SearchRequest
from jobs.bodies.explain import (
    ExplainBody,
    ExplainedChunk,
    Held,
    PurgeRuleBody,
    QuarantinedRecord,
    Reading,
    RemovalBody,
    State,
    Verdict,
)
from jobs.scope import iso
from jobs.sources import identity, qualifiers
from jobs.state.purge_rules import PurgeRule, rule_of
from jobs.state.quarantine import EMBED

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

At = tuple[str, str]  # source_id, partition
_UNCUT = MAX_DOC_ID - 40  # bytes of an id that are there however it was cut
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class _Found:
    """What the state has of a document."""

    chunks: Sequence[Row]
    ledger: Sequence[Row]
    quarantine: Sequence[Row]
    removals: Sequence[Row]
    rules: Sequence[tuple[str, PurgeRule]]  # each with its run
    readings: Mapping[At, Row]
    held: bool
    read: bool  # its file was, whatever came of it


def explain(pipeline: Pipeline, team: str, wanted: str, *, text: bool = False) -> ExplainBody:
    """Explain a document, or the document of a chunk, of one team; with ``text`` its text is shown.

    An empty ``team`` is the one that the id names. Reads the rows of that team alone. What is another team's is not
    looked up: it is absent.
    """
    doc_id = document_id(wanted)
    team = team or unquote(doc_id.partition("/")[0])
    found = _look(pipeline, team, doc_id) if doc_id.startswith(f"{quote(team, '')}/") else _NOTHING
    first = next(iter(found.chunks), None)
    chunks = _chunks(pipeline, found, team, text=text)
    verdict, because = _verdict(found, chunks)
    told = first or next(iter(found.removals), None) or next(iter(found.quarantine), None) or {}
    return ExplainBody(
        id=doc_id,
        team_id=team,
        state=_STATES[verdict],
        verdict=verdict,
        because=because,
        kind=told.get("kind") or "",
        channel_id=told.get("channel_id") or "",
        created_at=_moment(told.get("created_at")),
        version=_moment(first["version"]) if first else None,
        readings=_readings(pipeline, found),
        chunks=chunks,
        left_over=_left_over(pipeline, found, team),
        quarantine=tuple(_quarantined(row) for row in found.quarantine),
        purges=tuple(
            PurgeRuleBody(
                run_id=run_id, purged_at=iso(rule.purged_at), channel_id=rule.channel_id, before=_moment(rule.before)
            )
            for run_id, rule in found.rules
        ),
        removals=tuple(
            RemovalBody(
                source_id=row["source_id"],
                partition=row["partition"],
                deleted=row["deleted"],
                version=iso(row["version"]),
            )
            for row in found.removals
        ),
    )


# -- looking -----------------------------------------------------------------------------------------------------------

_STATES: dict[Verdict, State] = {
    "published": "published",
    "waiting": "pending",
    "lost": "pending",
    "held_back": "held_back",
    "quarantined": "quarantined",
    "ignored": "unknown",
    "purged": "purged",
    "deleted": "unknown",
    "empty": "unknown",
    "absent": "unknown",
}
_NOTHING = _Found((), (), (), (), (), {}, held=False, read=False)


def _look(pipeline: Pipeline, team: str, doc_id: str) -> _Found:
    state, of_team = pipeline.state, [("team_id", "in", [team])]
    of_document = pc.starts_with(pc.field("chunk_id"), f"{doc_id}#")
    chunks = state.dataset("chunks", of_team).to_table(None, pc.field("doc_id") == doc_id)
    chunks = chunks.sort_by("chunk_no").to_pylist()
    ledger = state.dataset("published", of_team).to_table(None, of_document).to_pylist()
    removals = state.read("removals", where=(pc.field("team_id") == team) & (pc.field("doc_id") == doc_id)).to_pylist()
    owners = {(row["source_id"], row["partition"]) for row in (*chunks, *removals)}
    others = _begin_alike(pipeline, team, doc_id) if is_cut(doc_id) else set()
    readings: dict[At, Row] = {}
    named: set[At] = set()
    held = read = False
    files = _files(pipeline, team)
    columns = ["source_id", "partition", "overlaps", "run_id", "held", "named", "reader"]
    for row in state.read("sources", columns).to_pylist():
        at = (row["source_id"], row["partition"])
        overlaps = {tuple(other.split("\0", 1)) for other in row["overlaps"] or ()}
        mine = doc_id in (row["held"] or ()) or doc_id in (row["named"] or ())
        is_file = at[0] in files and at not in others and _is_file(files[at[0]] + at[1], doc_id)
        if at in owners or overlaps & owners or mine or (is_file and not owners):
            readings[at] = row
        read |= is_file and row["reader"] is not None
        held |= doc_id in (row["held"] or ())
        if doc_id in (row["named"] or ()):
            named.add(at)
    rows = state.read("quarantine", where=pc.field("team_id") == team).to_pylist()
    quarantine = [row for row in rows if _concerns(row, doc_id, owners, named)]
    version = max((row["version"] for row in (*chunks, *removals)), default=0)
    channel, created = next(
        ((row["channel_id"], row["created_at"]) for row in (*chunks, *removals, *quarantine)), (_channel(doc_id), None)
    )
    gone = Removed(doc_id, team, channel or "", "message", created or 0, version, "")
    rows = state.read("purges", where=pc.field("team_id") == team).to_pylist()
    purges = [(row["run_id"], rule_of(row)) for row in rows]
    rules = [(run_id, rule) for run_id, rule in purges if rule.covers(gone) and _told(rule, created)]
    return _Found(chunks, ledger, quarantine, removals, rules, readings, held, read)


def _begin_alike(pipeline: Pipeline, team: str, doc_id: str) -> set[At]:
    """Where other documents are read from whose ids begin as a cut one does, which tells no file by its name."""
    alike = pc.starts_with(pc.field("doc_id"), doc_id[:_UNCUT]) & (pc.field("doc_id") != doc_id)
    rows = pipeline.state.dataset("chunks", [("team_id", "in", [team])]).to_table(["source_id", "partition"], alike)
    return {(row["source_id"], row["partition"]) for row in rows.to_pylist()}


def _files(pipeline: Pipeline, team: str) -> dict[str, str]:
    """How the ids of files begin that are read from each source of the team."""
    entries = pipeline.config.sources
    return {
        identity(entry): file_id(team, "", qualifier)
        for entry, qualifier in zip(entries, qualifiers(entries), strict=True)
        if entry.kind == "files" and entry.team_id == team
    }


def _told(rule: PurgeRule, created: int | None) -> bool:
    """Whether a rule that names no document says enough of one whose time is not known."""
    return bool(rule.ids) or rule.before is None or created is not None


def _channel(doc_id: str) -> str:
    """The channel that the id of a message says."""
    parts = doc_id.split("/")
    return unquote(parts[2]) if len(parts) == 4 and parts[1] in "mc" else ""


def _concerns(row: Row, doc_id: str, owners: set[At], named: set[At]) -> bool:
    """Whether a row of the quarantine is about this document, or about the partition that it is read from."""
    if row["step"] == EMBED:
        return document_id(row["key"]) == doc_id
    at, key = (row["source_id"], row["partition"]), row["key"]
    _, kind, rest = (*doc_id.split("/", 2), "", "")[:3]
    tail = unquote(rest.rpartition("/")[2])
    if at in named:
        return key in ("", tail) or row["kind"] != "message"
    if kind == "f":  # a file is a partition; the name of its source may stand before it
        start = doc_id[: len(doc_id) - len(rest)] + (rest.partition("/")[0] + "/" if rest.startswith("@") else "")
        told = start + row["partition"]
        return _is_file(told, doc_id)
    if at in owners:
        return key in ("", tail)
    channel, _, day = row["partition"].partition("/")
    # A day of its channel that could not be read at all may hold it.
    return kind == "m" and channel == rest.split("/")[0] and key in (tail, "") and (bool(key) or day == _day(tail))


def _is_file(told: str, doc_id: str) -> bool:
    """Whether an id that is put together of a partition's name is that of the document."""
    # Where a long name is cut, either id ends with a hash of its own.
    return told[:_UNCUT] == doc_id[:_UNCUT] if is_cut(doc_id) else bounded_id(told) == doc_id


def _day(moment: str) -> str:
    """The day (UTC) of a message's timestamp, in seconds; empty for what is none."""
    seconds = moment.partition(".")[0]
    return iso(int(seconds) * 1_000_000)[:10] if seconds.isdecimal() and len(seconds) <= 11 else ""


# -- telling -----------------------------------------------------------------------------------------------------------


def _verdict(found: _Found, chunks: Sequence[ExplainedChunk]) -> tuple[Verdict, str]:
    """The first that is true is what a person asks for."""
    since = max((row["first_seen"] for row in found.quarantine), default=0)
    if found.rules and not chunks and all(rule.purged_at >= since for _, rule in found.rules):
        return "purged", f"a purge covers it (run {found.rules[0][0]}); what is written later is a new document"
    if found.held:
        return "held_back", "it is missing in its source, where a record that cannot be read may be it: it stays"
    if chunks:
        return _of_chunks(found, chunks)
    if found.quarantine:
        row = next((row for row in found.quarantine if not row["ignored"]), found.quarantine[0])
        said = f"{row['reason']}: {row['detail'] or 'no text was read'}"
        return ("ignored", f"{said}; nothing of this kind is searched") if row["ignored"] else ("quarantined", said)
    if found.removals:
        gone = found.removals[0]["deleted"]
        return "deleted", "its source says that it was deleted" if gone else "its newest version has no text"
    if found.read:
        rest = "; the next run deletes its rows" if found.ledger else ""
        return "empty", f"empty_text: its file was read, and has no text to embed{rest}"
    if found.ledger:
        return "deleted", "it is in no source any more; the next run deletes its rows"
    return "absent", "no source has shown a document of this team by this id; ids are case-sensitive"


def _of_chunks(found: _Found, chunks: Sequence[ExplainedChunk]) -> tuple[Verdict, str]:
    lacking = [chunk for chunk in chunks if not any(one.live and one.row and one.current for one in chunk.indexes)]
    if not lacking:
        return "published", "all its chunks are in the live version as they are to be"
    these = f"{len(lacking)} of {len(chunks)} chunks"
    if any(one.live and one.current and not one.row for chunk in lacking for one in chunk.indexes):
        return "lost", f"{these} are in the ledger and not in the index: run `embedmill verify --repair`"
    if failed := [row for row in found.quarantine if not row["ignored"]]:
        return "quarantined", f"{these}: {failed[0]['reason']}"
    return "waiting", f"{these} are not in the live version yet; the next run writes them"


def _chunks(pipeline: Pipeline, found: _Found, team: str, *, text: bool) -> tuple[ExplainedChunk, ...]:
    ids = [row["chunk_id"] for row in found.chunks]
    vectors = _vectors(pipeline, team, {row["content_hash"] for row in found.chunks})
    ledger = {(row["index"], row["chunk_id"]): row for row in found.ledger}
    there = _there(pipeline, team, ids)
    live = pipeline.live()
    made = []
    for row in found.chunks:
        versions = sorted({*there, *(index for index, chunk in ledger if chunk == row["chunk_id"])})
        indexes = []
        for version in versions:
            noted = ledger.get((version, row["chunk_id"]))
            same = noted is not None and all(noted[name] == row[name] for name in ("content_hash", "meta_hash"))
            current = same and noted is not None and noted["space_id"] == pipeline.space_id
            indexes.append(
                Held(
                    version=version,
                    live=version == live,
                    row=row["chunk_id"] in there.get(version, ()),
                    ledger=noted is not None,
                    current=current,
                    run_id=noted["run_id"] if noted else "",
                )
            )
        made.append(
            ExplainedChunk(
                chunk_id=row["chunk_id"],
                tokens=row["tokens"],
                content_hash=row["content_hash"],
                meta_hash=row["meta_hash"],
                space_id=pipeline.space_id,
                vector_run=vectors.get(row["content_hash"], ""),
                indexes=tuple(indexes),
                text=row["text"] if text else None,
            )
        )
    return tuple(made)


def _left_over(pipeline: Pipeline, found: _Found, team: str) -> dict[str, tuple[str, ...]]:
    """Rows of versions that are not to have them: what the ledger knows and the desired state does not."""
    desired = {row["chunk_id"] for row in found.chunks}
    known = sorted({row["chunk_id"] for row in found.ledger} - desired)
    return {version: tuple(sorted(ids)) for version, ids in _there(pipeline, team, known).items() if ids}


def _there(pipeline: Pipeline, team: str, chunk_ids: Sequence[str]) -> dict[str, set[str]]:
    """Which of these rows each version of the index holds."""
    if not chunk_ids or not pipeline.has_index():
        return {}
    index, request = pipeline.index(), SearchRequest(team)
    return {name: {hit.chunk_id for hit in index.fetch(name, chunk_ids, request)} for name in index.versions()}


def _vectors(pipeline: Pipeline, team: str, hashes: set[str]) -> dict[str, str]:
    """The run that encoded each text in the configured space."""
    if not hashes:
        return {}
    rows = pipeline.state.dataset("vectors", [("space_id", "=", pipeline.space_id), ("team_id", "in", [team])])
    table = rows.to_table(["content_hash", "run_id"], pc.field("content_hash").isin(sorted(hashes)))
    return {row["content_hash"]: row["run_id"] for row in table.to_pylist()}


def _readings(pipeline: Pipeline, found: _Found) -> tuple[Reading, ...]:
    owners = {(row["source_id"], row["partition"]) for row in found.chunks}
    runs = _started(pipeline, {row["run_id"] for row in found.readings.values()})
    return tuple(
        Reading(
            source_id=at[0],
            partition=at[1],
            owns=at in owners,
            run_id=row["run_id"],
            read_at=runs.get(row["run_id"], ""),
        )
        for at, row in sorted(found.readings.items())
    )


def _started(pipeline: Pipeline, run_ids: set[str]) -> dict[str, str]:
    if not run_ids:
        return {}
    rows = pipeline.state.read("runs", ["run_id", "started_at"], pc.field("run_id").isin(sorted(run_ids)))
    return {row["run_id"]: iso(row["started_at"]) for row in rows.to_pylist()}


def _quarantined(row: Row) -> QuarantinedRecord:
    return QuarantinedRecord(
        source_id=row["source_id"],
        partition=row["partition"],
        key=row["key"],
        step=row["step"],
        reason=row["reason"],
        detail=row["detail"] or "",
        attempts=row["attempts"],
        first_seen=iso(row["first_seen"]),
        last_seen=iso(row["last_seen"]),
        ignored=bool(row["ignored"]),
    )


def _moment(at: int | None) -> str | None:
    return None if at is None else iso(at)
