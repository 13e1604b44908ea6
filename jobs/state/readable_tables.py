"""What is read of the state's tables, the way of cutting texts and the changes beside the rows taken into account."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError

from jobs.state.changed_rows import Changed, changed_files
from jobs.state.fencing import noted
from jobs.state.integrity import Damage, damage_error, recorded_versions
from jobs.state.opened_tables import OpenedTables
from jobs.state.storage import StatePath
from jobs.state.table_files import Filter, Group, files_of, groups_of, matching
from jobs.state.table_rows import TableRows
from jobs.state.tables import TABLES

SEQ, FORGOTTEN = "seq", "forgotten"  # numbers noted in commits: the newest change, the newest that is told no more


class ReadableTables:
    """The tables below ``root``; of those that are kept for each way of cutting texts the rows of ``cut``, or all."""

    def __init__(self, root: StatePath, cut: str | None) -> None:
        self.root = root
        self.cut = cut
        self._opened = OpenedTables(root)
        self._absent = set[str]()  # tables that never were there, when they were asked for

    def found(self, name: str) -> DeltaTable | None:
        """The table at its newest version, to read from at once; None for one that never was there.

        Raises DamagedStateError or LostPurgesError for one that was there.
        """
        return self._found(name, self._opened.shown)

    def _found(self, name: str, opened: Callable[[str], DeltaTable]) -> DeltaTable | None:
        try:
            table = opened(name)
            self._absent.discard(name)
            return table
        except TableNotFoundError:
            if name not in self._absent and recorded_versions(self.root).get(name) is not None:
                raise damage_error(self.root, Damage(name, name, "is missing", log=True)) from None
            self._absent.add(name)
            return None

    def groups(self, name: str, partition: Mapping[str, str] | None = None, teams: Sequence[str] = ()) -> list[Group]:
        """A table's current files by partition; those of its rows, and those of changes to them.

        With ``teams`` only files that may hold a row of one of them.
        """
        table = self.found(name)
        filters: list[Filter] = [*self._within(name), *((c, "=", value) for c, value in (partition or {}).items())]
        if teams:
            filters.append(("team_id", "in", teams))
        return groups_of(matching(files_of(table, name), filters)) if table is not None else []

    def files(self, name: str, partition: Mapping[str, str] | None = None) -> list[str]:
        """Paths of a table's current files, those of changes too."""
        found = [file for group in self.groups(name, partition) for file in (*group.base, *group.changes)]
        return [str(self.root / name / file.path) for file in found]

    def read(self, name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Read a table into memory: ``columns``, or all, of the rows for which ``where`` holds.

        Only for tables whose size does not grow with the number of chunks; see ``team_rows`` for the others.
        """
        return self.dataset(name).to_table(list(columns or TABLES[name].schema.names), where)

    def count(self, name: str, where: pc.Expression | None = None) -> int:
        """Number of rows."""
        return self.dataset(name).count_rows(where)

    def distinct(self, name: str, columns: Sequence[str], filters: Sequence[Filter] = ()) -> set[tuple[Any, ...]]:
        """The different values of some columns, of the rows for which all ``filters`` hold."""
        found: set[tuple[Any, ...]] = set()
        for batch in self.dataset(name, filters).to_batches(list(columns)):
            different = pa.Table.from_batches([batch]).group_by(list(columns)).aggregate([])
            found.update(zip(*(different[column].to_pylist() for column in columns), strict=True))
        return found

    def dataset(self, name: str, filters: Sequence[Filter] = ()) -> TableRows:
        """The rows of this cut with every stored column for which all ``filters`` hold; loads none."""
        table = self.found(name)
        within = [*self._within(name), *filters]
        files = matching(files_of(table, name), within) if table is not None else []
        return TableRows(self.root / name, name, files, within)

    def every_cut(self) -> Self:
        """The same tables with the rows of every cut."""
        return self.of_cut(None)

    def of_cut(self, cut: str | None) -> Self:
        """The same tables with the rows of one cut."""
        state = copy.copy(self)
        state.cut = cut
        return state

    def _within(self, name: str) -> list[Filter]:
        return [("cut", "=", self.cut)] if TABLES[name].per_cut and self.cut is not None else []

    def values(self, name: str, column: str) -> list[str]:
        """Values of a partition column, of every cut."""
        table = self.found(name)
        return sorted({file.partition[column] for file in files_of(table, name)}) if table is not None else []

    # -- changes -------------------------------------------------------------------------------------------------

    def newest_seq(self, name: str) -> int:
        """The number of a layered table's newest change; 0 of a table that never was there."""
        table = self.found(name)
        return noted(table, SEQ) if table is not None else 0

    def changed_since(self, name: str, seq: int, partition: Mapping[str, str] | None = None) -> Changed:
        """What changed in a layered table after its change ``seq``, by this cut and partition.

        Opens the table's log and the files of what changed. Not complete where rows were removed for good that a
        reader of ``seq`` may still have.
        """
        table = self.found(name)
        if table is None:
            return Changed(self.root / name, name, [], seq, complete=True)
        filters = [*self._within(name), *((column, "=", value) for column, value in (partition or {}).items())]
        files = changed_files(matching(files_of(table, name), filters), seq)
        return Changed(self.root / name, name, files, seq, complete=seq == 0 or noted(table, FORGOTTEN) <= seq)
