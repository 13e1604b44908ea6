"""The index in Milvus: a server over the network, or Milvus Lite, the engine that runs inside this process.

Writes nothing but what it is given, and never reads across teams for a search: the team is part of every search filter.
Its parts: ``milvus_connection`` (calls and failures), ``milvus_layout`` (schema and proof), ``milvus_wire`` (requests).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from pymilvus import AnnSearchRequest, MilvusClient, RRFRanker

from embedding.errors import ConfigError, ReadBackError, ResourceError, SpaceMismatchError
from indexers.base import SCAN, Capabilities, Hit, Settings, check_name, checked_rows, version_number
from indexers.milvus_connection import SLOW_CALL_SECONDS, Connection
from indexers.milvus_layout import (
    COMPACTION_KEY,
    PROOF_DIM,
    PROVEN_KEY,
    SPACE_KEY,
    WORDS,
    Layout,
    capabilities_of,
    indexes_of,
    layout_of,
    marks_of,
    read_back,
    schema_of,
    wanted_layout,
)
from indexers.milvus_lite import LOCK_SECONDS, compact_lite
from indexers.milvus_wire import any_of, batches, encode, insert_request, literal, search_filter, upsert_request

DELETE_KEYS = 1_000
FETCH_KEYS = 1_000
# Milvus answers at most 16,384 rows a query. Every page costs Milvus Lite a pass over the whole collection, so few
# large pages: 16,000 keys and hashes are about 5 MB.
SCAN_ROWS = 16_000
EXACT_ROWS = 16_000
INDEXED_ROWS = 1_024  # a server builds no graph for a segment with fewer rows, and searches it exactly
CANDIDATES = 50  # of each kind, that a hybrid search fuses

_HIT_FIELDS = ["team_id", "channel_id", "channel_name", "kind", "doc_id", "text", "created_at", "meta"]

# What a server was found to do with a layout in this process: None is right, else what was wrong.
_proofs: dict[tuple[str, str, Layout], str | None] = {}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Held:
    """A collection as the engine describes it.

    ``proven`` is the engine that its layout was read back on, ``compacted`` says that the engine compacts it by itself.
    """

    space_id: str
    proven: str
    compacted: bool
    dim: int
    layout: Layout


class MilvusIndex:
    """Implements ``Index``. A uri of http(s) is a server; anything else is the directory of Milvus Lite."""

    def __init__(
        self, uri: str, name: str, settings: Settings | None = None, *, lock_timeout: float = LOCK_SECONDS
    ) -> None:
        self._name = check_name(name)
        self._settings = settings or Settings()
        self._loaded: set[str] = set()
        self._layouts: dict[str, Layout] = {}
        self._can: Capabilities | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._connection = Connection(uri, self._settings, lock_timeout)
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

    def create_version(self, version: str, *, space_id: str, dim: int) -> None:
        """See ``Index``. On a server the layout is the one that reads back there."""
        if version_number(self._name, version) is None:
            raise ValueError(f"a version of {self._name} is called {self._name}__v1, not {version}")
        if self._call(self._milvus.has_collection, version):
            held = self._describe(version)
            if (held.space_id, held.dim) != (space_id, dim):
                raise SpaceMismatchError(
                    f"{version} holds space {held.space_id} ({held.dim} dimensions), not {space_id} ({dim})"
                )
            self._finish(version, held.layout)  # a killed run may have left it without
            return
        self._create(version, space_id, dim, self._choose_layout())

    def point_alias(self, version: str) -> None:
        """See ``Index``."""
        self._describe(version)
        live = self.live()
        if live is None:
            self._call(self._milvus.create_alias, version, self._name)
        elif live != version:
            self._call(self._milvus.alter_alias, version, self._name)

    def upsert(self, version: str, rows: pa.RecordBatch | pa.Table) -> list[str]:
        """See ``Index``. Requests go to a server side by side; their keys differ, so their order says nothing."""
        held = self._describe(version)
        table, vectors = checked_rows(rows, held.dim)
        if not len(table):
            return []
        self._assure(version, held)
        if held.layout.float16:
            with np.errstate(over="ignore"):
                vectors = vectors.astype(np.float16)
            if not np.isfinite(vectors).all():
                raise ValueError("a vector holds a number that float16 cannot")
        parts = list(batches(table, held.dim))

        def send(part: tuple[int, int]) -> None:
            start, length = part
            fields = encode(table.slice(start, length), vectors[start : start + length])
            # Milvus Lite's upsert is its insert, after it has read every row that there was. The row with the key
            # that there was is replaced by both.
            if self._lite is not None:
                self._connection.send(version, insert=insert_request(version, fields, length))
            else:
                self._connection.send(version, upsert=upsert_request(version, fields, length))

        if self.capabilities().writers == 1 or len(parts) == 1:
            for part in parts:
                send(part)
        else:
            self._side_by_side(send, parts)
        return []

    def delete(self, version: str, chunk_ids: Sequence[str]) -> None:
        """See ``Index``."""
        self._keep_from_compacting(version, self._describe(version))
        self._load(version)
        for start in range(0, len(chunk_ids), DELETE_KEYS):
            # By a filter of our own: for `ids=` pymilvus writes keys into the expression unescaped.
            keys = any_of("chunk_id", chunk_ids[start : start + DELETE_KEYS])
            self._call(self._milvus.delete, version, filter=keys)

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
                found[row["chunk_id"]] = _numbers(row["vector"])
        return found

    def vector_error(self, version: str) -> float:
        """See ``Index``."""
        return 2.0**-11 if self._layout(version).float16 else 0.0

    def search(
        self,
        version: str | None,
        vector: np.ndarray,
        *,
        team_id: str,
        channels: Sequence[str] = (),
        kind: str | None = None,
        k: int = 10,
        text: str | None = None,
    ) -> list[Hit]:
        """See ``Index``."""
        version = version or self.live()
        if version is None:
            raise ConfigError(f"index {self._name} has no live version yet; run `embedmill run` first")
        query = np.asarray(vector, dtype=np.float32)
        asked: Any = query.astype(np.float16) if self._layout(version).float16 else query.tolist()
        filters = search_filter(team_id, channels, kind)
        self._load(version)
        if text is not None:
            return self._hybrid(version, asked, text, filters, k)
        (found,) = self._call(
            self._milvus.search, version, data=[asked], anns_field="vector", filter=filters, limit=k,
            output_fields=_HIT_FIELDS, search_params=self._nearest(k), consistency_level="Strong",
        )  # fmt: skip
        few = self._lite is None and len(found) < k
        if few and len(found) < self._count(version, filters) <= EXACT_ROWS:
            return self._exact(version, query, filters, k)
        return _hits(found)

    def flush(self, version: str) -> None:
        """See ``Index``. What a server took is in its own log already: it is asked to write its files, not awaited."""
        self._flush(version, wait=self._lite is not None)

    def settle(self, version: str) -> None:
        """See ``Index``.

        Until a server has built and loaded the graph of a new segment it searches it by a coarse index that looks at
        an eighth of the rows (measured on 2.3.5).
        """
        self._flush(version, wait=True)
        if self._lite is not None:
            return
        self._load(version)
        left, deadline = -1, 0.0
        while True:
            segments = self._call(self._milvus.list_persistent_segments, version)
            ready = {s.segment_id for s in self._call(self._milvus.list_loaded_segments, version) if s.index_id}
            rows = sum(s.num_rows for s in segments if s.num_rows >= INDEXED_ROWS and s.segment_id not in ready)
            if not rows:
                return
            if rows != left:  # as long as something moves
                left, deadline = rows, time.monotonic() + SLOW_CALL_SECONDS
            if time.monotonic() > deadline:
                raise ResourceError(f"Milvus at {self._connection.shown} does not index {rows:,} rows of {version}")
            time.sleep(0.5)

    def compact(self, version: str) -> bool:
        """See ``Index``. A server deletes the old files later, by its own garbage collection."""
        self._flush(version, wait=True)
        if self._lite is not None:
            compact_lite(self._lite, version)
            return True
        job = self._call(self._milvus.compact, version, seconds=SLOW_CALL_SECONDS)
        deadline = time.monotonic() + SLOW_CALL_SECONDS
        while self._call(self._milvus.get_compaction_state, job) != "Completed":
            if time.monotonic() > deadline:
                raise ResourceError(f"Milvus at {self._connection.shown} did not finish compacting {version}")
            time.sleep(0.5)
        return False

    def drop_version(self, version: str) -> None:
        """See ``Index``."""
        if version_number(self._name, version) is None:
            raise ValueError(f"{version} is not a version of {self._name}")
        if version == self.live():
            raise ConfigError(f"{version} is the live version of {self._name}; move the alias first")
        self._drop(version)

    def close(self) -> None:
        """See ``Index``."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None
        self._connection.close()

    # -- layout ------------------------------------------------------------------------------------------------------

    def _choose_layout(self) -> Layout:
        """The layout of a new version. On a server with the team as partition key only where that reads back."""
        layout = wanted_layout(self._settings, self.capabilities())
        if self._lite is not None:
            return layout
        keyed = replace(layout, partition_key=True)
        engine = self.capabilities().engine
        if (problem := self._prove(keyed)) is None:
            log.info(
                "%s at %s: versions are laid out %s, which reads back right", engine, self._connection.shown, keyed
            )
            return keyed
        self._refuse_unproven(layout)
        log.info(
            "%s at %s: versions are laid out %s, as with the team as partition key %s",
            engine, self._connection.shown, layout, problem,
        )  # fmt: skip
        return layout

    def _assure(self, version: str, held: _Held) -> None:
        """Before the first write: a server that was upgraded must read back the layout that the version has."""
        can = self.capabilities()
        if self._lite is None and held.proven != can.engine:
            self._refuse_unproven(held.layout)
            again = {COMPACTION_KEY: "true"} if can.compacts and not held.compacted else {}
            self._mark(version, {PROVEN_KEY: can.engine} | again)
        self._keep_from_compacting(version, held)

    def _keep_from_compacting(self, version: str, held: _Held) -> None:
        """Before a write that deletes, as an upsert does too: a version of an earlier embedmill may be left to it."""
        if held.compacted and not self.capabilities().compacts:
            self._mark(version, {COMPACTION_KEY: "false"})

    def _mark(self, version: str, marks: dict[str, str]) -> None:
        for _ in range(2):  # 2.3.5 keeps the change before the last over its next start
            self._call(self._milvus.alter_collection_properties, version, marks)

    def _refuse_unproven(self, layout: Layout) -> None:
        if problem := self._prove(layout):
            raise ReadBackError(
                f"{self.capabilities().engine} at {self._connection.shown} does not give back what it takes {layout}: "
                f"{problem}; nothing was written, use another version of Milvus"
            )

    def _prove(self, layout: Layout) -> str | None:
        """What is wrong with a layout on this server, asked once a process of an empty collection of its own."""
        key = (self._connection.shown, self.capabilities().engine, layout)
        if key not in _proofs:
            scratch = f"{self._name}__read_back"
            self._drop(scratch)  # a killed proof's
            try:
                self._create(scratch, "", PROOF_DIM, layout)
                _proofs[key] = read_back(self, scratch)
            finally:
                self._drop(scratch)
        return _proofs[key]

    def _create(self, collection: str, space_id: str, dim: int, layout: Layout) -> None:
        self._call(
            self._milvus.create_collection, collection, schema=schema_of(dim, layout), consistency_level="Strong",
            properties={SPACE_KEY: space_id} | marks_of(self.capabilities()),
        )  # fmt: skip
        self._finish(collection, layout)

    def _finish(self, collection: str, layout: Layout) -> None:
        for field, options in indexes_of(layout, lite=self._lite is not None).items():
            if not self._call(self._milvus.list_indexes, collection, field_name=field):
                params = self._milvus.prepare_index_params()
                params.add_index(field, **options)
                # Not awaited, which takes pymilvus half a second: there is no row yet, and loading asks for the index.
                self._call(self._milvus.create_index, collection, params, seconds=SLOW_CALL_SECONDS, sync=False)
        self._load(collection)

    def _drop(self, collection: str) -> None:
        self._call(self._milvus.drop_collection, collection)
        self._loaded.discard(collection)
        self._layouts.pop(collection, None)

    def _describe(self, version: str) -> _Held:
        found = self._call(self._milvus.describe_collection, version)
        properties: Mapping[str, Any] = found.get("properties", {})
        dim, self._layouts[version] = layout_of(found)
        return _Held(
            space_id=str(properties.get(SPACE_KEY, "")),
            proven=str(properties.get(PROVEN_KEY, "")),
            compacted=str(properties.get(COMPACTION_KEY, "true")).lower() != "false",
            dim=dim,
            layout=self._layouts[version],
        )

    def _layout(self, version: str) -> Layout:
        return self._layouts[version] if version in self._layouts else self._describe(version).layout

    # -- searches ----------------------------------------------------------------------------------------------------

    def _nearest(self, k: int) -> dict[str, Any]:
        # HNSW looks at `ef` candidates: 128 keeps recall at k = 10 high, and Milvus refuses ef < k.
        return {"metric_type": "COSINE", "params": {} if self._lite else {"ef": max(128, 2 * k)}}

    def _hybrid(self, version: str, vector: Any, text: str, filters: str, k: int) -> list[Hit]:
        if not self._layout(version).hybrid:
            engine = self.capabilities()
            fix = "set index.hybrid = true and reindex" if engine.hybrid else "it has no BM25"
            raise ConfigError(f"--hybrid: {version} on {engine.engine} has no index of words; {fix}")
        most = max(k, CANDIDATES)
        asked = [
            AnnSearchRequest([vector], "vector", self._nearest(most), most, expr=filters),
            AnnSearchRequest([text], WORDS, {"metric_type": "BM25", "params": {}}, most, expr=filters),
        ]
        (found,) = self._call(
            self._milvus.hybrid_search, version, asked, RRFRanker(), limit=k, output_fields=_HIT_FIELDS,
            consistency_level="Strong", quotes=True,
        )  # fmt: skip
        return _hits(found)

    def _exact(self, version: str, query: np.ndarray, filters: str, k: int) -> list[Hit]:
        """The nearest by comparing all: a graph, or a server that has yet to build it, loses rows of a small team."""
        length = float(np.linalg.norm(query)) or 1.0
        scores: dict[str, float] = {}
        for page in self._pages(version, filters, ["chunk_id", "vector"], FETCH_KEYS):
            held = np.stack([_numbers(row["vector"]) for row in page])
            cosines = held @ query / length / np.maximum(np.linalg.norm(held, axis=1), 1e-30)
            scores |= zip((row["chunk_id"] for row in page), cosines.tolist(), strict=True)
            scores = dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k])
        rows: list[dict[str, Any]] = []
        keys = list(scores)
        for start in range(0, len(keys), FETCH_KEYS):
            found = any_of("chunk_id", keys[start : start + FETCH_KEYS])
            rows += self._query(version, found, ["chunk_id", *_HIT_FIELDS])
        return _hits([{"chunk_id": r["chunk_id"], "distance": scores[r["chunk_id"]], "entity": r} for r in rows])

    # -- calls -------------------------------------------------------------------------------------------------------

    @property
    def _milvus(self) -> MilvusClient:
        return self._connection.client

    def _side_by_side(self, send: Callable[[tuple[int, int]], None], parts: list[tuple[int, int]]) -> None:
        """All parts, over so many writers; after a failure none is begun, and none is left at work."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.capabilities().writers, thread_name_prefix="milvus")
        futures = [self._pool.submit(send, part) for part in parts]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            future.cancel()
        wait(futures)
        for future in futures:
            if not future.cancelled():
                future.result()

    def _load(self, version: str) -> None:
        # A collection with an index starts unloaded after a restart, and answers no query so.
        if version not in self._loaded:
            self._call(self._milvus.load_collection, version, seconds=SLOW_CALL_SECONDS)
            self._loaded.add(version)

    def _flush(self, version: str, *, wait: bool) -> None:
        self._call(self._milvus.flush, version, seconds=SLOW_CALL_SECONDS, **({} if wait else {"_async": True}))

    def _query(self, version: str, filters: str, fields: list[str], **options: Any) -> list[dict[str, Any]]:
        self._load(version)
        return list(
            self._call(
                self._milvus.query, version, filter=filters, output_fields=fields, consistency_level="Strong", **options
            )
        )

    def _count(self, version: str, filters: str) -> int:
        return int(self._query(version, filters, ["count(*)"])[0]["count(*)"])

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


def _numbers(vector: Any) -> np.ndarray:
    """A vector as Milvus answers it: float32 as numbers, float16 as their bytes."""
    if isinstance(vector, list) and len(vector) == 1 and isinstance(vector[0], bytes):
        vector = vector[0]
    if isinstance(vector, bytes):
        vector = np.frombuffer(vector, dtype="<f2")
    return np.asarray(vector, dtype=np.float32)


def _hits(found: Any) -> list[Hit]:
    hits = [
        Hit(
            # A 2.3 server does not name the key's column, and pymilvus then calls it "id".
            chunk_id=hit["chunk_id"] if "chunk_id" in hit else hit["id"],
            score=float(hit["distance"]),
            **{name: hit["entity"][name] for name in _HIT_FIELDS},
        )
        for hit in found
    ]
    return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))
