"""What an executor is given and what it sends back: the schemas TO_READ and EXTRACTED, and how their rows are made."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TypedDict

import pyarrow as pa

from embedding.records import CHUNK, Rejected, Removed
from jobs.sources.base import Partition, Source

# A partition on its way to an executor. Its path is bytes: a file's name need not be UTF-8.
TO_READ = pa.schema(
    [
        ("source", pa.int32()),
        ("key", pa.string()),
        ("path", pa.binary()),
        ("fingerprint", pa.string()),
        ("size", pa.int64()),
        ("channel_id", pa.string()),
        ("first", pa.int64()),
    ]
)
CHUNK_ROW, REMOVED_ROW, REJECTED_ROW, PARTITION_ROW = "chunk", "removed", "rejected", "partition"
# What comes back: chunks, removals, rejects and one line for each partition, told apart by ``row``.
EXTRACTED = pa.schema(
    [
        pa.field("row", pa.string()),
        *[f.with_nullable(True) for f in CHUNK],
        pa.field("key", pa.string()),
        pa.field("reason", pa.string()),
        pa.field("detail", pa.string()),
        pa.field("retry", pa.bool_()),
        pa.field("whole", pa.bool_()),
        pa.field("digest", pa.string()),
        pa.field("ignored", pa.bool_()),
        pa.field("deleted", pa.bool_()),
        pa.field("documents", pa.int64()),
        pa.field("sent", pa.string()),  # JSON, the partition's rows by ``row``
        pa.field("skipped", pa.string()),  # JSON, count by reason
        pa.field("refs", pa.list_(pa.string())),
    ]
)


class PartitionRow(TypedDict):
    """A PARTITION_ROW of EXTRACTED in Python: what a task says of a partition that it read."""

    source_id: str
    partition: str
    documents: int
    skipped: str
    sent: str
    retry: bool
    whole: bool
    refs: list[str]


class RejectedRow(TypedDict):
    """A REJECTED_ROW of EXTRACTED in Python: a record on its way to quarantine."""

    source_id: str
    partition: str
    team_id: str
    channel_id: str
    kind: str
    created_at: int | None
    key: str
    reason: str
    detail: str
    retry: bool
    whole: bool
    doc_id: str
    digest: str
    ignored: bool


def to_read(source: int, partition: Partition) -> dict[str, object]:
    """A row of TO_READ: a partition of the source with this number."""
    row = {**asdict(partition), "source": source, "path": os.fsencode(partition.path)}
    return {name: row[name] for name in TO_READ.names}


def reject_row(source: Source, partition: str, reject: Rejected) -> dict[str, object]:
    """The quarantine row of a record, with what its source knows of it."""
    return {
        "row": REJECTED_ROW,
        "source_id": source.source_id,
        "partition": partition,
        "key": reject.key,
        "team_id": source.team_id or "",
        "channel_id": reject.channel_id,
        "kind": source.kind,
        "created_at": reject.created_at,
        "reason": reject.reason,
        "detail": reject.detail,
        "retry": reject.retry,
        "whole": reject.whole,
        "doc_id": reject.doc_id,
        "digest": reject.digest,
        "ignored": reject.ignored,
    }


def removed_row(source: Source, partition: str, removed: Removed) -> dict[str, object]:
    """The row of a document that was taken away."""
    return {
        "row": REMOVED_ROW,
        "source_id": source.source_id,
        "partition": partition,
        "doc_id": removed.doc_id,
        "team_id": removed.team_id,
        "channel_id": removed.channel_id,
        "kind": removed.kind,
        "created_at": removed.created_at,
        "version": removed.version,
        "deleted": removed.deleted,
    }
