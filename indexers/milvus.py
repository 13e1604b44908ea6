"""The index in Milvus: a server over the network, or Milvus Lite, the engine that runs inside this process.

Owns the collection's schema, filter expressions, batching and error texts. Writes nothing but what it is given, and
never reads across teams for a search: the team is part of every search filter.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pymilvus import DataType, MilvusClient
from pymilvus.exceptions import MilvusException

from embedding.errors import ConfigError, LeaseHeldError, ResourceError, SpaceMismatchError
from indexers.base import INDEX_ROW, MAX_BYTES, SCAN, Capabilities, Hit, check_name, checked_rows, version_number

SPACE_KEY = "space_id"
# Milvus Lite took 5,100 rows a second in batches of 1,000, 4,400 in batches of 3,000 (384 dimensions, 2 cores).
# Rows as dicts: the same data as columns was no faster (4,900), and MilvusClient takes dicts only.
UPSERT_ROWS = 1_000
UPSERT_BYTES = 8 << 20
DELETE_KEYS = 1_000
FETCH_KEYS = 1_000
# Milvus answers at most 16,384 rows a query. Every page costs Milvus Lite a pass over the whole collection, so few
# large pages: 16,000 keys and hashes are about 5 MB.
SCAN_ROWS = 16_000
CONNECT_SECONDS = 10.0
# Without a timeout pymilvus tries a lost connection 75 times, for more than three minutes.
CALL_SECONDS = 60.0
SLOW_CALL_SECONDS = 900.0  # load, flush and compact work on the whole collection
LOCK_SECONDS = 15.0

_HIT_FIELDS = ["team_id", "channel_id", "channel_name", "kind", "doc_id", "text", "created_at", "meta"]
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def literal(value: str) -> str:
    """Quote a string for a filter expression.

    Only the escapes that both engines' grammars have: JSON's own ``\\u0001`` is an error in Milvus Lite, and
    servers before 2.5 have no filter templates. Any other character stands for itself.
    """
    return '"' + "".join(_ESCAPES.get(char, char) for char in value) + '"'


def any_of(column: str, values: Sequence[str]) -> str:
    """Filter expression: the column holds one of the values."""
    return f"{column} in [{', '.join(map(literal, values))}]"


def search_filter(team_id: str, channels: Sequence[str], kind: str | None) -> str:
    """Filter expression of a search. The team is always in it."""
    parts = [f"team_id == {literal(team_id)}"]
    if channels:
        parts.append(any_of("channel_id", channels))
    if kind is not None:
        parts.append(f"kind == {literal(kind)}")
    return " and ".join(parts)


def batches(table: pa.Table, dim: int) -> Iterator[tuple[int, int]]:
    """Cut rows into slices of at most UPSERT_ROWS and UPSERT_BYTES; yields (start, length)."""
    sizes = np.full(len(table), 4 * dim + 8 * 3, dtype=np.int64)
    for column in MAX_BYTES:
        sizes += pc.binary_length(table[column]).to_numpy()
    ends = np.cumsum(sizes)
    start = 0
    while start < len(table):
        before = int(ends[start - 1]) if start else 0
        fitting = int(np.searchsorted(ends, before + UPSERT_BYTES, side="right"))
        end = min(max(fitting, start + 1), start + UPSERT_ROWS, len(table))
        yield start, end - start
        start = end


class MilvusIndex:
    """Implements ``Index``. A uri of http(s) is a server; anything else is the directory of Milvus Lite."""

    def __init__(self, uri: str, name: str, token: str = "", *, lock_timeout: float = LOCK_SECONDS) -> None:
        self._name = check_name(name)
        self._loaded: set[str] = set()
        self._token = token
        self._client: MilvusClient | None = None
        # Failures are raised, and pymilvus would log the same, with the request in it, to standard error.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL + 1)
        self._lite: Path | None = None if re.match(r"https?://", uri) else Path(os.path.abspath(uri))
        self._shown_uri = re.sub(r"//[^/@]*@", "//", uri)
        if self._lite is not None:
            uri = _open_lite(self._lite, lock_timeout)
        try:
            with self._errors():
                self._client = MilvusClient(uri=uri, token=token, timeout=CONNECT_SECONDS)
        except BaseException:
            self.close()
            raise

    def capabilities(self) -> Capabilities:
        """See ``Index``."""
        engine = "Milvus Lite" if self._lite else f"Milvus {self._milvus.get_server_version()}"
        return Capabilities(engine, hybrid=False, conditional=False, writers=1)

    def live(self) -> str | None:
        """See ``Index``."""
        with self._errors():
            for version in self.versions():
                answer = self._milvus.list_aliases(version, timeout=CALL_SECONDS)
                if self._name in answer["aliases"]:
                    return version
        return None

    def versions(self) -> list[str]:
        """See ``Index``."""
        with self._errors():
            names = self._milvus.list_collections(timeout=CALL_SECONDS)
        numbered = ((version_number(self._name, name), name) for name in names)
        return [version for _, version in sorted((n, version) for n, version in numbered if n is not None)]

    def space_of(self, version: str) -> str:
        """See ``Index``."""
        return self._describe(version)[0]

    def create_version(self, version: str, *, space_id: str, dim: int) -> None:
        """See ``Index``."""
        if version_number(self._name, version) is None:
            raise ValueError(f"a version of {self._name} is called {self._name}__v1, not {version}")
        with self._errors():
            if not self._milvus.has_collection(version, timeout=CALL_SECONDS):
                self._milvus.create_collection(
                    version,
                    schema=_schema(dim),
                    properties={SPACE_KEY: space_id},
                    consistency_level="Strong",
                    timeout=CALL_SECONDS,
                )
            held = self._describe(version)
            if held != (space_id, dim):
                raise SpaceMismatchError(
                    f"{version} holds space {held[0]} ({held[1]} dimensions), not {space_id} ({dim})"
                )
            # A step of its own, as a killed run may have left the collection without it.
            if not self._milvus.list_indexes(version, field_name="vector", timeout=CALL_SECONDS):
                params = self._milvus.prepare_index_params()
                params.add_index("vector", metric_type="COSINE", **self._vector_index())
                self._milvus.create_index(version, params, timeout=SLOW_CALL_SECONDS)
            self._load(version)

    def point_alias(self, version: str) -> None:
        """See ``Index``."""
        self._describe(version)
        live = self.live()
        with self._errors():
            if live is None:
                self._milvus.create_alias(version, self._name, timeout=CALL_SECONDS)
            elif live != version:
                self._milvus.alter_alias(version, self._name, timeout=CALL_SECONDS)

    def upsert(self, version: str, rows: pa.RecordBatch | pa.Table) -> list[str]:
        """See ``Index``."""
        dim = self._describe(version)[1]
        table, vectors = checked_rows(rows, dim)
        scalars = table.drop_columns(["vector"])
        for start, length in batches(table, dim):
            part = scalars.slice(start, length).to_pylist()
            # Lists, not arrays: packing them is a tenth faster.
            for row, vector in zip(part, vectors[start : start + length].tolist(), strict=True):
                row["vector"] = vector
            with self._errors():
                self._milvus.upsert(version, part, timeout=CALL_SECONDS)
        return []

    def delete(self, version: str, chunk_ids: Sequence[str]) -> None:
        """See ``Index``."""
        with self._errors():
            self._load(version)
            for start in range(0, len(chunk_ids), DELETE_KEYS):
                # By a filter of our own: for `ids=` pymilvus writes keys into the expression unescaped.
                keys = any_of("chunk_id", chunk_ids[start : start + DELETE_KEYS])
                self._milvus.delete(version, filter=keys, timeout=CALL_SECONDS)

    def count(self, version: str) -> int:
        """See ``Index``."""
        return int(self._query(version, "", ["count(*)"])[0]["count(*)"])

    def scan(self, version: str) -> Iterator[pa.RecordBatch]:
        """See ``Index``."""
        # Our own cursor: pymilvus' query_iterator writes the last key into the next page's filter unescaped.
        # `iterator` makes both engines answer in the order of the keys.
        after = ""
        while True:
            filters = f"chunk_id > {literal(after)}"
            page = self._query(version, filters, SCAN.names, limit=SCAN_ROWS, iterator="True")
            if not page:
                return
            keys = [row["chunk_id"] for row in page]
            last = max(keys, key=str.encode)
            if keys[-1] != last or (after and last.encode() <= after.encode()):
                raise ResourceError(f"Milvus at {self._shown_uri} does not page {version} in the order of its keys")
            yield pa.RecordBatch.from_pylist([{name: row[name] for name in SCAN.names} for row in page], schema=SCAN)
            after = last

    def fetch_vectors(self, version: str, chunk_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """See ``Index``."""
        found: dict[str, np.ndarray] = {}
        for start in range(0, len(chunk_ids), FETCH_KEYS):
            keys = any_of("chunk_id", chunk_ids[start : start + FETCH_KEYS])
            for row in self._query(version, keys, ["chunk_id", "vector"]):
                found[row["chunk_id"]] = np.asarray(row["vector"], dtype=np.float32)
        return found

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
        if text is not None:
            raise ConfigError(f"hybrid search: {self.capabilities().engine} has no BM25")
        version = version or self.live()
        if version is None:
            raise ConfigError(f"index {self._name} has no live version yet; run `embedmill run` first")
        # HNSW looks at `ef` candidates: 128 keeps recall at k = 10 high, and Milvus refuses ef < k.
        params = {} if self._lite else {"ef": max(128, 2 * k)}
        with self._errors():
            self._load(version)
            (found,) = self._milvus.search(
                version,
                data=[np.asarray(vector, dtype=np.float32).tolist()],
                anns_field="vector",
                filter=search_filter(team_id, channels, kind),
                limit=k,
                output_fields=_HIT_FIELDS,
                search_params={"metric_type": "COSINE", "params": params},
                consistency_level="Strong",
                timeout=CALL_SECONDS,
            )
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

    def flush(self, version: str) -> None:
        """See ``Index``."""
        with self._errors():
            self._milvus.flush(version, timeout=SLOW_CALL_SECONDS)

    def compact(self, version: str) -> None:
        """See ``Index``. A server deletes the old files later, by its own garbage collection."""
        self.flush(version)
        if self._lite is not None:
            _compact_lite(self._lite, version)
            return
        with self._errors():
            job = self._milvus.compact(version, timeout=SLOW_CALL_SECONDS)
            deadline = time.monotonic() + SLOW_CALL_SECONDS
            while self._milvus.get_compaction_state(job, timeout=CALL_SECONDS) != "Completed":
                if time.monotonic() > deadline:
                    raise ResourceError(f"Milvus at {self._shown_uri} did not finish compacting {version}")
                time.sleep(0.5)

    def drop_version(self, version: str) -> None:
        """See ``Index``."""
        if version_number(self._name, version) is None:
            raise ValueError(f"{version} is not a version of {self._name}")
        if version == self.live():
            raise ConfigError(f"{version} is the live version of {self._name}; move the alias first")
        with self._errors():
            self._milvus.drop_collection(version, timeout=CALL_SECONDS)
        self._loaded.discard(version)

    def close(self) -> None:
        """See ``Index``."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._lite is not None:
            _close_lite(self._lite)
            self._lite = None

    @property
    def _milvus(self) -> MilvusClient:
        if self._client is None:
            raise ValueError("this index is closed")
        return self._client

    def _vector_index(self) -> dict[str, Any]:
        # Lite: FLAT is exact, needs no building and no faiss, and its cost (a matrix product) is small beside what
        # Lite spends on filters and keys; Lite keeps all vectors in memory anyhow. Its AUTOINDEX turns into HNSW
        # where faiss is installed, whose recall falls under a selective team filter.
        # Server: HNSW, filtered inside the graph and exact below its own threshold of matching rows. M and
        # efConstruction are hnswlib's usual values for some hundred dimensions.
        if self._lite is not None:
            return {"index_type": "FLAT", "params": {}}
        return {"index_type": "HNSW", "params": {"M": 16, "efConstruction": 200}}

    def _describe(self, version: str) -> tuple[str, int]:
        with self._errors():
            found = self._milvus.describe_collection(version, timeout=CALL_SECONDS)
        dim = next(int(field["params"]["dim"]) for field in found["fields"] if field["name"] == "vector")
        return str(found.get("properties", {}).get(SPACE_KEY, "")), dim

    def _load(self, version: str) -> None:
        # A collection with an index starts unloaded after a restart, and answers no query so.
        if version not in self._loaded:
            self._milvus.load_collection(version, timeout=SLOW_CALL_SECONDS)
            self._loaded.add(version)

    def _query(self, version: str, filters: str, fields: list[str], **options: Any) -> list[dict[str, Any]]:
        with self._errors():
            self._load(version)
            return list(
                self._milvus.query(
                    version,
                    filter=filters,
                    output_fields=fields,
                    consistency_level="Strong",
                    timeout=CALL_SECONDS,
                    **options,
                )
            )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn the client's failures into one line without tokens."""
        try:
            yield
        except (MilvusException, grpc.RpcError) as error:
            text = error.message if isinstance(error, MilvusException) else str(error.code())
            text = " ".join(str(text).split())
            if self._token:
                text = text.replace(self._token, "***")
            raise ResourceError(f"Milvus at {self._shown_uri}: {text[:300]}") from None


