"""Parquet files of a table that are written before they are committed."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from jobs.state.durable import flush_files
from jobs.state.storage import StatePath, new_file
from jobs.state.tables import BASE, TABLES, TableSpec, buckets_of

# What people wrote. The least and the greatest value of a file are statistics of it, which go into a table's log too.
WRITTEN_BY_PEOPLE = ("text", "meta")
_RANGES = ("seq", "team_id")  # columns whose least and greatest value in a file are in the table's log
WRITTEN = re.compile(r"part-[0-9a-f]{32}\.parquet")  # names of the files that are written here
ROW_GROUP = 20_000  # rows: what is read at least of a file for one team
HELD = 128_000_000  # bytes of rows in memory that become one file: of vectors as many, of texts about a third

Value = int | str


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file that a worker wrote below a table's folder and that no reader sees until it is committed.

    ``lowest`` and ``highest`` are the range of its values in some columns.
    """

    path: str  # relative to the table's folder
    size: int
    rows: int
    partition: dict[str, str]
    lowest: dict[str, Value] = field(default_factory=dict)
    highest: dict[str, Value] = field(default_factory=dict)

    def to_json(self) -> str:
        """For the way back from a worker."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Part:
        """Inverse of to_json."""
        return Part(**json.loads(text))

    def added(self, *, data_change: bool = True) -> AddAction:
        """What commits the file. ``data_change`` is false where its rows were there before, in other files."""
        stats: dict[str, object] = {"numRecords": self.rows}
        if self.lowest:
            stats |= {"minValues": self.lowest, "maxValues": self.highest, "nullCount": dict.fromkeys(self.lowest, 0)}
        now = int(time.time() * 1000)
        return AddAction(self.path, self.size, self.partition, now, data_change, json.dumps(stats))


def write_part(
    root: StatePath, name: str, rows: pa.Table, cut: str = "", *, seq: int = 0, layer: str = BASE
) -> list[Part]:
    """Write rows of table ``name`` as new Parquet files, one for each value of its partition columns.

    Of a layered table ``seq`` is the number that ``State.next_seq`` gave to this commit, and changes have ``gone`` too.
    Runs on any worker. The files are durable when this returns, and invisible until committed.
    """
    spec = TABLES[name]
    schema = spec.schema if layer == BASE else pa.schema([column.with_nullable(True) for column in spec.schema])
    given = rows.select(spec.schema.names).cast(schema)
    values = {"cut": cut} if spec.per_cut else {}
    if spec.layered:
        values["layer"] = layer
        given = given.append_column("seq", pa.array([seq] * len(given), pa.int64()))
        if layer != BASE:
            given = given.append_column("gone", rows["gone"])
    return write_rows(root, name, given, values)


def write_rows(root: StatePath, name: str, rows: pa.Table, values: Mapping[str, str]) -> list[Part]:
    """Write rows with what is stored of them (``TableSpec.stored``) as new files; see ``write_part``.

    ``values`` are those of the partition columns that the rows do not have, but for ``bucket``.
    """
    spec = TABLES[name]
    rows, parts = rows.combine_chunks(), []
    for own, order in _groups(rows, spec):
        partition = {column: {**own, **values}[column] for column in spec.stored_by}
        folder = "/".join(f"{column}={value}" for column, value in partition.items())
        path = f"{folder}/" * bool(folder) + f"part-{uuid.uuid4().hex}.parquet"
        file = root / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        _write(file, rows.drop_columns([column for column in own if column in rows.column_names]), order)
        told = [column for column in _RANGES if spec.bucketed and column in rows.column_names]
        ranges = {column: pc.min_max(rows[column].take(order)).as_py() for column in told}
        known = {column: found for column, found in ranges.items() if found["min"] is not None}
        lowest, highest = ({c: found[end] for c, found in known.items()} for end in ("min", "max"))
        parts.append(Part(path, file.stat().st_size, len(order), partition, lowest, highest))
    flush_files([root / name / part.path for part in parts], root / name)
    return parts


def _write(file: StatePath, rows: pa.Table, order: pa.Array) -> None:
    """Write the rows at some places, in their order. A row group at a time: a copy of all would take as much again."""
    # Vectors as they are: their bits are noise, packing them takes a core seconds and saves a twelfth.
    with new_file(file) as sink:
        packed = [f for f in rows.schema if f.name != "vector"]
        with pq.ParquetWriter(
            sink,
            rows.schema,
            use_dictionary=[f.name for f in packed],
            write_statistics=[f.name for f in packed if f.name not in WRITTEN_BY_PEOPLE],
            compression={f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name: "zstd" for f in packed},
            write_page_checksum=True,  # a flipped bit of a vector would else look like another vector
        ) as writer:
            for start in range(0, len(order), ROW_GROUP):
                writer.write_table(rows.take(order.slice(start, ROW_GROUP)), row_group_size=ROW_GROUP)


def _groups(rows: pa.Table, spec: TableSpec) -> Iterator[tuple[dict[str, str], pa.Array]]:
    """The places of the rows by their partition, with its values; of a bucketed table in the order of its files."""
    keys = rows
    if spec.bucketed:
        keys = rows.append_column("bucket", buckets_of(rows["team_id"]))
    columns = [column for column in spec.stored_by if column in keys.column_names]
    by = [*columns, *(spec.sorted_by if spec.bucketed else ())]
    if not by:
        yield {}, pa.array(np.arange(len(rows)))
    if not by or not len(rows):
        return
    order = pc.sort_indices(keys, sort_keys=[(column, "ascending") for column in by])
    start, keys = 0, keys.select(columns).take(order)
    for values in keys.group_by(columns, use_threads=False).aggregate([([], "count_all")]).to_pylist():
        count = values.pop("count_all")
        yield values, order.slice(start, count)
        start += count


def joined(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The rows in tables of about HELD bytes; none without rows."""
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        if len(batch):
            held.append(batch)
            size += batch.nbytes
        if size >= HELD:
            yield pa.Table.from_batches(held)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held)
