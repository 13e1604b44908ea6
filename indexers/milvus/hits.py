"""What Milvus answers a search or a query with, as hits and as vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from indexers.base import Hit

SHOWN = [f.name for f in fields(Hit) if f.name not in ("chunk_id", "score")]


def numbers_of(vector: Any) -> np.ndarray:
    """A vector as Milvus answers it: float32 as numbers, float16 as their bytes."""
    if isinstance(vector, list) and len(vector) == 1 and isinstance(vector[0], bytes):
        vector = vector[0]
    if isinstance(vector, bytes):
        vector = np.frombuffer(vector, dtype="<f2")
    return np.asarray(vector, dtype=np.float32)


def key_and_score(hit: Mapping[str, Any]) -> tuple[str, float]:
    """The key of what a search found, and its score."""
    # A 2.3 server does not name the key's column, and pymilvus then calls it "id".
    return hit["chunk_id"] if "chunk_id" in hit else hit["id"], float(hit["distance"])


def hits_of(found: Any) -> list[Hit]:
    """What a search found, best first."""
    hits = [hit_of(*key_and_score(hit), hit["entity"]) for hit in found]
    return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))


def hit_of(chunk_id: str, score: float, row: Mapping[str, Any]) -> Hit:
    """A hit from the columns of its row; what its version does not have is empty."""
    said = {name: row[name] for name in SHOWN if name in row}
    if "mentions" in said:
        said["mentions"] = tuple(said["mentions"])
    return Hit(chunk_id=chunk_id, score=score, **said)