def _schema(dim: int) -> Any:
    """Mirror INDEX_ROW.

    No partition key: on a 2.3 server an upsert into such a collection puts rows into the wrong partitions, and a
    search by team misses them in silence.
    """
    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for field in INDEX_ROW:
        if field.name == "vector":
            schema.add_field("vector", DataType.FLOAT_VECTOR, dim=dim)
        elif pa.types.is_string(field.type):
            key = field.name == "chunk_id"
            schema.add_field(field.name, DataType.VARCHAR, is_primary=key, max_length=MAX_BYTES[field.name])
        else:
            schema.add_field(field.name, DataType.INT32 if pa.types.is_int32(field.type) else DataType.INT64)
    return schema


# Milvus Lite is a gRPC server on threads of this process, one a directory, under an flock that the kernel gives up
# when the process dies. Connections of this process share it; the last to close stops it.
_lite_users: dict[Path, int] = {}
_lite_mutex = threading.Lock()


def _open_lite(path: Path, lock_timeout: float) -> str:
    """Start or join Milvus Lite on a directory and return its local address."""
    try:
        from milvus_lite.server_manager import server_manager_instance  # type: ignore[import-untyped]
    except ImportError:
        raise ConfigError(f"index.uri: {path} is a path, which needs the package milvus-lite") from None
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL + 1)
    if path.is_file():
        raise ConfigError(f"index.uri: {path} is a file; Milvus Lite 3 keeps a directory")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResourceError(f"index.uri: cannot create {path}: {error.strerror}") from None
    deadline = time.monotonic() + lock_timeout
    refusals = 0
    while True:
        with _lite_mutex:
            address = server_manager_instance.start_and_get_uri(str(path))  # None for any failure
            if address is not None:
                _lite_users[path] = _lite_users.get(path, 0) + 1
                return str(address)
        # One refusal without a lock may be a lock that has just been given up; two are another trouble.
        refusals = 0 if _locked(path) else refusals + 1
        if refusals > 1:
            raise ResourceError(f"Milvus Lite cannot open {path}: damaged, or the disk is full or read-only")
        if time.monotonic() >= deadline and not refusals:
            raise LeaseHeldError(
                f"index {path} is in use by another process (waited {lock_timeout:g} s); "
                "Milvus Lite serves one process at a time"
            )
        time.sleep(0.1)


