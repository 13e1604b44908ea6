"""Which documents a model was trained on, told by nobody without the state's key, and found again by a purge."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.state.purge_rules import PurgeRule

SCHEMA = pa.schema(
    [
        ("document", pa.binary(16)),
        ("team", pa.binary(16)),
        ("channel", pa.binary(16)),
        ("created_at", pa.int64()),
    ]
)


_DAY = 86_400_000_000  # µs


class Seen(NamedTuple):
    """A document of a training: ``created_at`` in µs. A manifest has the day alone: the time would name a message."""

    doc_id: str
    team_id: str
    channel_id: str
    created_at: int


def manifest_of(key: bytes, seen: Iterable[Seen]) -> pa.Table:
    """A row for each document, in an order that tells nothing; see SCHEMA."""
    rows = sorted(
        (
            _hashed(key, "d", one.doc_id),
            _hashed(key, "t", one.team_id),
            _hashed(key, "c", one.channel_id),
            one.created_at - one.created_at % _DAY,
        )
        for one in set(seen)
    )
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * len(SCHEMA)
    return pa.table(dict(zip(SCHEMA.names, columns, strict=True)), SCHEMA)


def digest_of(manifest: pa.Table) -> str:
    """Hex digest of a manifest's rows."""
    sink = io.BytesIO()
    pq.write_table(manifest.combine_chunks(), sink, compression="none")
    return hashlib.sha256(sink.getvalue()).hexdigest()[:32]


def purged(manifest: pa.Table, rules: Sequence[PurgeRule], key: bytes, documents: Collection[str] = ()) -> int:
    """How many of its documents a purge covers, or has removed (``documents``), wherever they were by then.

    Those of the day on which a purge ends count as covered.
    """
    removed = pa.array([_hashed(key, "d", doc_id) for doc_id in documents], pa.binary(16))
    hit = pa.array([False] * len(manifest), pa.bool_())
    for rule in rules:
        covered = pc.equal(manifest["team"], pa.scalar(_hashed(key, "t", rule.team_id), pa.binary(16)))
        if rule.channel_id:
            of_channel = pc.equal(manifest["channel"], pa.scalar(_hashed(key, "c", rule.channel_id), pa.binary(16)))
            covered = pc.and_(covered, of_channel)
        if rule.ids:
            named = pa.array([_hashed(key, "d", doc_id) for doc_id in rule.ids], pa.binary(16))
            covered = pc.and_(covered, pc.is_in(manifest["document"], named))
        if rule.before is not None:
            covered = pc.and_(covered, pc.less(manifest["created_at"], rule.before))
        hit = pc.or_(hit, covered)
    hit = pc.or_(hit, pc.is_in(manifest["document"], removed))
    return int(pc.sum(hit).as_py() or 0)


def _hashed(key: bytes, kind: str, value: str) -> bytes:
    return hashlib.blake2b(f"{kind}\0{value}".encode(), key=key, digest_size=16).digest()
