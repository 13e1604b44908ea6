"""Frames of Spark: for work that is larger than one process, or on another cluster. See ``frames``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pyarrow.dataset as ds

from jobs.state.frames import Batches, Frame, Frames, as_table, parts_of
from jobs.state.parts import Part
from jobs.state.staging import Staged, StagedFile, begin_staging, commit_staged, write_staged
from jobs.state.storage import StatePath
from jobs.state.store import State
from jobs.state.table_files import TableFile, Wanted, data_of
from jobs.state.tables import TABLES
from jobs.telemetry.error_reporting import without_messages

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

_ROWS = 16_384  # of a batch that a worker reads
_TASKS = 4  # for each core
_DDL = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.int32(): "int",
    pa.bool_(): "boolean",
    pa.float32(): "float",
    pa.float64(): "double",
    pa.binary(): "binary",
}


def spark_ddl(schema: pa.Schema) -> str:
    """An Arrow schema as Spark DDL. Raises KeyError for a type that no table here has."""
    return ", ".join(f"`{field.name}` {_type(field.type)}" for field in schema)


def _type(kind: pa.DataType) -> str:
    return f"array<{_type(kind.value_type)}>" if pa.types.is_list(kind) else _DDL[kind]


class SparkFrames(Frames):
    """Frames of a Spark session."""

    def __init__(self, spark: SparkSession) -> None:
        self._spark = spark

    def stored(self, state: State, name: str, files: Sequence[TableFile], wanted: Sequence[Wanted] = ()) -> Frame:
        """See ``Frames``. Spark reads whole files."""
        schema, root = TABLES[name].stored, state.root / name
        if not _spark_reads(root):
            return self._read_by_workers([partial(data_of, root, name, [file]) for file in files], schema)
        reader = self._spark.read.schema(spark_ddl(schema)).option("basePath", str(root))
        return reader.parquet(*(str(root / file.path) for file in files)).select(*schema.names)

    def files(self, schema: pa.Schema, rows: Staged) -> Frame:
        """See ``Frames``."""
        if not rows.files:
            return self.local(schema, [])
        if not _spark_reads(rows.folder):
            each = [Staged(rows.folder, (file,)) for file in rows.files]
            return self._read_by_workers([partial(one.data, schema) for one in each], schema)
        reader = self._spark.read.schema(spark_ddl(schema))
        return reader.parquet(*(str(path) for path in rows.paths)).select(*schema.names)

    def _read_by_workers(self, opened: Sequence[Callable[[], ds.Dataset]], schema: pa.Schema) -> DataFrame:
        """The rows of datasets that workers open by themselves, where Spark has no reader of its own."""

        def read(batches: Batches) -> Batches:
            for batch in batches:
                for number in batch["number"].to_pylist():
                    found = opened[number]().to_batches(columns=schema.names, batch_size=_ROWS)
                    yield from (rows for rows in found if len(rows))

        tasks = min(len(opened), self._spark.sparkContext.defaultParallelism * _TASKS)
        numbers = self._spark.range(len(opened), numPartitions=tasks).withColumnRenamed("id", "number")
        return numbers.mapInArrow(read, spark_ddl(schema))

    def local(self, schema: pa.Schema, rows: pa.Table | Sequence[Mapping[str, object]]) -> Frame:
        """See ``Frames``. Spark knows their number, and leaves out joins with no rows at all.

        In one piece: Spark (4.3) takes an Arrow batch without rows, as filters leave them, for the end of all rows.
        """
        return self._spark.createDataFrame(as_table(schema, rows).combine_chunks(), spark_ddl(schema))

    def sql(self, query: str, **named: Frame) -> Frame:
        """See ``Frames``."""
        return self._spark.sql(query, None, **cast("dict[str, DataFrame]", named))

    @contextmanager
    def keep(self, frame: Frame) -> Iterator[Frame]:
        """See ``Frames``."""
        kept = _frame(frame).persist()
        try:
            yield kept
        finally:
            kept.unpersist()

    def collect(self, frame: Frame) -> pa.Table:
        """See ``Frames``."""
        return _frame(frame).toArrow()

    def write(self, frame: Frame, folder: StatePath, *, by: str = "", spread: str = "", most: int = 0) -> int:
        """See ``Frames``. The executors write."""
        rows = _frame(frame)
        if by:  # rows of one folder in one task: else each task writes a file to each
            rows = rows.repartition(by, *[spread] * bool(spread)).drop(spread).sortWithinPartitions(by)
        return _stage(rows, lambda batches: batches, folder, by=by, most=most)

    def parts(self, frame: Frame, root: StatePath, name: str, cut: str, seq: int) -> list[Part]:
        """See ``Frames``. The executors write."""

        def write(batches: Batches) -> Batches:
            with without_messages():
                for part in parts_of(batches, root, name, cut, seq):
                    yield pa.record_batch([pa.array([part.to_json()], pa.string())], names=["part"])

        rows = _frame(frame).select(*TABLES[name].schema.names)
        return [Part.from_json(text) for text in rows.mapInArrow(write, "part string").toArrow()["part"].to_pylist()]

    def map(
        self,
        frame: Frame,
        function: Callable[[Batches], Batches],
        schema: pa.Schema,
        *,
        by: Sequence[str] = (),
        order: Sequence[str] = (),
    ) -> Frame:
        """See ``Frames``."""
        rows = _frame(frame)
        if by:
            rows = rows.repartition(*by).sortWithinPartitions(*by, *order)
        return rows.mapInArrow(function, spark_ddl(schema))

    def read_each(
        self, tasks: pa.Table, function: Callable[[Batches], Batches], schema: pa.Schema, folder: StatePath
    ) -> None:
        """See ``Frames``. Dealt round, so that no task ends up with all the heavy ones."""
        width = max(1, min(len(tasks), self._spark.sparkContext.defaultParallelism * _TASKS))
        numbered = tasks.append_column("task", pa.array([n % width for n in range(len(tasks))], pa.int32()))
        rows = _frame(self.local(numbered.schema, numbered)).repartitionById(width, "task").drop("task")
        _stage(rows, function, folder)

    def close(self) -> None:
        """See ``Frames``."""


def _spark_reads(folder: StatePath) -> bool:
    """Whether Spark itself reads the files of a folder: it takes some characters of a path for a pattern."""
    return isinstance(folder, Path) and re.search(r"[?*\[\]{}\\]", str(folder)) is None


def _stage(
    rows: DataFrame, made: Callable[[Batches], Batches], folder: StatePath, *, by: str = "", most: int = 0
) -> int:
    """Have the executors stage what a function makes of rows; returns how many they wrote."""
    begin_staging(folder)

    def write(batches: Batches) -> Batches:
        with without_messages():
            found = made(batches)
            if (ahead := next(found, None)) is not None:
                for file in write_staged(chain([ahead], found), folder, ahead.schema, by=by, most=most):
                    yield pa.record_batch([[file.path], pa.array([file.rows], pa.int64())], names=["path", "rows"])

    sent = rows.mapInArrow(write, "path string, rows long").toArrow().to_pylist()
    return commit_staged(folder, [StagedFile(**file) for file in sent]).rows


def _frame(frame: Frame) -> DataFrame:
    return cast("DataFrame", frame)
