"""Parquet files of a table that are written before they are committed."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.state.tables import TABLES

# What people wrote. The least and the greatest value of a file are statistics of it, which go into a table's log too.
_WRITTEN_BY_PEOPLE = ("text", "meta")


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file that a worker wrote below a table's folder and that no reader sees until it is committed."""

    path: str  # relative to the table's folder
    size: int
    rows: int
    partition: dict[str, str]

    def to_json(self) -> str:
        """For the way back from a worker."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Part:
        """Inverse of to_json."""
        return Part(**json.loads(text))


def write_part(root: str, name: str, rows: pa.Table, cut: str = "") -> list[Part]:
    """Write rows of table ``name`` as new Parquet files, one for each value of its partition columns.

    Runs on any worker. The files are durable when this returns, and invisible until committed.
    """
    spec = TABLES[name]
    rows = rows.select(spec.schema.names).cast(spec.schema)
    parts = []
    for values, group in _groups(rows, spec.partition_by):
        stored_by = ({"cut": cut} if spec.per_cut else {}) | values
        folder = "/".join(f"{column}={value}" for column, value in stored_by.items())
        path = f"{folder}/" * bool(folder) + f"part-{uuid.uuid4().hex}.parquet"
        file = Path(root) / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as sink:
            stored = group.drop_columns(list(values))
            # Vectors as they are: their bits are noise, packing them takes a core seconds and saves a twelfth.
            packed = [f for f in stored.schema if f.name != "vector"]
            pq.write_table(
                stored,
                sink,
                use_dictionary=[f.name for f in packed],
                write_statistics=[f.name for f in packed if f.name not in _WRITTEN_BY_PEOPLE],
                compression={f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name: "zstd" for f in packed},
                write_page_checksum=True,  # a flipped bit of a vector would else look like another vector
            )
            sink.flush()
            os.fsync(sink.fileno())
        parts.append(Part(path, file.stat().st_size, group.num_rows, stored_by))
    return parts


def _groups(rows: pa.Table, columns: tuple[str, ...]) -> Iterable[tuple[dict[str, str], pa.Table]]:
    if not columns:
        yield {}, rows
        return
    for values in rows.select(columns).group_by(list(columns)).aggregate([]).to_pylist():
        mask = None
        for column, value in values.items():
            equal = pc.equal(rows[column], value)
            mask = equal if mask is None else pc.and_(mask, equal)
        yield values, rows.filter(mask)
