"""An exact index in memory: the oracle that tests compare engines with. Keeps nothing after the process ends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from embedding.errors import ConfigError, SpaceMismatchError
from indexers.base import KEY_BYTES, Capabilities, Hit, SearchRequest, check_name, must_live, version_number
from indexers.rows import SCAN, checked_rows

# UTF-8 bytes by column. Memory has no limit; these are those of the engines that it stands in for.
MAX_BYTES: Mapping[str, int] = {**KEY_BYTES, "text": 65_535, "meta": 65_535}


@dataclass
class _Version:
    space_id: str
    dim: int
    owner: str = ""
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)


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
        return Capabilities("exact", hybrid=False, conditional=True, writers=1)

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

    def create_version(self, version: str, *, space_id: str, dim: int, owner: str = "") -> None:
        """See ``Index``."""
        if version_number(self._name, version) is None:
            raise ValueError(f"a version of {self._name} is called {self._name}__v1, not {version}")
        held = self._store.versions.setdefault(version, _Version(space_id, dim, owner))
        if (held.space_id, held.dim) != (space_id, dim):
            raise SpaceMismatchError(
                f"{version} holds space {held.space_id} ({held.dim} dimensions), not {space_id} ({dim})"
            )

    def point_alias(self, version: str) -> None:
        """See ``Index``."""
        self._version(version)
        self._store.aliases[self._name] = version

    def upsert(self, version: str, rows: pa.RecordBatch | pa.Table) -> list[str]:
        """See ``Index``."""
        held = self._version(version)
        table, vectors = checked_rows(rows, held.dim, MAX_BYTES)
        refused = []
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
        if request.text is not None:
            raise ConfigError("hybrid search: the exact index has no BM25")
        version = version or must_live(self.live(), self._name)
        held = self._version(version)
        query = np.asarray(vector, dtype=np.float64)
        hits = []
        for chunk_id, row in held.rows.items():
            if row["team_id"] != request.team_id or (request.channels and row["channel_id"] not in request.channels):
                continue
            if request.kind is not None and row["kind"] != request.kind:
                continue
            stored = held.vectors[chunk_id].astype(np.float64)
            lengths = float(np.linalg.norm(query) * np.linalg.norm(stored))
            hits.append(
                Hit(
                    chunk_id=chunk_id,
                    score=float(query @ stored) / lengths if lengths else 0.0,
                    team_id=row["team_id"],
                    channel_id=row["channel_id"],
                    channel_name=row["channel_name"],
                    kind=row["kind"],
                    doc_id=row["doc_id"],
                    text=row["text"],
                    created_at=row["created_at"],
                    meta=row["meta"],
                )
            )
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))[: request.k]

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

    def _version(self, version: str) -> _Version:
        try:
            return self._store.versions[version]
        except KeyError:
            raise ConfigError(f"index {self._name} has no version {version}") from None
