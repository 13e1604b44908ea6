"""Frames of DuckDB, in this process: for work that is smaller than the start of Spark. See ``frames``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, cast

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from embedding.errors import ConfigError, ResourceError
from jobs.state.frames import Batches, Frame, Frames, as_table, columns, parts_of
from jobs.state.parts import Part
from jobs.state.path_alias import plain
from jobs.state.pieces import pieces_of
from jobs.state.reading_processes import over_files, read_in_processes
from jobs.state.staging import Staged, begin_staging, commit_staged, stage, write_staged
from jobs.state.storage import StatePath, remove_all
from jobs.state.table_files import data_of
from jobs.state.tables import TABLES

if TYPE_CHECKING:
    from jobs.state.store import State
    from jobs.state.table_files import TableFile, Wanted

_ROWS = 4096  # of a batch
_PIECE_ROWS = 25_000  # that are mapped by one process at a time: of fewer the processes take longer to start
LITTLE_BYTES = 4_000_000  # of sources: processes that read take a second to start
# Functions by the names and with the meaning that Spark gives them.
_MACROS = (
    "xxhash64(x) AS CAST(hash(x) >> 1 AS BIGINT)",  # another hash, as good to deal rows by
    "pmod(a, b) AS ((a % b) + b) % b",
    "collect_list(x) AS coalesce(list(x) FILTER (WHERE x IS NOT NULL), [])",
    "sort_array(x) AS list_sort(x)",
    "array_join(x, mark) AS array_to_string(x, mark)",
    "regexp_like(x, pattern) AS regexp_matches(x, pattern)",
)


@dataclass(frozen=True, slots=True)
class DuckFrame:
    """A view, or a table in memory, of a connection."""

    name: str
    columns: list[str]


class DuckFrames(Frames):
    """Frames in a database of this process alone. What does not fit ``memory`` ("2g") goes to ``scratch``."""

    def __init__(self, scratch: Path, memory: str) -> None:
        """Raises ConfigError for an amount of memory that cannot be read."""
        scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._scratch, self._mapped, self._memory = scratch, scratch / "mapped", _bytes(memory)
        self._number = 0
        self._opened: duckdb.DuckDBPyConnection | None = None

    @property
    def _database(self) -> duckdb.DuckDBPyConnection:
        if self._opened is None:
            self._opened = duckdb.connect(
                config={
                    "temp_directory": str(plain(self._scratch)),
                    "memory_limit": self._memory,
                    "threads": os.cpu_count() or 1,
                    "autoinstall_known_extensions": False,
                    "autoload_known_extensions": False,
                }
            )
            for macro in _MACROS:
                self._opened.execute(f"CREATE MACRO {macro}")
        return self._opened

    def close(self) -> None:
        """See ``Frames``. The next frame opens a database anew."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        remove_all(self._mapped)  # texts

    def stored(self, state: State, name: str, files: Sequence[TableFile], wanted: Sequence[Wanted] = ()) -> Frame:
        """See ``Frames``."""
        rows = data_of(state.root / name, name, files, wanted)
        return DuckFrame(self._registered(rows), TABLES[name].stored.names)

    def files(self, schema: pa.Schema, rows: Staged) -> Frame:
        """See ``Frames``."""
        return DuckFrame(self._registered(rows.data(schema)), schema.names)

    def local(self, schema: pa.Schema, rows: pa.Table | Sequence[Mapping[str, object]]) -> Frame:
        """See ``Frames``."""
        return DuckFrame(self._registered(as_table(schema, rows)), schema.names)

    def sql(self, query: str, **named: Frame) -> Frame:
        """See ``Frames``."""
        return self._named(query.format(**{name: cast("DuckFrame", frame).name for name, frame in named.items()}))

    @contextmanager
    def keep(self, frame: Frame) -> Iterator[Frame]:
        """See ``Frames``."""
        name = self._new_name()
        with _in_memory():
            self._database.execute(f"CREATE TEMP TABLE {name} AS SELECT * FROM {cast('DuckFrame', frame).name}")
        try:
            yield DuckFrame(name, frame.columns)
        finally:
            self._database.execute(f"DROP TABLE {name}")

    def collect(self, frame: Frame) -> pa.Table:
        """See ``Frames``."""
        with _in_memory():
            return self._database.sql(f"SELECT * FROM {cast('DuckFrame', frame).name}").to_arrow_table()

    def write(self, frame: Frame, folder: StatePath, *, by: str = "", spread: str = "", most: int = 0) -> int:
        """See ``Frames``. In this process: it has no use for ``spread``."""
        names = [name for name in frame.columns if name != spread]
        rows = self._reader(frame, names, order=[by] if by else [])
        return stage(rows, folder, rows.schema, by=by, most=most).rows

    def parts(self, frame: Frame, root: StatePath, name: str, cut: str, seq: int) -> list[Part]:
        """See ``Frames``."""
        return list(parts_of(self._batches(frame, TABLES[name].schema.names), root, name, cut, seq))

    def map(
        self,
        frame: Frame,
        function: Callable[[Batches], Batches],
        schema: pa.Schema,
        *,
        by: Sequence[str] = (),
        order: Sequence[str] = (),
    ) -> Frame:
        """See ``Frames``. Many rows of several groups by a process for each core; the function can then be pickled."""
        batches = self._reader(frame, frame.columns, order=[*by, *order])
        cores = os.cpu_count() or 1
        pieces: Iterator[Iterable[pa.RecordBatch]] = iter([batches])
        if by and cores > 1:
            pieces = pieces_of(batches, by, _PIECE_ROWS)
        ahead = list(islice(pieces, 2))
        if len(ahead) < 2:
            rows = chain.from_iterable(ahead)
            return self.local(schema, pa.Table.from_batches(function(rows), schema=schema))
        folder = self._mapped / self._new_name()
        written, made = folder / "pieces", folder / "made"
        for place in (written, made):
            begin_staging(place)
        wrote = (write_staged(piece, written, batches.schema) for piece in chain(ahead, pieces))
        files = [written / file.path for file in chain.from_iterable(wrote)]
        tasks = pa.table({"path": [str(file) for file in files], "size": [file.stat().st_size for file in files]})
        read_in_processes(tasks, over_files(function), schema, made, processes=cores)
        remove_all(written)
        return self.files(schema, commit_staged(made))

    def read_each(
        self, tasks: pa.Table, function: Callable[[Batches], Batches], schema: pa.Schema, folder: StatePath
    ) -> None:
        """See ``Frames``. Little in this process: half of the time is the tokenizer's, which uses all cores here."""
        cores = os.cpu_count() or 1
        if cores > 1 and len(tasks) > 1 and pc.sum(tasks["size"]).as_py() > LITTLE_BYTES:
            begin_staging(folder)
            read_in_processes(tasks, function, schema, folder, processes=cores)
            commit_staged(folder)
            return
        os.environ["TOKENIZERS_PARALLELISM"] = "true"
        stage(function(iter(tasks.to_batches(_ROWS))), folder, schema)

    def _batches(self, frame: Frame, names: Sequence[str], *, order: Sequence[str] = ()) -> Batches:
        return iter(self._reader(frame, names, order=order))

    def _reader(
        self,
        frame: Frame,
        names: Sequence[str],
        *,
        order: Sequence[str] = (),
    ) -> pa.RecordBatchReader:
        sorted_by = f" ORDER BY {columns(order)}" if order else ""
        query = f"SELECT {columns(names)} FROM {cast('DuckFrame', frame).name}{sorted_by}"
        with _in_memory():
            return self._database.sql(query).to_arrow_reader(_ROWS)

    def _named(self, query: str) -> DuckFrame:
        name = self._new_name()
        self._database.execute(f"CREATE TEMP VIEW {name} AS {query}")
        return DuckFrame(name, [column[0] for column in self._database.execute(f"FROM {name} LIMIT 0").description])

    def _registered(self, rows: pa.Table | ds.Dataset) -> str:
        name = self._new_name()
        self._database.register(name, rows)
        return name

    def _new_name(self) -> str:
        self._number += 1
        return f"frame_{self._number}"


@contextmanager
def _in_memory() -> Iterator[None]:
    """Raise ResourceError where DuckDB cannot do with its memory, also with what it put on the disk."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise ResourceError(
            "the tables of this run need more memory than spark.driver_memory; raise it, or have Spark compare them: "
            "spark.in_process_mb = 0"
        ) from None


def _bytes(memory: str) -> str:
    """An amount of memory as Java writes it ("2g", "512m", or bytes), as DuckDB does. Raises ConfigError."""
    found = re.fullmatch(r"([0-9]+)([kmgt]?)b?", memory.strip().lower())
    if found is None:
        raise ConfigError(f'spark.driver_memory: {memory!r} is no amount of memory; write it as "2g" or "512m"')
    number, unit = found.groups()
    return f"{number}{unit.upper()}iB" if unit else f"{number}B"
