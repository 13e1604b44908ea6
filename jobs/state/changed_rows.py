"""What changed in a layered table since a number: rows that came or are others now, and keys that went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from jobs.state.storage import StatePath
from jobs.state.table_files import TableFile, data_of, groups_of
from jobs.state.table_rows import newest_first
from jobs.state.tables import TABLES


@dataclass(frozen=True, slots=True)
class Changed:
    """The changes of a table after ``seq``, in these ``files``; none is read before it is asked for.

    Where it is not ``complete``, keys have gone of which nothing is told: compare with the whole table.
    """

    folder: StatePath
    name: str
    files: Sequence[TableFile] = field(repr=False)
    seq: int
    complete: bool

    @property
    def at_most(self) -> int:
        """A bound of the number of rows, by the table's log alone."""
        return sum(file.rows for file in self.files)

    def read(self, columns: Sequence[str] | None = None) -> pa.Table:
        """The newest change of each key: ``columns``, or all, and ``_delete``, true of a key that went.

        Columns of a key that went are null, but for those of the key.
        """
        spec = TABLES[self.name]
        wanted = list(spec.schema.names if columns is None else columns)
        needed = list(dict.fromkeys([*wanted, *spec.sorted_by, "seq", "gone"]))
        schema = pa.schema([*(spec.stored.field(column) for column in wanted), ("_delete", pa.bool_())])
        found = [schema.empty_table()]
        for group in groups_of(self.files):
            data = data_of(self.folder, self.name, [*group.base, *group.changes])
            rows = data.to_table(columns=needed, filter=pc.field("seq") > self.seq)
            rows = rows.take(newest_first(rows, spec.sorted_by))
            rows = rows.append_column("_delete", pc.fill_null(rows["gone"], False))
            found.append(rows.select(schema.names).cast(schema))
        return pa.concat_tables(found)


def changed_files(files: Sequence[TableFile], seq: int) -> list[TableFile]:
    """Those of the files that may hold a row with a higher number."""
    return [file for file in files if int(file.highest.get("seq", seq + 1)) > seq]
