"""Which files a table is made of, and which of them a question needs: by their partition and the range of their values.

Opens the table's log alone.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake.transaction import RemoveAction

from jobs.state.parts import WRITTEN, Value
from jobs.state.storage import StatePath, data_address
from jobs.state.tables import BASE, TABLES, bucket_of

if TYPE_CHECKING:
    from deltalake import DeltaTable

Filter = tuple[str, str, str | Sequence[str]]  # column, "=" or "in", value or values
Wanted = Mapping[str, Collection[str]]  # by column, values of which a row that is asked for has one in one column
_FORMAT = ds.ParquetFileFormat(default_fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=True))


@dataclass(frozen=True, slots=True)
class TableFile:
    """A data file of a table. ``lowest`` and ``highest`` are the range of its values in the columns that tell it."""

    path: str  # relative to the table's folder
    size: int
    rows: int
    partition: dict[str, str]
    lowest: dict[str, Value] = field(default_factory=dict)
    highest: dict[str, Value] = field(default_factory=dict)

    @property
    def written_by_parts(self) -> bool:
        """Whether ``parts`` wrote it, and not deltalake."""
        return WRITTEN.fullmatch(self.path.rpartition("/")[2]) is not None

    def may_hold(self, column: str, values: Sequence[str]) -> bool:
        """Whether a row may have one of the values in a column."""
        if column in self.partition:
            return self.partition[column] in values
        low, high = self.lowest.get(column), self.highest.get(column)
        return low is None or high is None or any(str(low) <= value <= str(high) for value in values)

    def removed(self, at_ms: int, *, data_change: bool) -> RemoveAction:
        """What takes the file out of the table."""
        return RemoveAction(self.path, data_change, at_ms, self.size, dict(self.partition))


@dataclass(frozen=True, slots=True)
class Group:
    """The files of one partition of a table: its rows, and in a layered table the changes to them."""

    partition: dict[str, str]  # without the layer
    base: list[TableFile]
    changes: list[TableFile]

    def rows(self, changes: bool = False) -> int:
        """Rows of its files, those of one key counted each."""
        return sum(file.rows for file in (self.changes if changes else self.base))


def files_of(table: DeltaTable, name: str) -> list[TableFile]:
    """All files of a table's version."""
    actions = pa.table(table.get_add_actions(flatten=True))
    by = TABLES[name].stored_by
    ranges = [c for c in ("seq", "team_id") if f"min.{c}" in actions.column_names]
    found = []
    for row in actions.to_pylist():
        partition = {column: row[f"partition.{column}"] for column in by}
        told = [column for column in ranges if row[f"min.{column}"] is not None]
        low, high = ({column: row[f"{end}.{column}"] for column in told} for end in ("min", "max"))
        found.append(TableFile(row["path"], row["size_bytes"], row["num_records"] or 0, partition, low, high))
    return found


def matching(files: Iterable[TableFile], filters: Sequence[Filter]) -> list[TableFile]:
    """Those of the files that may hold a row for which all filters hold."""
    wanted = [(column, [value] if isinstance(value, str) else list(value)) for column, _, value in filters]
    wanted += [("bucket", sorted({bucket_of(v) for v in values})) for column, values in wanted if column == "team_id"]
    return [f for f in files if all(f.may_hold(c, vs) for c, vs in wanted if c != "bucket" or c in f.partition)]


def condition(filters: Sequence[Filter]) -> pc.Expression | None:
    """What all filters say of a row; None without any."""
    found = None
    for column, _, value in filters:
        values = pa.array([value] if isinstance(value, str) else list(value), pa.string())
        one = pc.field(column).isin(values)
        found = one if found is None else found & one
    return found


def groups_of(files: Iterable[TableFile]) -> list[Group]:
    """The files by partition, each in the order of their paths."""
    found: dict[tuple[tuple[str, str], ...], Group] = {}
    for file in sorted(files, key=lambda one: one.path):
        partition = {column: value for column, value in file.partition.items() if column != "layer"}
        group = found.setdefault(tuple(partition.items()), Group(partition, [], []))
        (group.base if file.partition.get("layer", BASE) == BASE else group.changes).append(file)
    return list(found.values())


def data_of(folder: StatePath, name: str, files: Sequence[TableFile], wanted: Sequence[Wanted] = ()) -> ds.Dataset:
    """The rows of some files with every stored column, those of partitions too; in the order of the files.

    Row groups without a row for which all of ``wanted`` hold, by their statistics, are left out.
    """
    schema = TABLES[name].stored
    values = [{column: sorted({*given}) for column, given in one.items()} for one in wanted]
    system, root = data_address(folder)
    fragments = []
    for file in files:
        says = pc.scalar(True)
        for column, value in file.partition.items():
            says = says & (pc.field(column) == value)  # an equality alone gives the column its value
        fragment = _FORMAT.make_fragment(f"{root}/{file.path}", system, says)
        if values:
            groups = [group.id for group in fragment.row_groups if all(_may_hold(group, one) for one in values)]
            if not groups:
                continue
            fragment = fragment.subset(row_group_ids=groups)
        fragments.append(fragment)
    return ds.FileSystemDataset(fragments, schema, _FORMAT, system)


def _may_hold(group: ds.RowGroupInfo, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Whether a row of a row group may have a value that is wanted. Parquet compares strings as Python does."""
    for column, values in wanted.items():
        known = group.statistics.get(column) if group.statistics else None
        if known is None or not isinstance(known["min"], str):
            return True
        place = bisect_left(values, known["min"])
        if place < len(values) and values[place] <= known["max"]:
            return True
    return False
