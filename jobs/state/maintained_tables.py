"""What keeps the state's tables small and whole: rows and files that go, changes that are folded, logs that are cut."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import DeltaTable

from embedding.errors import LeaseHeldError
from jobs.state.durable import flush_checkpoint, flush_removals
from jobs.state.fencing import LOST, check, commits_since, newest, noted, refuse_unfenced
from jobs.state.folding import Folded, Folding, Removal
from jobs.state.path_alias import LINKED, delta_files
from jobs.state.readable_tables import FORGOTTEN, SEQ
from jobs.state.storage import remove_all, remove_files
from jobs.state.table_files import Group
from jobs.state.tables import TABLES, bucket_of
from jobs.state.writable_tables import CHECKPOINTS, COMMITS, WritableTables, rewritten

_AT_ONCE = 256_000_000  # bytes of files that are folded in one transaction, at least of one partition


class MaintainedTables(WritableTables):
    """The tables below ``root``, whose rows and files can be removed too."""

    def drop(self, name: str, where: str) -> int:
        """Delete the rows, of every cut, for which an SQL condition holds; returns how many."""
        if TABLES[name].layered:  # an older row must not come back in place of a deleted change
            self.fold(name)
        table, done = self._taken(name), dict[str, Any]()
        before = table.version()
        with self._committing(name, table, **self._forgetting(table, name)) as properties:
            done = table.delete(where, writer_properties=rewritten(name), commit_properties=properties)
        if not done:  # its answer was lost
            *_, said = commits_since(self.root / name, before)
            done = said["operationMetrics"]
        return int(done.get("num_deleted_rows") or 0)

    def drop_rows(self, name: str, team: str, column: str, values: Collection[str]) -> int:
        """Delete a team's rows, of every cut, that have one of the ``values`` in a column; returns how many.

        Of a bucketed table: it writes anew the files of the team's bucket that hold such a row.
        """
        if not values:
            return 0
        wanted = pa.array(sorted(values), pa.string())

        def doomed(batch: pa.RecordBatch) -> pa.Array:
            return pc.and_(pc.equal(batch["team_id"], team), pc.is_in(batch[column], wanted))

        groups = [group for group in self.every_cut().groups(name, {"bucket": bucket_of(team)})]
        return self.fold(name, groups, removal=Removal(("team_id", column), doomed, (team,)))

    def fold(
        self, name: str, groups: Iterable[Group] | None = None, *, removal: Removal | None = None, join: int = 1_000
    ) -> int:
        """Write partitions anew without replaced and removed rows, else those that have changes; see ``folding``.

        Some partitions in a transaction. Returns how many rows the ``removal`` took.
        """
        refuse_unfenced(self._fence)
        if groups is None:
            groups = [group for group in self.every_cut().groups(name) if group.changes]
        done, rows = list[Folded](), 0
        for group in groups:
            done.append(Folding(self.root / name, name, group, removal).fold(join))
            rows += done[-1].rows
            if sum(one.size for one in done) >= _AT_ONCE:
                self._replace(name, done)
                done = []
        self._replace(name, done)
        return rows

    def _replace(self, name: str, done: Sequence[Folded]) -> None:
        """Commit what was folded, in one transaction."""
        if not any(one.removed for one in done):
            return
        spec, table, now = TABLES[name], self._grown(name), int(time.time() * 1000)
        changed, gone = any(one.rows for one in done), max(one.gone for one in done)
        actions = [part.added(data_change=changed) for one in done for part in one.added]
        removes = [file.removed(now, data_change=changed) for one in done for file in one.removed]
        with self._committing(name, table, **self._forgetting(table, name, None if changed else gone)) as properties:
            table.create_write_transaction(
                [*actions, *removes],
                mode="append",
                schema=spec.stored,
                partition_by=spec.stored_by,
                commit_properties=properties,
            )

    def _forgetting(self, table: DeltaTable, name: str, gone: int | None = None) -> dict[str, int]:
        """What a commit notes that removes rows for good: up to which change, else all, removals are told no more."""
        if not TABLES[name].layered or gone == 0:
            return {}
        return {FORGOTTEN: max(noted(table, FORGOTTEN), noted(table, SEQ) if gone is None else gone)}

    def vacuum(self, name: str, *, hours: int) -> list[str]:
        """Remove files that no version younger than ``hours`` needs, and those of killed runs; returns their paths.

        Call it only while holding the lease: files that were written and not committed yet look like a killed run's.
        """
        self._add(name, [])  # so that this is still the lease's holder; what another one writes is not looked at below
        table, folder = self.table(name), self.root / name
        if isinstance(folder, Path) and table.table_uri.startswith(LINKED):  # that store takes folders for files
            gone = _unneeded(folder, {*delta_files(table, folder)}, hours)
        else:
            gone = table.vacuum(retention_hours=hours, enforce_retention_duration=False, dry_run=True, full=True)
        remove_files(folder, gone)
        flush_removals(folder)
        return gone

    def repair(self, name: str) -> None:
        """Take data files that are missing out of a table's log."""
        table = self._taken(name)
        with self._committing(name, table) as properties:
            table.repair(commit_properties=properties)

    def make_anew(self, name: str, *, keep_files: bool = False) -> None:
        """Remove a table and create it empty; with ``keep_files`` only its log is removed.

        Its log begins with this lease's number. No commit guards the removal: ask the lease just before. Raises
        LeaseHeldError where a later lease has committed to any table.
        """
        refuse_unfenced(self._fence)
        if self.newest_fence() > self._fence:
            raise LeaseHeldError(LOST)
        folder = self.root / name
        try:
            before = self.newest_seq(name)
        except Exception:  # it may be damaged in any way
            before = 0
        remove_all(folder / "_delta_log" if keep_files else folder)
        self._create(name, after=before)

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        """Commit properties of a table, such as how long its log is kept."""
        table = self._taken(name)
        with self._committing(name, table) as commit:
            table.alter.set_table_properties(dict(properties), commit_properties=commit)

    def shorten_log(self, name: str) -> None:
        """Have a table that an earlier release created write checkpoints as often as a new one."""
        if self.table(name).metadata().configuration.get(CHECKPOINTS) != COMMITS:
            self.set_properties(name, {CHECKPOINTS: COMMITS})

    def checkpoint(self, name: str) -> None:
        """Write a checkpoint of a table's newest version, and remove the log entries that its retention lets go.

        Raises LeaseHeldError where a later lease has committed.
        """
        table = self._taken(name)
        check(table, self._fence)
        table.create_checkpoint()
        flush_checkpoint(self.root / name, table.version())
        table.cleanup_metadata()
        flush_removals(self.root / name)

    def newest_fence(self) -> int:
        """The highest number of a lease under which any table was committed to; see ``fencing.newest``."""
        return newest(self._opened.shown, TABLES)


def _unneeded(folder: Path, current: Set[Path], hours: int) -> list[str]:
    gone = []
    for file in folder.rglob("*.parquet"):
        other = "_delta_log" not in file.parts and file not in current
        if other and time.time() - file.stat().st_mtime >= hours * 3600:
            gone.append(str(file.relative_to(folder)))
    return gone
