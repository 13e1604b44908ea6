"""Staged rows: Parquet files that one step of a run writes, on any machine, and a later one reads.

Workers write, and say what; the driver looks for all of it and writes the list of the files last. Readers go by that
list and never by a listing: what a task left that was begun twice is in none.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from embedding.errors import EmbedmillError
from jobs.state.object_path import ObjectPath
from jobs.state.storage import StatePath, file_address, new_file, open_parquet, remove_all, replace_file, sizes_below

_LIST = "_files.json"  # pyarrow and Spark take a name that begins so for no data


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file by its path in the folder that it was staged in ("shard=3/part-….parquet")."""

    path: str
    rows: int


@dataclass(frozen=True, slots=True)
class Staged:
    """The staged files of a ``folder``; may be sent to a worker."""

    folder: StatePath
    files: tuple[StagedFile, ...]

    @property
    def rows(self) -> int:
        """Rows of all files."""
        return sum(file.rows for file in self.files)

    @property
    def paths(self) -> list[StatePath]:
        """Where the files are."""
        return [self.folder / file.path for file in self.files]

    @property
    def folders(self) -> list[str]:
        """Names of the folders that files are in."""
        return sorted({file.path.partition("/")[0] for file in self.files if "/" in file.path})

    def within(self, name: str) -> Staged:
        """The files of one of the folders."""
        return Staged(self.folder, tuple(file for file in self.files if file.path.startswith(f"{name}/")))

    def data(self, schema: pa.Schema | None = None) -> ds.Dataset:
        """The rows, with the columns of ``schema``, else of the first file; names of folders are no columns."""
        if not self.files:
            return ds.dataset(pa.table({}) if schema is None else schema.empty_table())
        system, root = file_address(self.folder)
        paths = [f"{root}/{file.path}" for file in self.files]
        return ds.dataset(paths, schema=schema, format="parquet", filesystem=system)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The rows in memory."""
        return self.data().to_table(list(columns) if columns is not None else None)


def staged(folder: StatePath) -> Staged:
    """What was staged in a folder; no files where nothing was."""
    try:
        files = json.loads((folder / _LIST).read_text())
    except FileNotFoundError:
        return Staged(folder, ())
    return Staged(folder, tuple(StagedFile(path, rows) for path, rows in files))


def rows_in(folder: StatePath) -> int:
    """Rows that were staged in a folder."""
    return staged(folder).rows


def begin_staging(folder: StatePath) -> None:
    """Remove what was staged in a folder before."""
    remove_all(folder)
    folder.mkdir(parents=True)


def commit_staged(folder: StatePath, files: Iterable[StagedFile] | None = None) -> Staged:
    """Write the list of the files that workers have staged, else of all that are there.

    Raises EmbedmillError for one that this process does not find.
    """
    found = sorted(files, key=lambda file: file.path) if files is not None else None
    there = sizes_below(folder)  # after all of them are written
    if found is None:
        paths = sorted(path for path in there if path.endswith(".parquet"))
        found = [StagedFile(path, open_parquet(folder / path).metadata.num_rows) for path in paths]
    if lost := [file for file in found if file.path not in there]:
        raise EmbedmillError(
            f"a worker wrote {sum(file.rows for file in lost):,} rows that are not in {folder}: driver and workers "
            "must see one and the same state.uri"
        )
    replace_file(folder / _LIST, json.dumps([[file.path, file.rows] for file in found]).encode(), durable=False)
    return Staged(folder, tuple(found))


def stage(
    batches: Iterable[pa.RecordBatch], folder: StatePath, schema: pa.Schema, *, by: str = "", most: int = 0
) -> Staged:
    """Stage batches in a folder, from this process alone, in place of what is there; see ``write_staged``."""
    begin_staging(folder)
    return commit_staged(folder, write_staged(batches, folder, schema, by=by, most=most))


def write_staged(
    batches: Iterable[pa.RecordBatch], folder: StatePath, schema: pa.Schema, *, by: str = "", most: int = 0
) -> Iterator[StagedFile]:
    """Write batches as files of a folder, for ``commit_staged``. Runs on any worker.

    With ``by``, a column of strings that the batches are sorted by, in folders ``by=value`` and without the column. A
    file has about ``most`` rows, 0 is no limit; one file is open at a time.
    """
    kept = [name for name in schema.names if name != by]
    with ExitStack() as opened:
        writing: _Writing | None = None
        for batch in batches:
            for value, rows in _runs(batch, by) if by else [("", batch)]:
                while len(rows):
                    if writing is None or writing.value != value or 0 < most <= writing.rows:
                        if writing is not None:
                            yield writing.end(opened)
                        place = f"{by}={value}/" * bool(by)
                        path = f"{place}part-{uuid.uuid4().hex}.parquet"
                        (folder / path).parent.mkdir(exist_ok=True)
                        fields = pa.schema([schema.field(name) for name in kept])
                        writing = _Writing(value, path, opened.enter_context(_writer(folder / path, fields, opened)))
                    fits = len(rows) if not most else min(len(rows), most - writing.rows)
                    writing.sink.write_batch(rows.slice(0, fits).select(kept))
                    writing.rows += fits
                    rows = rows.slice(fits)
        if writing is not None:
            yield writing.end(opened)


@dataclass(slots=True)
class _Writing:
    value: str
    path: str
    sink: pq.ParquetWriter
    rows: int = 0

    def end(self, opened: ExitStack) -> StagedFile:
        opened.close()
        return StagedFile(self.path, self.rows)


def _writer(file: StatePath, schema: pa.Schema, opened: ExitStack) -> pq.ParquetWriter:
    """What writes a file of a run's work, which is read once: on a disk as it is, over a network packed."""
    sink = opened.enter_context(new_file(file))
    packed = "zstd" if isinstance(file, ObjectPath) else "none"
    return pq.ParquetWriter(sink, schema, compression=packed, use_dictionary=False)


def _runs(batch: pa.RecordBatch, by: str) -> Iterator[tuple[str, pa.RecordBatch]]:
    """The rows of a batch by the values of a column, in their order."""
    runs = pc.run_end_encode(batch[by])
    ends = runs.run_ends.to_pylist()
    for start, end, value in zip([0, *ends], ends, runs.values.to_pylist(), strict=False):
        yield value, batch.slice(start, end - start)
