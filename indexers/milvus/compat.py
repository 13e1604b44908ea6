"""The private parts of pymilvus and Milvus Lite that are used, each with the reason, and nothing else of theirs.

``pyproject.toml`` bounds both from above; ``tests/indexers/test_milvus_doors.py`` says in one line which part a new
version no longer has.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pymilvus import MilvusClient
from pymilvus.client.types import Status
from pymilvus.grpc_gen import milvus_pb2, schema_pb2

__all__ = [
    "CONNECT_FAILED",
    "NOT_AWAITED",
    "call_context",
    "compact_collection",
    "handler_of",
    "lite_servers",
    "milvus_pb2",  # requests that are encoded here by column; see ``wire``
    "schema_pb2",
]

# What pymilvus makes of a lost connection that it could not open anew; it stands in no public list of codes.
CONNECT_FAILED = Status.CONNECT_FAILED

# Options of ``MilvusClient.flush`` that ask a server to write its files without waiting for them.
NOT_AWAITED = {"_async": True}


def handler_of(client: MilvusClient) -> Any:
    """What ``MilvusClient`` sends requests with: it alone takes a request that is encoded already."""
    return client._get_connection()


def call_context(client: MilvusClient) -> Any:
    """The database and the like of a call, which ``MilvusClient`` makes for each of its own."""
    return client._generate_call_context()


def lite_servers() -> Any:
    """The servers of Milvus Lite in this process. ``MilvusClient`` uses them too, and never lets one go by itself.

    Raises ImportError where milvus-lite is not installed.
    """
    from milvus_lite.server_manager import server_manager_instance

    return server_manager_instance


def compact_collection(path: Path, name: str) -> None:
    """Rewrite all data files of a collection of Milvus Lite without deleted and replaced rows.

    Its own call for it does nothing: it compacts when four files of a size have come together, so a purged text could
    stay on disk for good. These are the steps of that compaction, for all files at once, as a replaced row lies in an
    older file than the row in force. 100,000 rows of 384 dimensions took 4 s and 1 GB more memory.
    """
    _, database, _ = lite_servers()._servers[str(path)]
    collection = database.get_collection(name)
    compaction, manifest, deleted = collection._compaction_mgr, collection._manifest, collection._delta_index
    # A flush leaves graphs to a thread of the engine, which takes no lock: two that write one file read half of it.
    collection._wait_for_bg()
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
