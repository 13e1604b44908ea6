"""What is read of an index in Milvus: versions as the engine describes them, rows, counts and searches.

Changes nothing, and never reads across teams for a search: the team is part of every search filter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from pymilvus import MilvusClient

from embedding.errors import ConfigError, ResourceError
from embedding.records import Metric
from indexers.base import Capabilities, Hit, SearchRequest, Settings, check_columns, must_live, version_number
from indexers.bm25 import words_of
from indexers.milvus.connection import SLOW_CALL_SECONDS, Connection
from indexers.milvus.filters import any_of, literal, search_filter
from indexers.milvus.hits import SHOWN, hit_of, hits_of, key_and_score, numbers_of
from indexers.milvus.layout import (
    COMPACTION_KEY,
    METRICS,
    OWNER_KEY,
    PROVEN_KEY,
    SPACE_KEY,
    WORDS,
    Layout,
    capabilities_of,
    layout_of,
)
from indexers.rows import SCAN

FETCH_KEYS = 1_000
# Milvus answers at most 16,384 rows a query. Every page costs Milvus Lite a pass over the whole collection, so few
# large pages: 16,000 keys and hashes are about 5 MB.
SCAN_ROWS = 16_000
EXACT_ROWS = 16_000
# A server's graph misses rows under a filter, most where that keeps some 7 to 10 % (of 100,000 rows 5 in 100 at an `ef`
# of 128). A segment is compared row by row where less passes, or at most twice of what is asked for (in knowhere
# kHnswSearchKnnBFFilterThreshold, kHnswSearchBFTopkThreshold). So where at most COMPARED_ROWS pass half of them are
# asked for, by key alone; else the graph is, with GRAPH_EF candidates. Figures: benchmarks/visibility.py.
COMPARED_ROWS = 32_000
GRAPH_EF = 1_024
WHOLE_HITS = 256  # so many hits are answered with all that they show


@dataclass(frozen=True, slots=True)
class Held:
    """A collection as the engine describes it.

    ``owner`` is the state that writes it, ``proven`` the engine that its layout was read back on, ``compacted`` says
    that the engine compacts it by itself.
    """

    space_id: str
    owner: str
    proven: str
    compacted: bool
    dim: int
    layout: Layout


class MilvusReader:
    """The part of ``Index`` that changes nothing."""

    def __init__(self, uri: str, name: str, settings: Settings, lock_timeout: float) -> None:
        self._name = name
        self._settings = settings
        self._loaded: set[str] = set()
        self._layouts: dict[str, Layout] = {}
        self._can: Capabilities | None = None
        self._connection = Connection(uri, settings, lock_timeout)
        self._call = self._connection.call
        self._lite = self._connection.lite

    def capabilities(self) -> Capabilities:
        """See ``Index``."""
        if self._can is None:
            found = "" if self._lite else str(self._call(self._milvus.get_server_version))
            self._can = capabilities_of(found, lite=self._lite is not None, writers=self._settings.writers)
        return self._can

    def live(self) -> str | None:
        """See ``Index``."""
        return self._connection.target_of(self._name)

    def versions(self) -> list[str]:
        """See ``Index``."""
        names = self._call(self._milvus.list_collections)
        numbered = ((version_number(self._name, name), name) for name in names)
        return [version for _, version in sorted((n, version) for n, version in numbered if n is not None)]

    def space_of(self, version: str) -> str:
        """See ``Index``."""
        return self._describe(version).space_id

    def owner_of(self, version: str) -> str:
        """See ``Index``."""
        return self._describe(version).owner

    def metric_of(self, version: str) -> Metric:
        """See ``Index``."""
        return self._layout(version).metric

    def count(self, version: str) -> int:
        """See ``Index``."""
        return self._count(version, "")

    def scan(self, version: str) -> Iterator[pa.RecordBatch]:
        """See ``Index``."""
        for page in self._pages(version, "", SCAN.names, SCAN_ROWS):
            yield pa.RecordBatch.from_pylist([{name: row[name] for name in SCAN.names} for row in page], schema=SCAN)

    def fetch_vectors(self, version: str, chunk_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """See ``Index``."""
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(chunk_ids), FETCH_KEYS):
            keys = any_of("chunk_id", chunk_ids[start : start + FETCH_KEYS])
            for row in self._query(version, keys, ["chunk_id", "vector"]):
                found[row["chunk_id"]] = numbers_of(row["vector"])
        return found

    def vector_error(self, version: str) -> float:
        """See ``Index``."""
        return 2.0**-11 if self._layout(version).float16 else 0.0

    def search(self, version: str | None, vector: np.ndarray, request: SearchRequest) -> list[Hit]:
        """See ``Index``."""
        version, filters = self._asked(version, request)
        query = np.asarray(vector, dtype=np.float32)
        asked: Any = query.astype(np.float16) if self._layout(version).float16 else query.tolist()
        if self._lite is not None:
            return hits_of(self._best(version, "vector", asked, filters, request.k))
        # Of a moment ago: it chooses how to search, and never what is found.
        passing = self._count(version, filters, consistency_level="Eventually")
        limit = max(request.k, passing // 2 + 1) if passing <= COMPARED_ROWS else request.k
        if limit <= max(request.k, WHOLE_HITS):
            hits = hits_of(self._best(version, "vector", asked, filters, limit))[: request.k]
        else:
            found = self._best(version, "vector", asked, filters, limit, shown=())
            hits = self._shown_hits(version, dict([key_and_score(hit) for hit in found][: request.k]), filters)
        if len(hits) < request.k and len(hits) < self._count(version, filters) <= EXACT_ROWS:
            return self._exact(version, query, filters, request.k)
        return hits

    def match(self, version: str | None, text: str, request: SearchRequest) -> list[Hit]:
        """See ``Index``. Milvus Lite weighs words by the rows of one file of its own at a time."""
        version, filters = self._asked(version, request)
        if not self._layout(version).words:
            engine = self.capabilities()
            fix = "run `embedmill reindex`, without index.hybrid = false" if engine.lexical else "it has no BM25"
            raise ConfigError(f"{version} on {engine.engine} has no index of words; {fix}")
        if not words_of(text):
            return []
        # A score is never below 0, but Milvus Lite 3.2.2 answers with its negative.
        found = [
            hit | {"distance": abs(hit["distance"])} for hit in self._best(version, WORDS, text, filters, request.k)
        ]
        return [hit for hit in hits_of(found) if hit.score > 0]

    def matches_words(self, version: str) -> bool:
        """See ``Index``."""
        return self._layout(version).words

    def fetch(self, version: str | None, chunk_ids: Sequence[str], request: SearchRequest) -> list[Hit]:
        """See ``Index``."""
        version, filters = self._asked(version, request)
        found: dict[str, Hit] = {}
        for start in range(0, len(chunk_ids), FETCH_KEYS):
            keys = any_of("chunk_id", chunk_ids[start : start + FETCH_KEYS])
            rows = self._query(version, f"{keys} and {filters}", ["chunk_id", *self._shown(version)])
            found |= {row["chunk_id"]: hit_of(row["chunk_id"], 0.0, row) for row in rows}
        return [found[chunk_id] for chunk_id in dict.fromkeys(chunk_ids) if chunk_id in found]

    # -- versions ----------------------------------------------------------------------------------------------------

    def _describe(self, version: str) -> Held:
        found = self._call(self._milvus.describe_collection, version)
        properties: Mapping[str, Any] = found.get("properties", {})
        dim, self._layouts[version] = layout_of(found)
        return Held(
            space_id=str(properties.get(SPACE_KEY, "")),
            owner=str(properties.get(OWNER_KEY, "")),
            proven=str(properties.get(PROVEN_KEY, "")),
            compacted=str(properties.get(COMPACTION_KEY, "true")).lower() != "false",
            dim=dim,
            layout=self._layouts[version],
        )

    def _layout(self, version: str) -> Layout:
        return self._layouts[version] if version in self._layouts else self._describe(version).layout

    def _load(self, version: str) -> None:
        # A collection with an index starts unloaded after a restart, and answers no query so.
        if version not in self._loaded:
            self._call(self._milvus.load_collection, version, seconds=SLOW_CALL_SECONDS)
            self._loaded.add(version)

    # -- searches ----------------------------------------------------------------------------------------------------

    def _asked(self, version: str | None, request: SearchRequest) -> tuple[str, str]:
        """The version to search, and the filter expression of a request that its columns can answer."""
        version = version or must_live(self.live(), self._name)
        check_columns(version, self._layout(version).columns, request)
        self._load(version)
        return version, search_filter(request)

    def _shown(self, version: str) -> list[str]:
        return [name for name in SHOWN if name in self._layout(version).columns]

    def _best(
        self, version: str, field: str, asked: Any, filters: str, k: int, shown: Sequence[str] | None = None
    ) -> Any:
        params: dict[str, Any] = {"metric_type": "BM25", "params": {}}
        if field == "vector":
            # Milvus refuses ef < k.
            metric = METRICS[self._layout(version).metric]
            params = {"metric_type": metric, "params": {} if self._lite else {"ef": max(GRAPH_EF, k)}}
        (found,) = self._call(
            self._milvus.search,
            version,
            data=[asked],
            anns_field=field,
            filter=filters,
            limit=k,
            output_fields=self._shown(version) if shown is None else list(shown),
            search_params=params,
            consistency_level="Strong",
            quotes=field != "vector",
        )
        return found

    def _exact(self, version: str, query: np.ndarray, filters: str, k: int) -> list[Hit]:
        """The nearest by comparing all: a graph, or a server that has yet to build it, loses rows of a small team."""
        cosine = self.metric_of(version) == "cosine"
        length = (float(np.linalg.norm(query)) or 1.0) if cosine else 1.0
        scores: dict[str, float] = {}
        for page in self._pages(version, filters, ["chunk_id", "vector"], FETCH_KEYS):
            held = np.stack([numbers_of(row["vector"]) for row in page])
            lengths = np.maximum(np.linalg.norm(held, axis=1), 1e-30) if cosine else 1.0
            near = held @ query / length / lengths
            scores |= zip((row["chunk_id"] for row in page), near.tolist(), strict=True)
            scores = dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k])
        return self._shown_hits(version, scores, filters)

    def _shown_hits(self, version: str, scores: Mapping[str, float], filters: str) -> list[Hit]:
        """Hits with their scores, best first; without those that pass the filter no more."""
        rows: dict[str, dict[str, Any]] = {}
        # A read that sees the last write waits for the server's clock, a fifth of a second. What was found was seen by
        # one; only what another replica does not have yet is asked for so again.
        for level in ("Eventually", "Strong"):
            left = [key for key in scores if key not in rows]
            for start in range(0, len(left), FETCH_KEYS):
                asked = f"{any_of('chunk_id', left[start : start + FETCH_KEYS])} and {filters}"
                found = self._query(version, asked, ["chunk_id", *self._shown(version)], consistency_level=level)
                rows |= {row["chunk_id"]: row for row in found}
        return hits_of([{"chunk_id": key, "distance": scores[key], "entity": row} for key, row in rows.items()])

    # -- calls -------------------------------------------------------------------------------------------------------

    @property
    def _milvus(self) -> MilvusClient:
        return self._connection.client

    def _query(self, version: str, filters: str, fields: list[str], **options: Any) -> list[dict[str, Any]]:
        self._load(version)
        options = {"consistency_level": "Strong"} | options
        return list(self._call(self._milvus.query, version, filter=filters, output_fields=fields, **options))

    def _count(self, version: str, filters: str, **options: Any) -> int:
        return int(self._query(version, filters, ["count(*)"], **options)[0]["count(*)"])

    def _pages(self, version: str, filters: str, fields: list[str], size: int) -> Iterator[list[dict[str, Any]]]:
        """Rows in the order of their keys, ``size`` at a time."""
        # Our own cursor: pymilvus' query_iterator writes the last key into the next page's filter unescaped.
        # `iterator` makes both engines answer in the order of the keys.
        after = ""
        while True:
            beyond = f"chunk_id > {literal(after)}" + (f" and {filters}" if filters else "")
            page = self._query(version, beyond, fields, limit=size, iterator="True")
            if not page:
                return
            keys = [row["chunk_id"] for row in page]
            last = max(keys, key=str.encode)
            if keys[-1] != last or (after and last.encode() <= after.encode()):
                raise ResourceError(
                    f"Milvus at {self._connection.shown} does not page {version} in the order of its keys"
                )
            yield page
            after = last
