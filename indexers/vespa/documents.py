"""Rows as documents of Vespa, and documents as rows and hits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from indexers.base import Hit
from indexers.rows import SCAN
from indexers.vespa.package import FILTERS, HIT_FIELDS
from indexers.vespa.strings import restored, searchable, storable

BATCH_ROWS = 500  # that are held as Python objects while they are sent


def documents_of(table: pa.Table, vectors: np.ndarray) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows as Vespa's documents, made one by one as they are sent."""
    # Hexadecimal digits are exact, and packed ten times as fast as decimal ones.
    packed = np.ascontiguousarray(vectors, dtype=">f4")
    strings = [field.name for field in table.schema if pa.types.is_string(field.type)]
    storing = {name: searchable if name in FILTERS else storable for name in strings}
    batches = table.drop_columns(["vector"]).to_batches(max_chunksize=BATCH_ROWS)
    rows = (row for batch in batches for row in batch.to_pylist())
    for row, vector in zip(rows, packed, strict=True):
        key = row["chunk_id"]
        for name, stored in storing.items():
            row[name] = stored(row[name])
        if "mentions" in row:
            row["mentions"] = [searchable(value) for value in row["mentions"]]
        yield key, row | {"vector": {"values": vector.tobytes().hex()}}


def value_of(fields: Mapping[str, Any], name: str) -> Any:
    """A field of a document; Vespa leaves out what is empty or nought."""
    if pa.types.is_string(SCAN.field(name).type):
        return restored(fields.get(name, ""))
    return fields.get(name, 0)


def hit_of(document: Mapping[str, Any], score: float) -> Hit:
    """A hit from the fields of a document or of a query's answer; what is not among them is "" or 0."""
    others = ("created_at", "mentions", "has_file")
    return Hit(
        score=score,
        created_at=int(document.get("created_at", 0)),
        mentions=tuple(restored(value) for value in document.get("mentions", ())),
        has_file=bool(document.get("has_file", False)),
        **{name: restored(document.get(name, "")) for name in HIT_FIELDS if name not in others},
    )
