"""Spark frames in and out of the state: reading tables, writing parts on the executors, Arrow schemas as DDL."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.state.parts import Part, write_part
from jobs.state.store import State
from jobs.state.table_files import Group, TableFile
from jobs.state.table_rows import changed_rows, newest_changes
from jobs.state.tables import TABLES, TableSpec
from jobs.telemetry.error_reporting import without_messages

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, DataFrameReader, SparkSession

# Changes of a table up to which this process hands them to Spark; of more, Spark finds the newest.
FEW_ROWS = 100_000
FEW_BYTES = 32_000_000
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
    """A state table's current rows, optionally of some partitions only, with its columns in order.

    Changes that lie beside the rows of a layered table replace those of their keys; where there are none, the rows are
    read as they are.
    """
    from pyspark.sql import functions as F

    spec = TABLES[name]
    groups = state.groups(name, partition)
    base = [file for group in groups for file in group.base]
    changes = [file for group in groups for file in group.changes]
    if not changes:
        return gathered(_files(spark, state, name, base, spec.schema)) if base else local_frame(spark, spec.schema, [])
    if sum(file.rows for file in changes) <= FEW_ROWS and sum(file.size for file in changes) <= FEW_BYTES:
        newer, shown = _few_changes(spark, state, name, groups)
    else:
        newer, shown = _many_changes(_files(spark, state, name, changes, spec.stored), spec)
    if not base:
        return gathered(shown)
    same = [f"row.`{column}` = newer.`{column}`" for column in _identity(spec)]
    rows = _files(spark, state, name, base, spec.stored).alias("row")
    kept = rows.join(newer.alias("newer"), on=F.expr(" AND ".join([*same, "row.`seq` < newer.`seq`"])), how="left_anti")
    return gathered(kept.select(*spec.schema.names).unionByName(shown))


def _identity(spec: TableSpec) -> list[str]:
    """The columns that tell a row of a table from all others, of every cut."""
    return [*["cut"] * spec.per_cut, *spec.key]


def _files(spark: SparkSession, state: State, name: str, files: Sequence[TableFile], schema: pa.Schema) -> DataFrame:
    root = state.root / name
    reader = as_named(spark).schema(spark_ddl(schema)).option("basePath", str(root))
    return reader.parquet(*(str(root / file.path) for file in files)).select(*schema.names)


def _few_changes(spark: SparkSession, state: State, name: str, groups: Sequence[Group]) -> tuple[DataFrame, DataFrame]:
    """The newest change of each key (identity and ``seq``), to be broadcast, and the rows that changes show.

    They are read here and handed to Spark.
    """
    from pyspark.sql import functions as F

    spec, folder = TABLES[name], state.root / name
    keys = pa.schema([spec.stored.field(column) for column in [*_identity(spec), "seq"]])
    columns = pa.schema([spec.stored.field(column) for column in spec.schema.names])
    newer, shown = [keys.empty_table()], [columns.empty_table()]
    for group in groups:
        if (newest := newest_changes(folder, name, group)) is not None:
            rows = newest.rows
            for column in [column for column in keys.names if column not in rows.column_names]:
                rows = rows.append_column(column, pa.array([group.partition[column]] * len(rows), pa.string()))
            newer.append(rows.select(keys.names))
            batches = changed_rows(folder, name, group, newest, columns.names)
            shown.append(pa.Table.from_batches(batches, schema=columns))
    return (
        F.broadcast(arrow_frame(spark, pa.concat_tables(newer))),
        arrow_frame(spark, pa.concat_tables(shown)),
    )


def _many_changes(changes: DataFrame, spec: TableSpec) -> tuple[DataFrame, DataFrame]:
    """As ``_few_changes``, computed by Spark."""
    from pyspark.sql import functions as F

    identity = _identity(spec)
    others = [column for column in changes.columns if column not in identity]
    newest = changes.groupBy(*identity).agg(F.max_by(F.struct(*others), F.col("seq")).alias("newest"))
    newest = newest.select(*identity, "newest.*")
    shown = newest.where("NOT coalesce(gone, false)").select(*spec.schema.names)
    return newest.select(*identity, "seq"), shown


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
    frame = arrow_frame(spark, pa.Table.from_pylist(list(rows), schema=schema))
    return gathered(frame) if rows else frame


def arrow_frame(spark: SparkSession, rows: pa.Table) -> DataFrame:
    """Rows of the driver as a frame with the same columns.

    In one piece: Spark (4.3) takes an Arrow batch without rows, as filters leave them, for the end of all rows.
    """
    return spark.createDataFrame(rows.combine_chunks(), spark_ddl(rows.schema))


def write_parts(state: State, name: str, frame: DataFrame) -> int:
    """Write a frame with a table's columns as new files of it, on the executors, and commit them; returns its rows."""
    root, cut = str(state.root), state.cut or ""
    names = TABLES[name].schema.names
    seq = state.next_seq(name) if TABLES[name].layered else 0

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        held: list[pa.RecordBatch] = []
        with without_messages():
            for batch in batches:
                held.append(batch)
                if sum(b.nbytes for b in held) > 128_000_000:
                    yield _index(write_part(root, name, pa.Table.from_batches(held), cut, seq=seq))
                    held = []
            if held:
                yield _index(write_part(root, name, pa.Table.from_batches(held), cut, seq=seq))

    written = frame.select(*names).mapInArrow(write, "part string").toArrow()
    parts = [Part.from_json(text) for text in written["part"].to_pylist()]
    state.append(name, parts)
    return sum(part.rows for part in parts)


def _index(parts: list[Part]) -> pa.RecordBatch:
    return pa.record_batch([pa.array([part.to_json() for part in parts], pa.string())], names=["part"])
