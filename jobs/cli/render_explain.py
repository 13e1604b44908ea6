"""What a person reads of ``explain``: the verdict first, then what it follows from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.cli.render import table

if TYPE_CHECKING:
    from jobs.bodies.explain import ExplainBody, ExplainedChunk, Held


def explain(body: ExplainBody) -> str:
    """The verdict, and a line for everything that is known."""
    lines = [f"{body.id}: {body.verdict}; {body.because}", table(list(_rows(body)))]
    texts = [(chunk.chunk_id, chunk.text) for chunk in body.chunks if chunk.text is not None]
    lines += [f"\n{chunk_id}\n{text}" for chunk_id, text in texts]
    return "\n".join(line for line in lines if line)


def _rows(body: ExplainBody) -> Iterator[tuple[str, str]]:
    if body.kind:
        when = f", created {body.created_at}" if body.created_at else ""
        edited = f", last edited {body.version}" if body.version not in (None, body.created_at) else ""
        yield "document", f"{body.kind} in channel {body.channel_id or '(none)'}{when}{edited}"
    for reading in body.readings:
        what = "read from" if reading.owns or not body.chunks else "also in"
        at = f" at {reading.read_at}" if reading.read_at else ""
        yield what, f"{reading.source_id} {reading.partition}, by run {reading.run_id}{at}"
    for chunk in body.chunks:
        yield "chunk", _chunk(chunk)
        for held in chunk.indexes:
            yield "", f"{held.version}{' (live)' if held.live else ''}: {_held(held)}"
    for version, ids in body.left_over.items():
        yield "left over", f"{version}: {len(ids)} rows that the next run deletes"
    for row in body.quarantine:
        where = f"{row.source_id} {row.partition}" + (f", record {row.key}" if row.key else "")
        said = f": {row.detail}" if row.detail else ""
        tried = f"tried {row.attempts} time" + "s" * (row.attempts != 1)
        yield (
            "ignored" if row.ignored else "quarantine",
            f"{row.reason}{said} ({where}; {row.step}, {tried}, since {row.first_seen})",
        )
    for purge in body.purges:
        yield "purged", f"by run {purge.run_id}: what is of a version up to {purge.purged_at} stays away"
    for removal in body.removals:
        what = "deleted" if removal.deleted else "without text"
        yield "gone", f"{what} in {removal.source_id} {removal.partition} since {removal.version}"


def _chunk(chunk: ExplainedChunk) -> str:
    vector = f"vector by run {chunk.vector_run}" if chunk.vector_run else f"no vector in space {chunk.space_id}"
    return f"{chunk.chunk_id}, {chunk.tokens} tokens, content {chunk.content_hash[:12]}, {vector}"


def _held(held: Held) -> str:
    if held.row and held.current:
        return f"there, by run {held.run_id}"
    if held.row and held.ledger:
        return f"there, as of run {held.run_id}: not what is desired now"
    if held.row:
        return "there, unknown to the ledger: `embedmill verify --repair` decides"
    return "missing, though the ledger has it: `embedmill verify --repair`" if held.ledger else "not there"
