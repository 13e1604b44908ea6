"""The state: ACID tables (Delta Lake) below one folder, the hash key, the spaces, and the versions that were live.

Distributed writers call ``write_part`` and hand back a ``Part``; only the driver commits, in one transaction.
"""

from __future__ import annotations

import copy
import json
import os
import shutil
import socket
import time
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from deltalake import ColumnProperties, DeltaTable, WriterProperties
from deltalake.exceptions import TableNotFoundError
from deltalake.schema import Schema
from deltalake.transaction import AddAction

from embedding.errors import ConfigError, EmbedmillError, LeaseHeldError
from jobs.state.fencing import LOST, check, fenced, newest, numbered, refuse_unfenced
from jobs.state.hash_key import given_key, make_key, stored_key
from jobs.state.integrity import Damage, damage_error, recorded_versions
from jobs.state.parts import _WRITTEN_BY_PEOPLE, Part
from jobs.state.path_alias import LINKED, delta_files, delta_uri
from jobs.state.state_folder import Marker, open_folder, read_marker, write_marker
from jobs.state.tables import TABLES


class State:
    """Handle on the tables below ``root``. Opening creates the folder, private to the user.

    Of the tables that are kept for each way of cutting texts it shows and changes the rows of ``cut`` alone; without
    one it shows all, and changes none.

    ``fence`` is the number of the lease under which it commits, and creates a table or the hash key that is missing.
    Without one it is open for reading: a table that never was there has no rows, and every method that changes what is
    there raises ValueError. ``for_writing`` gives the same tables with a number.

    Raises ConfigError for a folder that is not embedmill's and for a hash key of another length, ResourceError for one
    that cannot be used, DamagedStateError where the hash key was lost.
    """

    def __init__(self, root: Path, *, cut: str | None = None, hash_key: str = "", fence: int = 0) -> None:
        self.root = root
        self.cut = cut
        self._fence = fence
        self.private = open_folder(root)
        self._key = given_key(hash_key) or stored_key(root)
        if fence and not self._key:
            self._key = make_key(root)

    @property
    def hash_key(self) -> bytes:
        """The key of content hashes. Raises ConfigError where nothing has been written yet."""
        self._key = self._key or stored_key(self.root)
        if not self._key:
            raise ConfigError(f"state.uri: nothing was written to {self.root} yet; run `embedmill run` first")
        return self._key

    # -- space ---------------------------------------------------------------------------------------------------

    def spaces(self) -> dict[str, dict[str, str]]:
        """What was made here: ``model``, ``cut`` and, where it was noted, ``encoder`` by space_id.

        Raises ConfigError for a state of another format, DamagedStateError for a marker that is no JSON.
        """
        return {space_id: dict(space) for space_id, space in read_marker(self.root).spaces.items()}

    def note_space(self, space_id: str, model: str, encoder: str = "") -> None:
        """Remember a space, its model's name, its cut and its ``Space.encoder_id``. Call it while holding the lease."""
        marker = read_marker(self.root)
        if space_id not in marker.spaces:
            noted = {"model": model, "cut": self.cut or ""} | ({"encoder": encoder} if encoder else {})
            self._mark(replace(marker, spaces={**marker.spaces, space_id: noted}))

    def served(self) -> tuple[str, ...] | None:
        """Index versions that were ever live; None where only releases that did not note them have written."""
        return read_marker(self.root).served

    def keep_served(self, versions: Iterable[str]) -> None:
        """Remember these versions, and no others, as ever live. Call it only while holding the lease."""
        self._mark(replace(read_marker(self.root), served=tuple(versions)))

    def _mark(self, marker: Marker) -> None:
        refuse_unfenced(self._fence)
        write_marker(self.root, marker)

    # -- tables --------------------------------------------------------------------------------------------------

    def table(self, name: str) -> DeltaTable:
        """Open a table at its newest version; one that never was there is created where this is open for writing.

        Raises DamagedStateError, or LostPurgesError, for one that was there, and ValueError for one that never was in a
        state that is open for reading.
        """
        if (found := self._found(name)) is not None:
            return found
        refuse_unfenced(self._fence)
        spec = TABLES[name]
        return DeltaTable.create(
            delta_uri(self.root / name),
            schema=spec.stored,
            mode="ignore",
            partition_by=spec.stored_by,
            commit_properties=numbered(self._fence),
        )

    def _found(self, name: str) -> DeltaTable | None:
        """The table, None for one that never was there. Raises DamagedStateError or LostPurgesError."""
        try:
            return DeltaTable(delta_uri(self.root / name))
        except TableNotFoundError:
            if recorded_versions(self.root).get(name) is not None:
                raise damage_error(self.root, Damage(name, name, "is missing", log=True)) from None
            return None

    def _grown(self, name: str) -> DeltaTable:
        """The table, to be written to, with the columns that an earlier version of embedmill did not know."""
        table = self.table(name)
        known = {field.name for field in table.schema().fields}
        if new := [field for field in Schema.from_arrow(TABLES[name].stored).fields if field.name not in known]:
            with fenced(table, self._fence) as properties:
                table.alter.add_columns(new, commit_properties=properties)
            table = self.table(name)
        return table

    def files(self, name: str, partition: Mapping[str, str] | None = None) -> list[str]:
        """Paths of a table's current files, for Spark."""
        filters = self._within(name) + [(column, "=", value) for column, value in (partition or {}).items()]
        table = self._found(name)
        return [str(file) for file in delta_files(table, self.root / name, filters)] if table is not None else []

    def read(self, name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Read a table into memory: ``columns``, or all, of the rows for which ``where`` holds.

        Only for tables whose size does not grow with the number of chunks; see ``team_rows`` for the others.
        """
        wanted = list(columns or TABLES[name].schema.names)
        if where is None:
            return self.dataset(name).to_table(columns=wanted)
        # Filtered afterwards and not in the scan: file statistics come back as string views, which a pushed-down
        # filter cannot compare. The two columns that make rows heavy are read only where asked for.
        light = [c for c in TABLES[name].schema.names if c in wanted or c not in ("text", "vector")]
        return self.dataset(name).to_table(columns=light).filter(where).select(wanted)

    def append(self, name: str, parts: Sequence[Part]) -> None:
        """Commit files that workers wrote, all in one transaction.

        Raises EmbedmillError for one that is not there: then its worker does not see this state, and wrote elsewhere.
        """
        if not parts:
            return
        for part in parts:
            file = self.root / name / part.path
            if not file.exists() or file.stat().st_size != part.size:
                raise EmbedmillError(
                    f"a worker wrote {part.rows:,} rows of table {name!r} that are not in {self.root}: driver and "
                    "workers must see one and the same state.uri"
                )
        now = int(time.time() * 1000)
        actions = [AddAction(p.path, p.size, p.partition, now, True, json.dumps({"numRecords": p.rows})) for p in parts]
        self._add(name, actions)

    def _add(self, name: str, actions: list[AddAction]) -> None:
        spec, table = TABLES[name], self._grown(name)
        with fenced(table, self._fence) as properties:
            table.create_write_transaction(
                [*actions], mode="append", schema=spec.stored, partition_by=spec.stored_by, commit_properties=properties
            )

    def merge(self, name: str, rows: pa.Table | pa.RecordBatchReader, *, only: Sequence[str] = ()) -> None:
        """Upsert rows by the table's key; rows with ``_delete`` true are removed instead.

        One transaction. ``rows`` has the table's columns and ``_delete``; keys must not repeat in it. With ``only``
        some columns, a row that is there keeps its others and is not removed.
        """
        spec = TABLES[name]
        values = {column: f"s.`{column}`" for column in spec.schema.names}
        keys = " AND ".join(f"t.`{column}` = s.`{column}`" for column in spec.key)
        if spec.per_cut:
            if self.cut is None:
                raise ValueError(f"{name} is changed for one cut at a time")
            values["cut"] = f"'{self.cut}'"
            keys += f" AND t.`cut` = '{self.cut}'"
        table = self._grown(name)
        with fenced(table, self._fence) as properties:
            merger = table.merge(
                rows,
                predicate=keys,
                source_alias="s",
                target_alias="t",
                writer_properties=_rewritten(name),
                commit_properties=properties,
            ).when_not_matched_insert(updates=values, predicate="NOT s.`_delete`")
            if not only:
                merger = merger.when_matched_delete(predicate="s.`_delete`")
            merger.when_matched_update(updates={column: values[column] for column in only or values}).execute()

    def change(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """``merge`` of a few rows given as dicts with ``_delete``; a column that is left out is null."""
        if rows:
            self.merge(name, pa.Table.from_pylist(list(rows), schema=TABLES[name].changes))

    def count(self, name: str, where: pc.Expression | None = None) -> int:
        """Number of rows."""
        return int(self.dataset(name).count_rows(filter=where))

    def distinct(self, name: str, columns: Sequence[str]) -> set[tuple[Any, ...]]:
        """The different values of some columns."""
        found: set[tuple[Any, ...]] = set()
        for batch in self.dataset(name).to_batches(columns=list(columns)):
            different = pa.Table.from_batches([batch]).group_by(list(columns)).aggregate([])
            found.update(zip(*(different[column].to_pylist() for column in columns), strict=True))
        return found

    def dataset(self, name: str, filters: Sequence[tuple[str, str, str | list[str]]] = ()) -> ds.Dataset:
        """The rows of this cut with every stored column, of the partitions for which ``filters`` hold; loads none."""
        table = self._found(name)
        if table is None:
            return ds.dataset(TABLES[name].stored.empty_table())
        within = [*self._within(name), *filters]
        return table.to_pyarrow_dataset(schema=TABLES[name].stored, file_pruning_predicate=within or None)

    def _within(self, name: str) -> list[tuple[str, str, str]]:
        return [("cut", "=", self.cut)] if TABLES[name].per_cut and self.cut is not None else []

    def every_cut(self) -> Self:
        """The same tables with the rows of every cut."""
        return self.of_cut(None)

    def of_cut(self, cut: str | None) -> Self:
        """The same tables with the rows of one cut."""
        state = copy.copy(self)
        state.cut = cut
        return state

    def for_writing(self, fence: int) -> Self:
        """The same tables, to commit to under the lease of this number (1 or higher)."""
        state = copy.copy(self)
        state._fence = fence
        state._key = self._key or stored_key(self.root) or make_key(self.root)
        return state

    def values(self, name: str, column: str) -> list[str]:
        """Values of a partition column, of every cut."""
        table = self._found(name)
        return sorted({str(partition[column]) for partition in table.partitions()}) if table is not None else []

    def drop(self, name: str, where: str) -> int:
        """Delete the rows, of every cut, for which an SQL condition holds; returns how many."""
        table = self.table(name)
        with fenced(table, self._fence) as properties:
            done = table.delete(where, writer_properties=_rewritten(name), commit_properties=properties)
            return int(done.get("num_deleted_rows") or 0)

    def vacuum(self, name: str, *, hours: int) -> list[str]:
        """Remove files that no version younger than ``hours`` needs, and those of killed runs; returns their paths.

        Call it only while holding the lease: files that were written and not committed yet look like a killed run's.
        """
        table = self.table(name)
        check(table, self._fence)
        if table.table_uri.startswith(LINKED):  # that store takes folders for files
            return _vacuum(self.root / name, {*delta_files(table, self.root / name)}, hours)
        with fenced(table, self._fence) as properties:
            return list(
                table.vacuum(
                    retention_hours=hours,
                    enforce_retention_duration=False,
                    dry_run=False,
                    full=True,
                    commit_properties=properties,
                )
            )

    def repair(self, name: str) -> None:
        """Take data files that are missing out of a table's log."""
        table = self.table(name)
        with fenced(table, self._fence) as properties:
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
        shutil.rmtree(folder / "_delta_log" if keep_files else folder, ignore_errors=True)
        self.table(name)

    def set_properties(self, name: str, properties: Mapping[str, str]) -> None:
        """Commit properties of a table, such as how long its log is kept."""
        table = self.table(name)
        with fenced(table, self._fence) as commit:
            table.alter.set_table_properties(dict(properties), commit_properties=commit)

    def checkpoint(self, name: str) -> None:
        """Write a checkpoint of a table's newest version, and remove the log entries that its retention lets go.

        Raises LeaseHeldError where a later lease has committed.
        """
        table = self.table(name)
        check(table, self._fence)
        table.create_checkpoint()
        table.cleanup_metadata()

    def newest_fence(self) -> int:
        """The highest number of a lease under which any table was committed to."""
        return newest(delta_uri(self.root / name) for name in TABLES)

    def raise_fence(self) -> None:
        """Let every table see this lease's number, where an earlier holder may only be slow and not dead."""
        for name in TABLES:
            self._add(name, [])

    # -- work ----------------------------------------------------------------------------------------------------

    @property
    def engines(self) -> Path:
        """Scratch folder of this process's engines, which outlive a run."""
        return self.root / "work" / f"engines-{socket.gethostname()}-{os.getpid()}"

    @property
    def engine_log(self) -> Path:
        """What the engines wrote to standard error."""
        return self.root / "work" / "engines.log"

    def work(self, run_id: str) -> Path:
        """Scratch folder of one run. Holds text, so it is private and goes when the run ends."""
        folder = self.root / "work" / run_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder


def _vacuum(folder: Path, current: Set[Path], hours: int) -> list[str]:
    gone = []
    for file in folder.rglob("*.parquet"):
        other = "_delta_log" not in file.parts and file not in current
        if other and time.time() - file.stat().st_mtime >= hours * 3600:
            file.unlink()
            gone.append(str(file.relative_to(folder)))
    return gone


def _rewritten(name: str) -> WriterProperties:
    """How a merge or a delete writes the rows that it keeps."""
    silent = {
        c: ColumnProperties(statistics_enabled="NONE") for c in _WRITTEN_BY_PEOPLE if c in TABLES[name].schema.names
    }
    return WriterProperties(compression="ZSTD", column_properties=silent or None)
