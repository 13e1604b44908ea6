"""Frames of Spark: for work that is larger than one process, or on another cluster. See ``frames``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa

from jobs.state.frames import Batches, Frame, Frames, as_table, parts_of
from jobs.state.parts import Part
from jobs.state.store import State
from jobs.state.table_files import TableFile, Wanted
from jobs.state.tables import TABLES
from jobs.telemetry.error_reporting import without_messages

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, DataFrameReader, SparkSession

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
        reader = self._reader(schema).option("basePath", str(root))
        return reader.parquet(*(str(root / file.path) for file in files)).select(*schema.names)

    def files(self, schema: pa.Schema, folder: Path) -> Frame:
        """See ``Frames``."""
        if not any(folder.rglob("*.parquet")):
            return self.local(schema, [])
        return self._reader(schema).parquet(str(folder)).select(*schema.names)

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

    def write(self, frame: Frame, folder: Path, *, by: str = "", spread: str = "", most: int = 0) -> int:
        """See ``Frames``."""
        from pyspark.sql import Observation
        from pyspark.sql import functions as F

        sent, rows = Observation(), _frame(frame)
        if by:  # rows of one folder in one task: else each task writes a file to each
            rows = rows.repartition(by, *[spread] * bool(spread)).drop(spread)
        writer = rows.observe(sent, F.count(F.lit(1)).alias("rows")).write
        if by:
            writer = writer.partitionBy(by)
        if most:
            writer = writer.option("maxRecordsPerFile", most)
        writer.parquet(str(folder), mode="overwrite")
        return int(sent.get["rows"])

    def parts(self, frame: Frame, root: str, name: str, cut: str, seq: int) -> list[Part]:
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
        self, tasks: pa.Table, function: Callable[[Batches], Batches], schema: pa.Schema, folder: Path
    ) -> None:
        """See ``Frames``. Dealt round, so that no task ends up with all the heavy ones."""
        width = max(1, min(len(tasks), self._spark.sparkContext.defaultParallelism * 4))
        numbered = tasks.append_column("task", pa.array([n % width for n in range(len(tasks))], pa.int32()))
        rows = _frame(self.local(numbered.schema, numbered)).repartitionById(width, "task").drop("task")
        rows.mapInArrow(function, spark_ddl(schema)).write.parquet(str(folder), mode="overwrite")

    def close(self) -> None:
        """See ``Frames``."""

    def _reader(self, schema: pa.Schema) -> DataFrameReader:
        # Paths as they are given; Spark's own way takes ``[``, ``{``, ``*`` and ``?`` in them for a pattern.
        return self._spark.read.option("__globPaths__", "false").schema(spark_ddl(schema))


def _frame(frame: Frame) -> DataFrame:
    return cast("DataFrame", frame)
