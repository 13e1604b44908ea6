"""Parquet: one file's columns, a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs.sources.table.batch import Batch, ColumnFault, DataFile, opened

_ROWS = 8_192
_BUFFER = 1 << 22


class ParquetData:
    """An open Parquet file.

    ``places`` says by which name of the file a wanted column goes, or by which field id; without it by its own.
    ``dropped`` (bool by row of the file) are rows that a deletion vector takes away.
    """

    def __init__(
        self, path: DataFile, *, places: Mapping[str, str | int] | None = None, dropped: np.ndarray | None = None
    ) -> None:
        # Times of Spark's older format go past the nanoseconds of 64 bits, which would wrap.
        self._file = pq.ParquetFile(
            opened(path),
            coerce_int96_timestamp_unit="us",
            pre_buffer=False,
            buffer_size=_BUFFER,
            page_checksum_verification=True,
        )
        self._schema = self._file.schema_arrow
        self._places = places
        self._dropped = dropped

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)

    def type_of(self, column: str) -> pa.DataType | None:
        """The type of a wanted column; None where the file does not have it."""
        found = self._find(column)
        if found is None:
            return None
        kind = self._schema.field(found[0]).type
        for name in found[1:]:
            kind = kind.field(name).type
        return kind

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Rows in their order, those that are dropped left out. A column that is not there is of nulls."""
        found = {column: place for column in columns if (place := self._find(column))}
        names = sorted({place[0] for place in found.values()})
        start = 0
        # Without a column a batch still says how many rows it has only where one is read.
        for batch in self._file.iter_batches(_ROWS, columns=names or self._schema.names[:1]):
            stop = start + batch.num_rows
            if self._dropped is not None:
                keep = ~self._dropped[start:stop]  # what lies past its end is kept
                keep = np.append(keep, np.ones(batch.num_rows - len(keep), bool))
                batch = batch.filter(pa.array(keep))
            start = stop
            filled = {column: pa.nulls(batch.num_rows) for column in columns}
            for column, place in found.items():
                array = batch.column(place[0])
                for name in place[1:]:
                    array = pc.struct_field(array, name)
                filled[column] = array
            yield Batch(batch.num_rows, filled)

    def _find(self, column: str) -> tuple[str, ...] | None:
        """Where a column is: its name in the file, and the way into it where it is a part of a struct."""
        place = self._places.get(column) if self._places is not None else column
        if isinstance(place, int):
            return self._by_field_id(place)
        if place is None:
            return None
        if self._schema.names.count(place) > 1:
            raise ColumnFault("ambiguous_column", f"two columns are named {place!r}")
        if place in self._schema.names:
            return (place,)
        return self._inside(place) if self._places is None else None

    def _inside(self, column: str) -> tuple[str, ...] | None:
        parts = tuple(column.split("."))
        if len(parts) == 1 or self._schema.names.count(parts[0]) != 1:
            return None
        kind = self._schema.field(parts[0]).type
        for part in parts[1:]:
            if not pa.types.is_struct(kind) or kind.get_field_index(part) < 0:
                return None
            kind = kind.field(part).type
        return parts

    def _by_field_id(self, wanted: int) -> tuple[str, ...] | None:
        numbers = [(field.metadata or {}).get(b"PARQUET:field_id") for field in self._schema]
        if not any(numbers):
            raise ColumnFault("missing_field_ids", "the table finds its columns by ids that this file does not have")
        for field, number in zip(self._schema, numbers, strict=True):
            if number == str(wanted).encode():
                return (field.name,)
        return None
