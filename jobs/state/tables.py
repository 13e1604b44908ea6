"""The Arrow schema, key and partitioning of every table in the state. Nothing here does I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

import pyarrow as pa

from embedding.records import CHUNK

_TEXT = pa.string()
_LONG = pa.int64()

CONVERSATIONS = "conversations"  # source_id of rows of ``chunks`` that no source has; their partition is the group


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A state table: its columns, what makes a row unique, and the columns its files are partitioned by.

    Rows of a table ``per_cut`` belong to one way of cutting texts (``Space.chunking_id``). That column is the state's:
    ``State`` fills it in and reads by it, and shows it to no caller.
    """

    schema: pa.Schema
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    per_cut: bool = False

    @property
    def stored(self) -> pa.Schema:
        """The schema as Delta keeps it: every column may be null, since a delete fills its key alone."""
        cut = [pa.field("cut", _TEXT)] if self.per_cut else []
        return pa.schema([*cut, *(field.with_nullable(True) for field in self.schema)])

    @property
    def stored_by(self) -> list[str]:
        """The columns that Delta partitions by."""
        return ["cut"] * self.per_cut + list(self.partition_by)

    @property
    def changes(self) -> pa.Schema:
        """What ``State.merge`` takes: the columns, and ``_delete`` for rows that go."""
        return pa.schema([*(f.with_nullable(True) for f in self.schema), pa.field("_delete", pa.bool_())])


SOURCES = pa.schema(
    [
        ("source_id", _TEXT),
        ("partition", _TEXT),
        ("fingerprint", _TEXT),  # of the partition's bytes: an equal one is not read again
        ("reader", _TEXT),  # of the code and settings that read it
        ("refs", pa.list_(_TEXT)),  # user and channel ids whose names are in its texts
        ("refs_hash", _TEXT),  # of those names
        ("overlaps", pa.list_(_TEXT)),  # "source_id\0partition" of partitions that hold the same documents
        ("retry", pa.bool_()),  # reading failed in a way that may pass: read it again
        ("documents", _LONG),
        ("run_id", _TEXT),
        # What its last whole reading leaves open; see jobs/extract/held_deletions.py.
        ("digests", pa.list_(_TEXT)),  # of its unreadable records that may be any document, one a record
        ("suspects", pa.list_(_TEXT)),  # those of them that may be documents that went missing
        ("held", pa.list_(_TEXT)),  # these documents
        ("named", pa.list_(_TEXT)),  # documents whose own record in it cannot be read
        ("held_back", _TEXT),  # JSON, {reason: {"since": µs, "documents": n}}
        ("unlisted", _TEXT),  # why the last listing could not tell whether it is there; null where it was listed
        ("unlisted_since", _LONG),
    ]
)


class SourceRow(TypedDict):
    """A row of SOURCES in Python. Of a partition whose first reading has not ended, most is None."""

    source_id: str
    partition: str
    fingerprint: str
    reader: str | None
    refs: list[str] | None
    refs_hash: str | None
    overlaps: list[str] | None
    retry: bool | None
    documents: int | None
    run_id: str
    digests: list[str] | None
    suspects: list[str] | None
    held: list[str] | None
    named: list[str] | None
    held_back: str | None
    unlisted: str | None
    unlisted_since: int | None


REMOVALS = pa.schema(
    [
        ("source_id", _TEXT),
        ("partition", _TEXT),
        ("doc_id", _TEXT),
        ("team_id", _TEXT),
        ("channel_id", _TEXT),
        ("kind", _TEXT),
        ("created_at", _LONG),
        ("version", _LONG),
        ("deleted", pa.bool_()),  # false where the document was only emptied
    ]
)
VECTORS = pa.schema(
    [
        ("space_id", _TEXT),
        ("team_id", _TEXT),
        ("content_hash", _TEXT),
        ("vector", pa.binary()),  # see jobs/state/vector_column.py
        ("run_id", _TEXT),
    ]
)
PUBLISHED = pa.schema(
    [
        ("index", _TEXT),
        ("team_id", _TEXT),
        ("chunk_id", _TEXT),
        ("channel_id", _TEXT),
        ("kind", _TEXT),
        ("created_at", _LONG),
        ("content_hash", _TEXT),
        ("meta_hash", _TEXT),
        ("space_id", _TEXT),
        ("run_id", _TEXT),
        ("source_id", _TEXT),  # the source that owned the chunk; null in rows of a ledger that did not keep it yet
        ("text_hash", _TEXT),  # null the same
    ]
)
QUARANTINE = pa.schema(
    [
        ("source_id", _TEXT),
        ("partition", _TEXT),
        ("key", _TEXT),
        ("step", _TEXT),
        ("team_id", _TEXT),
        ("channel_id", _TEXT),
        ("kind", _TEXT),
        ("created_at", _LONG),
        ("reason", _TEXT),
        ("detail", _TEXT),
        ("attempts", _LONG),
        ("first_seen", _LONG),
        ("last_seen", _LONG),
        ("run_id", _TEXT),
        ("ignored", pa.bool_()),  # nothing is wrong with it, and there is no use for its kind; null is false
    ]
)
RUNS = pa.schema(
    [
        ("run_id", _TEXT),
        ("command", _TEXT),
        ("status", _TEXT),
        ("started_at", _LONG),
        ("finished_at", _LONG),
        ("report", _TEXT),  # the run report, JSON
    ]
)
PURGES = pa.schema(
    [
        ("team_id", _TEXT),
        ("channel_id", _TEXT),  # "" for every channel
        ("ids", pa.list_(_TEXT)),  # empty for every document
        ("before", _LONG),  # created before this, null for any time
        ("purged_at", _LONG),  # a version newer than this is a new document and is indexed again
        ("run_id", _TEXT),
    ]
)

TABLES: dict[str, TableSpec] = {
    "sources": TableSpec(SOURCES, ("source_id", "partition"), per_cut=True),
    "chunks": TableSpec(CHUNK, ("team_id", "chunk_id"), ("team_id",), per_cut=True),
    "removals": TableSpec(REMOVALS, ("source_id", "partition", "doc_id"), per_cut=True),
    "vectors": TableSpec(VECTORS, ("space_id", "team_id", "content_hash"), ("space_id", "team_id")),
    "published": TableSpec(PUBLISHED, ("index", "team_id", "chunk_id"), ("index", "team_id")),
    "quarantine": TableSpec(QUARANTINE, ("source_id", "partition", "key", "step"), per_cut=True),
    "runs": TableSpec(RUNS, ("run_id",)),
    "purges": TableSpec(PURGES, ("run_id", "team_id", "channel_id", "purged_at")),
}
