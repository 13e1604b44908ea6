"""Publish: write planned rows with their stored vectors into the index, then into the ledger, shard by shard.

Rows whose vectors were stored before are joined with them by Spark (``prepare``). Those that wait for a shard of texts
are published as soon as its vectors are committed, while the next shards are encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedding.text.template import Template, date_words
from jobs.state.parts import Part, write_part
from jobs.state.run_target import RunTarget
from jobs.state.store import State
from jobs.state.tables import PUBLISHED, TABLES
from jobs.state.vector_column import unpack
from jobs.state.write_intents import record_intent

if TYPE_CHECKING:
    from indexers.base import Index

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


class Publisher:
    """Carries out the rows and deletes of one run's plan on one version of an index.

    Index first, ledger second, with a note of the shard before both: a crash between them repeats writes that change
    nothing. ``before_commit`` is called ahead of each write and may raise; ``progress`` is told the rows of each shard.
    ``upserted``, ``deleted`` and ``left_out`` count rows, the last those of encoded shards whose text has no vector.
    """

    def __init__(
        self,
        index: Index,
        target: RunTarget,
        *,
        shard_rows: int,
        before_commit: Callable[[], None],
        progress: Callable[[int], None],
    ) -> None:
        self._index, self._target, self._shard_rows = index, target, shard_rows
        self._before_commit, self._progress = before_commit, progress
        self._state, self._version, self._work = target.state, target.version, target.work
        self.upserted = self.deleted = self.left_out = 0

    def publish_ready(self, stop: Callable[[], bool]) -> bool:
        """Write what ``prepare`` has joined; False where ``stop``, asked after each shard, said to leave off."""
        for shard in _shards(parquet_files(self._work / "publish"), self._shard_rows):
            self._write(shard)
            if stop():
                return False
        return True

    def publish_shard(self, shard: str, parts: Sequence[Part], stop: Callable[[], bool]) -> bool:
        """Write the rows that waited for a shard of texts ("shard=3"), whose vectors are in ``parts`` of the table.

        False where ``stop`` said to leave off; see ``publish_ready``.
        """
        vectors = _stored(self._state, parts)
        keys = _content_keys(vectors).combine_chunks()
        for rows in _shards(parquet_files(self._work / "rows" / shard), self._shard_rows):
            place = pc.index_in(_content_keys(rows), keys)
            here = pc.is_valid(place)
            if joined := rows.filter(here):
                self._write(joined.append_column("vector", vectors["vector"].take(place.filter(here))))
            self.left_out += len(rows) - len(joined)
            if stop():
                return False
        return True

    def delete_rows(self, stop: Callable[[], bool]) -> bool:
        """Remove what the plan says; False where ``stop``, asked after each shard, said to leave off."""
        for shard in _shards(parquet_files(self._work / "deletes"), self._shard_rows):
            ledger = _ledger(shard, self._target, delete=True)
            with record_intent(self._state, self._target.run_id, ledger):
                self._before_commit()
                self._index.delete(self._version, shard["chunk_id"].to_pylist())
                self._state.merge("published", ledger)
            self.deleted += len(shard)
            self._progress(len(shard))
            if stop():
                return False
        return True

    def flush(self) -> None:
        """Flush pending writes to the index, if there are any."""
        if self.upserted or self.deleted:
            self._index.flush(self._version)

    def flush_ahead(self) -> None:
        """Flush although more is to come, where that saves work at the end: a server writes its files by itself."""
        if self._index.capabilities().embedded:
            self.flush()

    def _write(self, shard: pa.Table) -> None:
        rows, ledger = index_rows(shard, self._target.lexical), _ledger(shard, self._target, delete=False)
        with record_intent(self._state, self._target.run_id, ledger):
            self._before_commit()
            refused = self._index.upsert(self._version, rows)
            if refused:
                # The newer version that stood there has left its source, and an older copy is what is desired now:
                # this run holds the lease, so it knows.
                self._before_commit()
                self._index.delete(self._version, refused)
                self._index.upsert(
                    self._version, rows.filter(pc.is_in(rows["chunk_id"], pa.array(refused, pa.string())))
                )
            _record(self._state, ledger, shard["held"])
        self.upserted += len(shard)
        self._progress(len(shard))


def _stored(state: State, parts: Sequence[Part]) -> pa.Table:
    """The vectors of a shard: team_id, content_hash, vector."""
    columns = pa.schema([TABLES["vectors"].schema.field(name) for name in ("team_id", "content_hash", "vector")])
    tables = [columns.empty_table()]
    for part in parts:
        file = state.root / "vectors" / part.path
        tables.append(pq.read_table(file, columns=columns.names, partitioning=None).cast(columns))
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


def _record(state: State, ledger: pa.Table, held: pa.ChunkedArray) -> None:
    """Rows that the ledger does not have are appended; the others are changes beside its rows."""
    new = ledger.filter(pc.invert(held)).drop_columns(["_delete"])
    if len(new):
        state.append("published", write_part(str(state.root), "published", new, seq=state.next_seq("published")))
    if len(new) < len(ledger):
        state.merge("published", ledger.filter(held))


def _ledger(shard: pa.Table, target: RunTarget, *, delete: bool) -> pa.Table:
    size = len(shard)
    constant = {"index": target.version, "space_id": target.space_id, "run_id": target.run_id}
    columns = []
    for field in PUBLISHED:
        if field.name in constant:
            columns.append(pa.array([constant[field.name]] * size, field.type))
        elif field.name in shard.column_names:
            columns.append(shard[field.name].cast(field.type))
        else:
            columns.append(pa.nulls(size, field.type))
    columns.append(pa.array([delete] * size, pa.bool_()))
    return pa.Table.from_arrays(columns, schema=TABLES["published"].changes)


def parquet_files(folder: Path) -> list[Path]:
    """The Parquet files below a folder, sorted by path."""
    return sorted(folder.rglob("*.parquet"))


def _shards(files: Sequence[Path], rows: int) -> Iterator[pa.Table]:
    """Tables of about ``rows`` rows: small files of Spark's tasks are put together, large ones are read in pieces."""
    held: list[pa.RecordBatch] = []
    for file in files:
        for batch in pq.ParquetFile(file).iter_batches(batch_size=rows):
            held.append(batch)
            if sum(len(b) for b in held) >= rows:
                yield pa.Table.from_batches(held)
                held = []
    if any(len(b) for b in held):
        yield pa.Table.from_batches(held)
