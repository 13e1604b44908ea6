"""An exact index in memory: the oracle that tests compare engines with. Keeps nothing after the process ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from embedding.errors import ConfigError
from embedding.records import Metric
from indexers.base import (
    KEY_BYTES,
    Capabilities,
    Hit,
    SearchRequest,
    check_name,
    check_same,
    must_live,
    passing,
    version_number,
)
from indexers.bm25 import Bm25
from indexers.rows import SCAN, checked_rows

# UTF-8 bytes by column. Memory has no limit; these are those of the engines that it stands in for.
MAX_BYTES: Mapping[str, int] = {**KEY_BYTES, "text": 65_535, "lexical": 65_535, "meta": 65_535}


_HIT_FIELDS = [f.name for f in fields(Hit) if f.name != "score"]


class _Snapshot:
    """The rows of a version as they are at one moment, in arrays; made again after the next write."""

    def __init__(self, rows: Mapping[str, dict[str, Any]], vectors: Mapping[str, np.ndarray], dim: int) -> None:
        self.rows = list(rows.values())
        self._matrix = np.array([vectors[key] for key in rows], np.float32).reshape(len(rows), dim)

    @cached_property
    def _lengths(self) -> np.ndarray:
        return np.linalg.norm(self._matrix.astype(np.float64), axis=1)

    @cached_property
    def words(self) -> Bm25:
        """BM25 over ``lexical``, every row of the version counted."""
        return Bm25([row["lexical"] for row in self.rows])

    def scores(self, vector: np.ndarray, metric: Metric) -> np.ndarray:
        """Of the rows and a vector, float64 of shape (rows,); a cosine is 0 where one of them has no length."""
        query = np.asarray(vector, dtype=np.float64)
        if metric == "dot":
            return np.asarray(self._matrix.astype(np.float64) @ query)
        lengths = self._lengths * np.linalg.norm(query)
        return np.divide(self._matrix @ query, lengths, out=np.zeros(len(lengths)), where=lengths > 0)

    def places(self, request: SearchRequest) -> np.ndarray:
        """Places of the rows that the request may find."""
        passes = passing(request)
        return np.array([place for place, row in enumerate(self.rows) if passes(row)], dtype=np.int64)


@dataclass
class _Version:
    space_id: str
    dim: int
    metric: Metric = "cosine"
    owner: str = ""
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    _snapshot: _Snapshot | None = None

    def snapshot(self) -> _Snapshot:
        if self._snapshot is None:
            self._snapshot = _Snapshot(self.rows, self.vectors, self.dim)
        return self._snapshot

    def changed(self) -> None:
        self._snapshot = None


@dataclass
class _Store:
    versions: dict[str, _Version] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)


# By uri, so that steps which open and close their own connection in one process see the same data.
_STORES: dict[str, _Store] = {}


class ExactIndex:
    """Implements ``Index``. Connections with one ``uri`` share their data; without a uri each has its own."""

    def __init__(self, uri: str = "", name: str = "index") -> None:
        self._name = check_name(name)
        self._store = _STORES.setdefault(uri, _Store()) if uri else _Store()

    def capabilities(self) -> Capabilities:
        """See ``Index``."""
        return Capabilities("exact", lexical=True, conditional=True, writers=1)

    def live(self) -> str | None:
        """See ``Index``."""
        return self._store.aliases.get(self._name)

    def versions(self) -> list[str]:
        """See ``Index``."""
        numbered = ((version_number(self._name, version), version) for version in self._store.versions)
        return [version for _, version in sorted((n, version) for n, version in numbered if n is not None)]

    def space_of(self, version: str) -> str:
        """See ``Index``."""
        return self._version(version).space_id

    def owner_of(self, version: str) -> str:
        """See ``Index``."""
        return self._version(version).owner

    def set_owner(self, version: str, owner: str) -> None:
        """See ``Index``."""
        self._version(version).owner = owner

    def metric_of(self, version: str) -> Metric:
        """See ``Index``."""
        return self._version(version).metric

    def create_version(
        self, version: str, *, space_id: str, dim: int, owner: str = "", metric: Metric = "cosine"
    ) -> None:
        """See ``Index``."""
        if version_number(self._name, version) is None:
            raise ValueError(f"a version of {self._name} is called {self._name}__v1, not {version}")
        held = self._store.versions.setdefault(version, _Version(space_id, dim, metric, owner))
        check_same(version, (held.space_id, held.dim, held.metric), (space_id, dim, metric))

    def point_alias(self, version: str) -> None:
        """See ``Index``."""
        self._version(version)
        self._store.aliases[self._name] = version

    def upsert(self, version: str, rows: pa.RecordBatch | pa.Table) -> list[str]:
        """See ``Index``."""
        held = self._version(version)
        table, vectors = checked_rows(rows, held.dim, MAX_BYTES)
        refused = []
        held.changed()
        for row, vector in zip(table.drop_columns(["vector"]).to_pylist(), vectors, strict=True):
            key = row["chunk_id"]
            if key in held.rows and held.rows[key]["version"] > row["version"]:
                refused.append(key)
                continue
            held.rows[key] = row
            held.vectors[key] = vector.copy()
        return refused

    def delete(self, version: str, chunk_ids: Sequence[str]) -> None:
        """See ``Index``."""
        held = self._version(version)
        held.changed()
        for chunk_id in chunk_ids:
            held.rows.pop(chunk_id, None)
            held.vectors.pop(chunk_id, None)

    def count(self, version: str) -> int:
        """See ``Index``."""
        return len(self._version(version).rows)

    def scan(self, version: str) -> Iterator[pa.RecordBatch]:
        """See ``Index``."""
        rows = [{name: row[name] for name in SCAN.names} for row in self._version(version).rows.values()]
        for start in range(0, len(rows), 1000):
            yield pa.RecordBatch.from_pylist(rows[start : start + 1000], schema=SCAN)

    def fetch_vectors(self, version: str, chunk_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """See ``Index``."""
        held = self._version(version).vectors
        return {chunk_id: held[chunk_id].copy() for chunk_id in chunk_ids if chunk_id in held}

    def vector_error(self, version: str) -> float:
        """See ``Index``."""
        self._version(version)
        return 0.0

    def search(self, version: str | None, vector: np.ndarray, request: SearchRequest) -> list[Hit]:
        """See ``Index``."""
        version = version or must_live(self.live(), self._name)
        held = self._snapshot(version)
        return _best(held, held.scores(vector, self.metric_of(version)), held.places(request), request.k)

    def match(self, version: str | None, text: str, request: SearchRequest) -> list[Hit]:
        """See ``Index``. Words are weighed by all rows of the version."""
        held = self._snapshot(version)
        scores, places = held.words.scores(text), held.places(request)
        return _best(held, scores, places[scores[places] > 0], request.k)

    def matches_words(self, version: str) -> bool:
        """See ``Index``."""
        self._version(version)
        return True

    def fetch(self, version: str | None, chunk_ids: Sequence[str], request: SearchRequest) -> list[Hit]:
        """See ``Index``."""
        held, passes = self._version(version or must_live(self.live(), self._name)), passing(request)
        found = (held.rows[chunk_id] for chunk_id in dict.fromkeys(chunk_ids) if chunk_id in held.rows)
        return [_hit(row, 0.0) for row in found if passes(row)]

    def flush(self, version: str) -> None:
        """See ``Index``. Memory is all there is."""
        self._version(version)

    def wait_until_indexed(self, version: str) -> None:
        """See ``Index``. There is nothing to build."""
        self._version(version)

    def compact(self, version: str) -> bool:
        """See ``Index``. A deleted row is gone already."""
        self._version(version)
        return True

    def drop_version(self, version: str) -> None:
        """See ``Index``."""
        if version == self.live():
            raise ConfigError(f"{version} is the live version of {self._name}; move the alias first")
        self._store.versions.pop(version, None)

    def close(self) -> None:
        """See ``Index``."""

    def _snapshot(self, version: str | None) -> _Snapshot:
        return self._version(version or must_live(self.live(), self._name)).snapshot()

    def _version(self, version: str) -> _Version:
        try:
            return self._store.versions[version]
        except KeyError:
            raise ConfigError(f"index {self._name} has no version {version}") from None


def _best(held: _Snapshot, scores: np.ndarray, places: np.ndarray, k: int) -> list[Hit]:
    order = sorted(places.tolist(), key=lambda place: (-scores[place], held.rows[place]["chunk_id"]))
    return [_hit(held.rows[place], float(scores[place])) for place in order[:k]]


def _hit(row: Mapping[str, Any], score: float) -> Hit:
    return Hit(score=score, **({name: row[name] for name in _HIT_FIELDS} | {"mentions": tuple(row["mentions"])}))
