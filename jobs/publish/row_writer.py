"""Writes planned rows with their stored vectors into an index, piece by piece. Runs here or in any worker.

What is written is recorded first, and the records are what comes back: the ledger is the driver's.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding.text.template import Template, date_words
from jobs.state.parts import Part
from jobs.state.staging import Staged
from jobs.state.storage import StatePath, open_parquet, read_parquet
from jobs.state.tables import TABLES
from jobs.state.vector_column import unpack
from jobs.state.write_intents import INTENT, record_intent

if TYPE_CHECKING:
    from indexers.base import Index
    from jobs.state.run_target import RunTarget

# What rows of an earlier release do not say, and what is taken for it.
_UNSAID: dict[str, object] = {
    "author": "",
    "author_id": "",
    "thread_id": "",
    "title": "",
    "visibility": "private",
    "mentions": [],
    "has_file": False,
    "language": "",
}


@dataclass(frozen=True, slots=True)
class PlannedRows:
    """Rows of a plan (PLANNED) in staged ``files``, with a ``name`` that no others of the run have.

    ``parts`` of the table of vectors hold theirs; None where the rows have a column ``vector``.
    """

    name: str
    files: Staged
    parts: tuple[Part, ...] | None = None


@dataclass(frozen=True, slots=True)
class WrittenRows:
    """Rows that the index has taken. Their ``record`` (a file) waits to be committed, None where there are none.

    ``left_out`` have no vector. ``began`` and ``ended`` are ns since 1970.
    """

    record: StatePath | None
    rows: int
    left_out: int
    began: int = 0
    ended: int = 0


@dataclass(frozen=True, slots=True)
class RowWriter:
    """What the rows of one run are written with; may be sent to a worker.

    ``root`` is the state's folder; pieces have about ``shard_rows``. ``check`` is called around each write and asks for
    the lease; it may raise.
    """

    root: StatePath
    version: str
    space_id: str
    run_id: str
    lexical: Template
    shard_rows: int
    check: Callable[[], None]

    @classmethod
    def of(cls, target: RunTarget, shard_rows: int, check: Callable[[], None]) -> RowWriter:
        """What writes the rows of a run's target."""
        return cls(target.state.root, target.version, target.space_id, target.run_id, target.lexical, shard_rows, check)

    def write(self, index: Index, planned: PlannedRows) -> Iterator[WrittenRows]:
        """Write rows into the index, a piece at a time."""
        vectors = None if planned.parts is None else self._stored(planned.parts)
        keys = None if vectors is None else _content_keys(vectors).combine_chunks()
        for number, rows in enumerate(pieces(planned.files, self.shard_rows)):
            joined = rows
            if vectors is not None and keys is not None:
                place = pc.index_in(_content_keys(rows), keys)
                here = pc.is_valid(place)
                joined = rows.filter(here).append_column("vector", vectors["vector"].take(place.filter(here)))
            began = time.time_ns()
            record = self._write(index, joined, f"{planned.name}-{number}") if len(joined) else None
            yield WrittenRows(record, len(joined), len(rows) - len(joined), began, time.time_ns())

    def intent(self, rows: pa.Table, *, delete: bool) -> pa.Table:
        """Rows of the ledger (INTENT) for planned rows, or for rows to delete."""
        size = len(rows)
        constant = {"index": self.version, "space_id": self.space_id, "run_id": self.run_id, "_delete": delete}
        columns = []
        for field in INTENT:
            if field.name in constant:
                columns.append(pa.array([constant[field.name]] * size, field.type))
            elif field.name in rows.column_names:
                columns.append(rows[field.name].cast(field.type))
            else:
                columns.append(pa.nulls(size, field.type))
        return pa.Table.from_arrays(columns, schema=INTENT)

    def _write(self, index: Index, planned: pa.Table, name: str) -> StatePath:
        rows = index_rows(planned, self.lexical)
        with record_intent(self.root, f"{self.run_id}-{name}", self.intent(planned, delete=False)) as record:
            self.check()
            refused = index.upsert(self.version, rows)
            if refused:
                # The newer version that stood there has left its source, and an older copy is what is desired now:
                # this run holds the lease, so it knows.
                self.check()
                index.delete(self.version, refused)
                index.upsert(self.version, rows.filter(pc.is_in(rows["chunk_id"], pa.array(refused, pa.string()))))
            self.check()  # a lease that was lost meanwhile leaves the record to its next holder
        return record

    def _stored(self, parts: Sequence[Part]) -> pa.Table:
        """The vectors of a shard: team_id, content_hash, vector."""
        columns = pa.schema([TABLES["vectors"].schema.field(name) for name in ("team_id", "content_hash", "vector")])
        tables = [columns.empty_table()]
        for part in parts:
            file = self.root / "vectors" / part.path
            tables.append(read_parquet(file, columns.names).cast(columns))
        return pa.concat_tables(tables)


def _content_keys(rows: pa.Table) -> pa.ChunkedArray:
    """The key of a text in one column: team_id and content_hash, joined by NUL."""
    return pc.binary_join_element_wise(rows["team_id"], rows["content_hash"], "\0")


def index_rows(shard: pa.Table, lexical: Template) -> pa.Table:
    """Planned rows (CHUNK and ``vector``) as an index takes them (INDEX_ROW): numbers in lists, and what BM25 reads."""
    for name, unsaid in _UNSAID.items():
        said_of = pc.fill_null(shard[name], pa.scalar(unsaid, shard[name].type))
        shard = shard.set_column(shard.column_names.index(name), name, said_of)
    said = {
        "author": shard["author"],
        "channel": shard["channel_name"],
        "date": date_words(shard["created_at"]),
        "title": shard["title"],
        "text": shard["text"],
    }
    shard = shard.append_column("lexical", lexical.render(said, len(shard)))
    vectors = unpack(shard["vector"])
    ends = np.arange(len(shard) + 1, dtype=np.int32) * vectors.shape[1]
    lists = pa.ListArray.from_arrays(pa.array(ends), pa.array(vectors.reshape(-1)))
    return shard.set_column(shard.column_names.index("vector"), "vector", lists)


def pieces(files: Staged, rows: int) -> Iterator[pa.Table]:
    """Tables of about ``rows`` rows: small files of Spark's tasks are put together, large ones are read in pieces."""
    held: list[pa.RecordBatch] = []
    for path in files.paths:
        for batch in open_parquet(path).iter_batches(batch_size=rows):
            held.append(batch)
            if sum(len(b) for b in held) >= rows:
                yield pa.Table.from_batches(held)
                held = []
    if any(len(b) for b in held):
        yield pa.Table.from_batches(held)
