"""Reads the rows of a table from its files: of a layered table each key as its newest change left it.

A base row counts unless a change of its key has a higher number, and of each key the newest change counts, unless it
removes the key. Where a partition has no changes, its files are read as they are. Memory holds the keys of one
partition's changes, and the batch that is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from jobs.state.storage import StatePath
from jobs.state.table_files import Filter, Group, TableFile, condition, data_of, groups_of
from jobs.state.tables import TABLES

_HEAVY = ("text", "meta", "vector")  # what makes rows heavy; no filter asks for it


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest change of each key of one partition.

    ``rows``: the columns of ``TableSpec.sorted_by``, ``seq`` and ``gone``. ``shown`` says of each row of the change
    files, in their order, whether it is what counts of its key and is not gone.
    """

    rows: pa.Table
    keys: pa.Array
    shown: pa.BooleanArray

    @property
    def gone(self) -> int:
        """The highest number of a change that removes a key and counts; 0 without any."""
        return int(pc.max(self.rows.filter(self.rows["gone"])["seq"]).as_py() or 0)

    def kept(self, batch: pa.RecordBatch | pa.Table, by: Sequence[str]) -> pa.Array:
        """Which base rows (with ``seq`` and the key's columns ``by``) no change replaces."""
        place = pc.index_in(key_of(batch, by), self.keys)
        newer = pc.greater(self.rows["seq"].combine_chunks().take(place), pc.fill_null(batch["seq"], 0))
        return pc.invert(pc.fill_null(newer, False))


def key_of(rows: pa.RecordBatch | pa.Table, by: Sequence[str]) -> pa.Array:
    """Columns of a key in one, joined by NUL."""
    joined = pc.binary_join_element_wise(*(rows[column] for column in by), "\0")
    return joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined


def newest_changes(folder: StatePath, name: str, group: Group) -> Newest | None:
    """The newest change of each key of a partition; None of one without changes."""
    if not group.changes:
        return None
    by = TABLES[name].sorted_by
    told = data_of(folder, name, group.changes).to_table(columns=[*by, "seq", "gone"])
    places = newest_first(told, by)
    rows = told.take(places).combine_chunks()
    rows = rows.set_column(rows.column_names.index("gone"), "gone", pc.fill_null(rows["gone"], False))
    shown = np.zeros(len(told), bool)
    shown[places.filter(pc.invert(rows["gone"]).combine_chunks()).to_numpy()] = True
    return Newest(rows, key_of(rows, by), pa.array(shown))


def newest_first(rows: pa.Table, by: Sequence[str]) -> pa.Array:
    """Places of the rows with the highest ``seq`` of each key, the columns ``by``; of equal ones that of the last row.

    Places are sorted by key.
    """
    numbered = rows.select([*by, "seq"]).append_column("row", pa.array(np.arange(len(rows))))
    keys = [(column, "ascending") for column in by]
    order = pc.sort_indices(numbered, sort_keys=[*keys, ("seq", "descending"), ("row", "descending")])
    sorted_keys = key_of(numbered.take(order), by)
    first = np.ones(len(rows), bool)
    if len(rows) > 1:
        first[1:] = pc.not_equal(sorted_keys[1:], sorted_keys[:-1]).to_numpy(zero_copy_only=False)
    return order.filter(pa.array(first))


