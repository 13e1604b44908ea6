"""Rows of an index: the Arrow schemas that go in and come out, and their checks against the limits of an engine."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

MAX_MENTIONS = 1_000  # a document's further ones are left out

INDEX_ROW = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("team_id", pa.string(), nullable=False),
        pa.field("channel_id", pa.string(), nullable=False),
        pa.field("channel_name", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("chunk_no", pa.int32(), nullable=False),
        pa.field("created_at", pa.int64(), nullable=False),  # µs since the epoch, UTC
        pa.field("updated_at", pa.int64(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),  # of the source: an older one never replaces a newer
        pa.field("text", pa.string(), nullable=False),  # what a person sees
        pa.field("lexical", pa.string(), nullable=False),  # what BM25 sees
        pa.field("author", pa.string(), nullable=False),
        pa.field("author_id", pa.string(), nullable=False),
        pa.field("thread_id", pa.string(), nullable=False),  # doc_id of the thread's first message
        pa.field("title", pa.string(), nullable=False),
        pa.field("visibility", pa.string(), nullable=False),  # "public", "private", "direct" or "shared"
        pa.field("mentions", pa.list_(pa.string()), nullable=False),  # ids of people, at most MAX_MENTIONS
        pa.field("has_file", pa.bool_(), nullable=False),  # a file came with it
        pa.field("language", pa.string(), nullable=False),  # ISO 639-1, "" where it is unsure
        pa.field("meta", pa.string(), nullable=False),  # JSON object
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("meta_hash", pa.string(), nullable=False),
        pa.field("vector", pa.list_(pa.float32()), nullable=False),
    ]
)

# Not in versions of earlier releases, and what a row has in place of one.
ADDED: Mapping[str, object] = {
    "lexical": "",
    "author": "",
    "author_id": "",
    "thread_id": "",
    "title": "",
    "visibility": "",
    "mentions": [],
    "has_file": False,
    "language": "",
}

# What `scan` yields: enough to compare an index with the ledger key by key, without texts and vectors.
SCAN = pa.schema(
    [
        INDEX_ROW.field(name)
        for name in ("chunk_id", "team_id", "channel_id", "kind", "created_at", "content_hash", "meta_hash")
    ]
)


def checked_rows(
    rows: pa.RecordBatch | pa.Table, dim: int, max_bytes: Mapping[str, int]
) -> tuple[pa.Table, np.ndarray]:
    """Return the rows as one table of INDEX_ROW and their vectors as a float32 matrix (rows, dim).

    ``max_bytes``: the engine's limits by column, in UTF-8 bytes (``IndexKind.max_bytes()``).

    Raises ValueError for what an engine would store wrong in silence or refuse half-way: a key twice (Milvus 2.3
    keeps both), a vector of another dimension or with NaN, a value over its limit. These are faults of the caller.
    """
    table = pa.Table.from_batches([rows]) if isinstance(rows, pa.RecordBatch) else rows
    table = table.select(INDEX_ROW.names).cast(INDEX_ROW)
    if pc.count_distinct(table["chunk_id"]).as_py() != len(table):
        raise ValueError("a chunk_id occurs twice in one upsert")
    if pc.any(pc.greater(pc.list_value_length(table["mentions"]), MAX_MENTIONS)).as_py():
        raise ValueError(f"a row has more than {MAX_MENTIONS:,} mentions")
    for chunk_id, column in too_long(table, max_bytes).items():
        raise ValueError(f"{column} of {chunk_id[:200]} is over {max_bytes[column]} bytes")
    if pc.any(pc.not_equal(pc.list_value_length(table["vector"]), dim)).as_py():
        raise ValueError(f"a vector does not have the index's {dim} dimensions")
    parts = [chunk.flatten().to_numpy() for chunk in table["vector"].chunks]
    matrix = (np.concatenate(parts) if parts else np.empty(0, np.float32)).reshape(len(table), dim)
    if not np.isfinite(matrix).all():
        raise ValueError("a vector holds NaN or infinity")
    return table, matrix


def too_long(rows: pa.RecordBatch | pa.Table, max_bytes: Mapping[str, int]) -> dict[str, str]:
    """Map ``chunk_id`` to the first column over its limit, for the caller to quarantine.

    ``rows`` have ``chunk_id`` and columns of ``max_bytes``, which are limits in UTF-8 bytes; of a list, of each value.
    """
    found: dict[str, str] = {}
    for column, limit in max_bytes.items():
        if column not in rows.schema.names:
            continue
        values, keys = rows[column], rows["chunk_id"]
        if pa.types.is_list(values.type):
            keys, values = keys.take(pc.list_parent_indices(values)), pc.list_flatten(values)
        for chunk_id in keys.filter(pc.greater(pc.binary_length(values), limit)).to_pylist():
            found.setdefault(chunk_id, column)
    return found
