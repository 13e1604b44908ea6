"""The Arrow schema, key and partitioning of every table in the state. Nothing here does I/O.

Columns of the state's own, which ``State`` fills in and shows to no caller:

- ``cut``: the way of cutting texts that a row belongs to.
- ``bucket``: 16 values of a hash of the team. What is asked of a team opens the files of its bucket, and the number of
  files does not grow with the number of teams.
- ``layer``: ``base`` or ``changes``. A change is appended and replaces the row of its key by a higher ``seq``; ``gone``
  marks one that removes it. ``jobs/state/table_rows.py`` reads the two, ``jobs/state/folding.py`` makes them one.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TypedDict

import pyarrow as pa
import pyarrow.compute as pc

from embedding.records import CHUNK

_TEXT = pa.string()
_LONG = pa.int64()

CONVERSATIONS = "conversations"  # source_id of rows of ``chunks`` that no source has; their partition is the group


BASE, CHANGES = "base", "changes"
BUCKETS = 16


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A state table: its columns, what makes a row unique, and the columns its files are partitioned by.

    Rows of a table ``per_cut`` belong to one way of cutting texts (``Space.chunking_id``). A ``bucketed`` table is
    partitioned by a hash of ``team_id`` too, and its files are sorted by team and key; a ``layered`` one, which is
    bucketed, has changes beside its rows.
    """

    schema: pa.Schema
    key: tuple[str, ...]
    partition_by: tuple[str, ...] = ()
    per_cut: bool = False
    bucketed: bool = False
    layered: bool = False

    @property
    def stored(self) -> pa.Schema:
        """The schema as Delta keeps it: every column may be null, since a delete fills its key alone."""
        own = [("cut", _TEXT)] * self.per_cut + [("bucket", _TEXT)] * self.bucketed
        own += [("layer", _TEXT), ("seq", _LONG), ("gone", pa.bool_())] if self.layered else []
        return pa.schema([*own, *(field.with_nullable(True) for field in self.schema)])

    @property
    def stored_by(self) -> list[str]:
        """The columns that Delta partitions by."""
        own = ["bucket"] * self.bucketed + ["layer"] * self.layered
        return ["cut"] * self.per_cut + list(self.partition_by) + own

    @property
    def sorted_by(self) -> list[str]:
        """The columns that rows of a file are sorted by: the key, but for what is one value in a file."""
        return [column for column in self.key if column not in self.partition_by]

    @property
    def changes(self) -> pa.Schema:
        """What ``State.merge`` takes: the columns, and ``_delete`` for rows that go."""
        return pa.schema([*(f.with_nullable(True) for f in self.schema), pa.field("_delete", pa.bool_())])


def bucket_of(team: str) -> str:
    """The bucket of a team, two digits. Stable: it is part of the format of a state."""
    return f"{zlib.crc32(team.encode('utf-8', 'surrogatepass')) % BUCKETS:02}"


def buckets_of(teams: pa.Array | pa.ChunkedArray) -> pa.Array:
    """The bucket of each team of a column (string)."""
    column = teams.combine_chunks() if isinstance(teams, pa.ChunkedArray) else teams
    coded = pc.fill_null(column, "").dictionary_encode()
    buckets = pa.array([bucket_of(team) for team in coded.dictionary.to_pylist()], _TEXT)
    return buckets.take(coded.indices)


CHUNK_KEY = pa.schema([("team_id", _TEXT), ("chunk_id", _TEXT)])  # of a chunk, of the ledger and of an index

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
    "chunks": TableSpec(CHUNK, ("team_id", "chunk_id"), per_cut=True, bucketed=True, layered=True),
    "removals": TableSpec(REMOVALS, ("source_id", "partition", "doc_id"), per_cut=True),
    "vectors": TableSpec(VECTORS, ("space_id", "team_id", "content_hash"), ("space_id",), bucketed=True),
    "published": TableSpec(PUBLISHED, ("index", "team_id", "chunk_id"), ("index",), bucketed=True, layered=True),
    "quarantine": TableSpec(QUARANTINE, ("source_id", "partition", "key", "step"), per_cut=True),
    "runs": TableSpec(RUNS, ("run_id",)),
    "purges": TableSpec(PURGES, ("run_id", "team_id", "channel_id", "purged_at")),
}
