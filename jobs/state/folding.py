"""Folding: writes the files of a partition anew, without replaced and removed rows, and small files as larger ones.

Writes files and says what to commit; ``State.fold`` commits. Only files that hold a row which goes, and small ones, are
written anew. Rows keep their ``seq``. Memory holds the keys of the partition's changes, and one file to be written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.state.parts import Part, joined, write_rows
from jobs.state.storage import StatePath
from jobs.state.table_files import Group, TableFile, data_of
from jobs.state.table_rows import changed_rows, newest_changes
from jobs.state.tables import BASE, TABLES

SMALL = 32_000_000  # bytes of a file that is worth being joined with others
_FEW = 8  # small files, or files of changes, that are left as they are
_CHEAP = 4_000_000  # bytes of a partition that is folded after each change
_SHARE = 0.1  # of a partition's rows, that may be changes

Doomed = Callable[[pa.RecordBatch], pa.Array]  # of rows with the columns of ``Removal`` a mask of those that go


@dataclass(frozen=True, slots=True)
class Removal:
    """Rows that go for good: those of which ``doomed`` says so by ``columns``. ``teams`` have all of them."""

    columns: tuple[str, ...]
    doomed: Doomed
    teams: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Folded:
    """What to commit: ``added`` files in place of ``removed`` ones.

    ``rows`` are those that a ``Removal`` took, ``gone`` is the highest number of a removed key that is told no more.
    """

    added: list[Part]
    removed: list[TableFile]
    rows: int
    gone: int

    @property
    def size(self) -> int:
        """Bytes of the files that were read for it."""
        return sum(file.size for file in self.removed)


def due(group: Group) -> bool:
    """Whether a partition is worth folding at the end of a run: cheap to fold, or costly to read as it is."""
    small = sum(file.size < SMALL for file in group.base)
    if not group.changes:
        return small > _FEW
    cheap = sum(file.size for file in (*group.base, *group.changes)) <= _CHEAP
    return cheap or small > _FEW or len(group.changes) > _FEW or group.rows(changes=True) > _SHARE * group.rows()


class Folding:
    """Writes one partition of a table anew, in its ``folder``; ``removal`` takes further rows out of it."""

    def __init__(self, folder: StatePath, name: str, group: Group, removal: Removal | None = None) -> None:
        self._folder, self._name, self._group, self._removal = folder, name, group, removal
        self._by = TABLES[name].sorted_by
        self._newest = newest_changes(folder, name, group)
        self._taken = 0

    def fold(self, join: int) -> Folded:
        """Write the files with a row that goes anew, without it, and all changes; ``join`` small files or more too."""
        rewritten = [file for file in self._group.base if self._loses(file)]
        small = [file for file in self._group.base if file.size < SMALL and file not in rewritten]
        if len(small) >= 1 and len(small) + len(rewritten) + bool(self._group.changes) >= join:
            rewritten += small
        rewritten.sort(key=lambda file: file.path)
        partition = self._group.partition | ({"layer": BASE} if TABLES[self._name].layered else {})
        added: list[Part] = []
        for table in joined(self._surviving(rewritten)):
            added += write_rows(self._folder.parent, self._name, table, partition)
        gone = self._newest.gone if self._newest is not None else 0
        return Folded(added, [*rewritten, *self._group.changes], self._taken, gone)

    def _loses(self, file: TableFile) -> bool:
        """Whether a row of a base file goes. Reads its keys alone, and those only where they may be meant."""
        teams, columns = set[str](), dict.fromkeys(self._by)
        if self._newest is not None:
            teams.update(self._newest.rows["team_id"].unique().to_pylist())
            columns["seq"] = None
        if self._removal is not None:
            teams.update(self._removal.teams)
            columns |= dict.fromkeys(self._removal.columns)
        if not teams or not file.may_hold("team_id", sorted(teams)):
            return False
        batches = data_of(self._folder, self._name, [file]).to_batches(columns=list(columns))
        return any(pc.any(pc.invert(self._staying(batch))).as_py() for batch in batches)

    def _staying(self, batch: pa.RecordBatch) -> pa.Array:
        """Which base rows stay."""
        stays = pa.array(np.ones(len(batch), bool)) if self._newest is None else self._newest.kept(batch, self._by)
        if self._removal is not None:
            stays = pc.and_(stays, pc.invert(pc.fill_null(self._removal.doomed(batch), False)))
        return stays

    def _surviving(self, files: list[TableFile]) -> Iterator[pa.RecordBatch]:
        """The rows of base files and of all changes that stay; counts those that the removal takes."""
        spec = TABLES[self._name]
        own = {*spec.stored_by, "gone"}.difference(spec.partition_by)
        columns = [column for column in spec.stored.names if column not in own]
        for batch in self._rows(files, columns):
            if self._removal is None:
                yield batch
            else:
                stays = pc.invert(pc.fill_null(self._removal.doomed(batch), False))
                self._taken += len(batch) - (pc.sum(stays).as_py() or 0)
                yield batch.filter(stays)

    def _rows(self, files: list[TableFile], columns: list[str]) -> Iterator[pa.RecordBatch]:
        data = data_of(self._folder, self._name, files)
        for batch in data.to_batches(columns=columns, batch_readahead=2, fragment_readahead=1):
            yield batch if self._newest is None else batch.filter(self._newest.kept(batch, self._by))
        if self._newest is not None:
            yield from changed_rows(self._folder, self._name, self._group, self._newest, columns)