def _locked(path: Path) -> bool:
    """Whether another process holds the directory's lock."""
    try:
        handle = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return False  # opening will say what is wrong
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def _close_lite(path: Path) -> None:
    from milvus_lite.server_manager import server_manager_instance

    with _lite_mutex:
        left = _lite_users.pop(path, 1) - 1
        if left > 0:
            _lite_users[path] = left
        else:
            server_manager_instance.release_server(str(path))


def _compact_lite(path: Path, version: str) -> None:
    """Rewrite the collection's data files without deleted and replaced rows.

    Milvus Lite's own call for it does nothing: it compacts when four files of a size have come together, so a
    purged text could stay on disk for good. This calls the steps of that compaction; a contract test reads the files.
    All files at once, as a replaced row lies in an older file than the row in force: 100,000 rows of 384 dimensions
    took 4 s and 1 GB more memory.
    """
    from milvus_lite.server_manager import server_manager_instance

    _, database, _ = server_manager_instance._servers[str(path)]
    collection = database.get_collection(version)
    compaction, manifest, deleted = collection._compaction_mgr, collection._manifest, collection._delta_index
    with collection._maintenance_lock:
        for partition in manifest.list_partitions():
            files = list(manifest.get_data_files(partition))
            if files:
                folder = os.path.join(collection.data_dir, "partitions", partition)
                compaction._compact_files(partition, folder, files, manifest, deleted)
        compaction._gc_tombstones(manifest, deleted)
        collection._refresh_segment_cache()
        collection._cleanup_orphan_index_files()
    collection._ensure_loaded_segments_indexed()
