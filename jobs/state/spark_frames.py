"""Spark frames in and out of the state: reading tables, writing parts on the executors, Arrow schemas as DDL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.state.parts import Part, write_part
from jobs.state.store import State
from jobs.state.tables import TABLES
from jobs.telemetry.error_reporting import without_messages

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession

SMALL_SESSION = "spark.embedmill.small"  # "true" in a session that was started for small work

_DDL = {
    pa.string(): "string",
    pa.int64(): "long",
    pa.int32(): "int",
    pa.bool_(): "boolean",
    pa.float32(): "float",
    pa.binary(): "binary",
}


def spark_ddl(schema: pa.Schema) -> str:
    """An Arrow schema as Spark DDL. Raises KeyError for a type that no table here has."""
    return ", ".join(f"`{field.name}` {_type(field.type)}" for field in schema)


def _type(kind: pa.DataType) -> str:
    return f"array<{_type(kind.value_type)}>" if pa.types.is_list(kind) else _DDL[kind]


def read_table(spark: SparkSession, state: State, name: str, partition: Mapping[str, str] | None = None) -> DataFrame:
    """A state table's current rows, optionally of some partitions only, with its columns in order."""
    spec = TABLES[name]
    files = state.files(name, partition)
    ddl = spark_ddl(spec.schema)
    if not files:
        return local_frame(spark, spec.schema, [])
    reader = as_named(spark).schema(ddl).option("basePath", str(state.root / name))
    return gathered(reader.parquet(*files).select(*spec.schema.names))


def read_rows(spark: SparkSession, schema: pa.Schema, folder: Path) -> DataFrame:
    """The Parquet files that a run has written below a folder, with the columns of ``schema``."""
    return gathered(as_named(spark).schema(spark_ddl(schema)).parquet(str(folder)))


def as_named(spark: SparkSession) -> DataFrameReader:
    """What reads the paths that it is given; Spark's own takes ``[``, ``{``, ``*`` and ``?`` in them for a pattern."""
    return spark.read.option("__globPaths__", "false")


def gathered(frame: DataFrame) -> DataFrame:
    """In a session for small work (``SMALL_SESSION``) the frame as one partition; else the frame. Columns stay.

    One partition needs no exchange: a query is one stage of one task instead of a stage for each join and grouping, and
    starting stages is most of the time of small work.
    """
    return frame.coalesce(1) if _small(frame) else frame


def dealt(frame: DataFrame, *by: str | Column, parts: int | None = None) -> DataFrame:
    """The frame with rows of the same ``by`` in one partition: writing by them makes few files. Columns stay."""
    if _small(frame):
        return frame
    return frame.repartition(parts, *by) if parts else frame.repartition(*by)


def _small(frame: DataFrame) -> bool:
    return frame.sparkSession.conf.get(SMALL_SESSION, "false") == "true"


def local_frame(spark: SparkSession, schema: pa.Schema, rows: Sequence[Mapping[str, object]]) -> DataFrame:
    """A few rows of the driver as a frame with the columns of ``schema``.

    Spark knows their number, and leaves out joins with no rows at all.
    """
    frame = spark.createDataFrame(pa.Table.from_pylist(list(rows), schema=schema), spark_ddl(schema))
    return gathered(frame) if rows else frame


def write_parts(state: State, name: str, frame: DataFrame) -> int:
    """Write a frame with a table's columns as new files of it, on the executors, and commit them; returns its rows."""
    root, cut = str(state.root), state.cut or ""
    names = TABLES[name].schema.names

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[pa.RecordBatch] = []
        with without_messages():
            for batch in batches:
                held.append(batch)
                if sum(b.nbytes for b in held) > 128_000_000:
                    yield _index(write_part(root, name, pa.Table.from_batches(held), cut))
                    held = []
            if held:
                yield _index(write_part(root, name, pa.Table.from_batches(held), cut))

    written = frame.select(*names).mapInArrow(write, "part string").toArrow()
    parts = [Part.from_json(text) for text in written["part"].to_pylist()]
    state.append(name, parts)
    return sum(part.rows for part in parts)


def _index(parts: list[Part]) -> pa.RecordBatch:
    return pa.record_batch([pa.array([part.to_json() for part in parts], pa.string())], names=["part"])