def changed_rows(
    folder: StatePath, name: str, group: Group, newest: Newest, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    """The rows of a partition that its changes show, with these stored columns."""
    start = 0
    for batch in data_of(folder, name, group.changes).to_batches(columns=list(columns)):
        yield batch.filter(newest.shown.slice(start, len(batch)))
        start += len(batch)


def base_rows(
    folder: StatePath,
    name: str,
    files: Sequence[TableFile],
    newest: Newest,
    columns: Sequence[str],
    where: pc.Expression | None,
) -> Iterator[pa.RecordBatch]:
    """Those rows of base files that no change replaces, with these stored columns."""
    by = TABLES[name].sorted_by
    wanted = list(dict.fromkeys([*columns, *by, "seq"]))
    for batch in scan(folder, name, files, wanted, where):
        yield batch.filter(newest.kept(batch, by)).select(list(columns))


def scan(
    folder: StatePath, name: str, files: Sequence[TableFile], columns: Sequence[str], where: pc.Expression | None
) -> Iterator[pa.RecordBatch]:
    """The rows of files for which ``where`` holds, with these stored columns.

    What deltalake wrote says that its texts are string views, which a filter of the scan cannot compare.
    """
    ours = [file for file in files if where is None or file.written_by_parts]
    others = [file for file in files if where is not None and not file.written_by_parts]
    if ours:
        yield from data_of(folder, name, ours).to_batches(columns=list(columns), filter=where)
    if others:
        assert where is not None
        for batch in data_of(folder, name, others).to_batches(columns=_with_light(name, columns)):
            yield from _filtered(batch, columns, where)


def _with_light(name: str, columns: Sequence[str]) -> list[str]:
    """These columns, and all that a filter may ask for."""
    return [column for column in TABLES[name].stored.names if column in columns or column not in _HEAVY]


def _filtered(batch: pa.RecordBatch, columns: Sequence[str], where: pc.Expression) -> Iterator[pa.RecordBatch]:
    return ds.dataset(pa.Table.from_batches([batch])).to_batches(columns=list(columns), filter=where)


class TableRows:
    """The rows of a table's ``files`` for which ``filters`` hold. Loads nothing until it is asked."""

    def __init__(
        self, folder: StatePath, name: str, files: Sequence[TableFile], filters: Sequence[Filter] = ()
    ) -> None:
        self._folder, self._name, self._where = folder, name, condition(filters)
        groups = groups_of(files)
        self._layered = [group for group in groups if group.changes]
        self._plain = [file for group in groups if not group.changes for file in group.base]

    def _filter(self, further: pc.Expression | None) -> pc.Expression | None:
        if self._where is None or further is None:
            return self._where if further is None else further
        return self._where & further

    def to_batches(
        self,
        columns: Sequence[str] | None = None,
        filter: pc.Expression | None = None,  # noqa: A002, as in pyarrow
    ) -> Iterator[pa.RecordBatch]:
        """The rows as batches with these columns, else with all stored ones."""
        yield from (batch for batch in self._batches(columns, self._filter(filter)) if len(batch))

    def _batches(self, columns: Sequence[str] | None, where: pc.Expression | None) -> Iterator[pa.RecordBatch]:
        wanted = list(TABLES[self._name].stored.names if columns is None else columns)
        yield from scan(self._folder, self._name, self._plain, wanted, where)
        for group in self._layered:
            newest = newest_changes(self._folder, self._name, group)
            assert newest is not None
            yield from base_rows(self._folder, self._name, group.base, newest, wanted, where)
            read = wanted if where is None else _with_light(self._name, wanted)
            for batch in changed_rows(self._folder, self._name, group, newest, read):
                yield from [batch] if where is None else _filtered(batch, wanted, where)

    def to_table(self, columns: Sequence[str] | None = None, filter: pc.Expression | None = None) -> pa.Table:  # noqa: A002
        """The rows in memory."""
        stored = TABLES[self._name].stored
        schema = pa.schema([stored.field(column) for column in (stored.names if columns is None else columns)])
        return pa.Table.from_batches(self.to_batches(columns, filter), schema=schema)

    def count_rows(self, filter: pc.Expression | None = None) -> int:  # noqa: A002
        """Their number. Where nothing is asked of the rows and no change lies beside them, the table's log tells it."""
        where = self._filter(filter)
        column = [TABLES[self._name].sorted_by[0]]
        if where is None:
            count = sum(file.rows for file in self._plain)
        else:
            count = sum(len(batch) for batch in scan(self._folder, self._name, self._plain, column, where))
        if self._layered:
            alone = TableRows(self._folder, self._name, [f for g in self._layered for f in (*g.base, *g.changes)])
            count += sum(len(batch) for batch in alone.to_batches(column, where))
        return count
