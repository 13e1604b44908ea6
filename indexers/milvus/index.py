"""The index in Milvus: a server over the network, or Milvus Lite, the engine that runs inside this process.

Versions, and what is written into them: nothing but what is given. Its parts: ``reader`` (what is read), ``connection``
(calls and failures), ``layout`` (schema and proof), ``wire`` (requests), ``compat`` (private parts of the client).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace

import numpy as np
import pyarrow as pa

from embedding.errors import ConfigError, ReadBackError, ResourceError
from embedding.records import Metric
from indexers.base import Settings, check_name, check_same, version_number
from indexers.milvus.compat import NOT_AWAITED, compact_collection
from indexers.milvus.connection import SLOW_CALL_SECONDS
from indexers.milvus.filters import any_of
from indexers.milvus.layout import (
    COMPACTION_KEY,
    METRIC_KEY,
    OWNER_KEY,
    PROOF_DIM,
    PROVEN_KEY,
    SPACE_KEY,
    Layout,
    indexes_of,
    marks_of,
    read_back,
    schema_of,
    wanted_layout,
)
from indexers.milvus.limits import MAX_BYTES
from indexers.milvus.lite import LOCK_SECONDS
from indexers.milvus.reader import Held, MilvusReader
from indexers.milvus.wire import batches, encode, insert_request, upsert_request
from indexers.rows import checked_rows

DELETE_KEYS = 1_000
COMPACTION_SECONDS = 86_400.0  # of a server that may lose what is written meanwhile: it is awaited, however long
INDEXED_ROWS = 1_024  # a server builds no graph for a segment with fewer rows, and searches it exactly

# What a server was found to do with a layout in this process: None is right, else what was wrong.
_proofs: dict[tuple[str, str, Layout], str | None] = {}

log = logging.getLogger(__name__)


class MilvusIndex(MilvusReader):
    """Implements ``Index``. A uri of http(s) is a server; anything else is the directory of Milvus Lite."""

    def __init__(
        self, uri: str, name: str, settings: Settings | None = None, *, lock_timeout: float = LOCK_SECONDS
    ) -> None:
        super().__init__(uri, check_name(name), settings or Settings(), lock_timeout)
        self._pool: ThreadPoolExecutor | None = None

    def set_owner(self, version: str, owner: str) -> None:
        """See ``Index``."""
        self._describe(version)
        self._mark(version, {OWNER_KEY: owner})

    def create_version(
        self, version: str, *, space_id: str, dim: int, owner: str = "", metric: Metric = "cosine"
    ) -> None:
        """See ``Index``. On a server the layout is the one that reads back there."""
        if version_number(self._name, version) is None:
            raise ValueError(f"a version of {self._name} is called {self._name}__v1, not {version}")
        if self._call(self._milvus.has_collection, version):
            held = self._describe(version)
            check_same(version, (held.space_id, held.dim, held.layout.metric), (space_id, dim, metric))
            self._finish(version, held.layout)  # a killed run may have left it without
            return
        self._create(version, space_id, dim, self._choose_layout(metric), owner)

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
        table, vectors = checked_rows(rows, held.dim, MAX_BYTES)
        self._assure(version, held)
        if not len(table):
            return []
        table = table.select(held.layout.columns)
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
        if not self.capabilities().compacts:  # of others nothing need be asked
            self._keep_from_compacting(version, self._describe(version))
        self._load(version)
        for start in range(0, len(chunk_ids), DELETE_KEYS):
            # By a filter of our own: for `ids=` pymilvus writes keys into the expression unescaped.
            keys = any_of("chunk_id", chunk_ids[start : start + DELETE_KEYS])
            self._call(self._milvus.delete, version, filter=keys)

    def flush(self, version: str) -> None:
        """See ``Index``. What a server took is in its own log already: it is asked to write its files, not awaited."""
        self._flush(version, wait=self._lite is not None)

    def wait_until_indexed(self, version: str) -> None:
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
            compact_collection(self._lite, version)
            return True
        job = self._call(self._milvus.compact, version, seconds=SLOW_CALL_SECONDS)
        deadline = time.monotonic() + (SLOW_CALL_SECONDS if self.capabilities().compacts else COMPACTION_SECONDS)
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

    def _choose_layout(self, metric: Metric) -> Layout:
        """The layout of a new version. On a server with the team as partition key only where that reads back."""
        layout = replace(wanted_layout(self._settings, self.capabilities()), metric=metric)
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
            engine,
            self._connection.shown,
            layout,
            problem,
        )
        return layout

    def _assure(self, version: str, held: Held) -> None:
        """Before the first write: a server that was upgraded must read back the layout that the version has."""
        can = self.capabilities()
        if self._lite is None and held.proven != can.engine:
            self._refuse_unproven(held.layout)
            again = {COMPACTION_KEY: "true"} if can.compacts and not held.compacted else {}
            self._mark(version, {PROVEN_KEY: can.engine} | again)
        self._keep_from_compacting(version, held)

    def _keep_from_compacting(self, version: str, held: Held) -> None:
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

    def _create(self, collection: str, space_id: str, dim: int, layout: Layout, owner: str = "") -> None:
        self._call(
            self._milvus.create_collection,
            collection,
            schema=schema_of(dim, layout),
            consistency_level="Strong",
            properties={SPACE_KEY: space_id}
            | ({OWNER_KEY: owner} if owner else {})
            | ({METRIC_KEY: layout.metric} if layout.metric != "cosine" else {})
            | marks_of(self.capabilities()),
        )
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

    # -- calls -------------------------------------------------------------------------------------------------------

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

    def _flush(self, version: str, *, wait: bool) -> None:
        self._call(self._milvus.flush, version, seconds=SLOW_CALL_SECONDS, **({} if wait else NOT_AWAITED))
