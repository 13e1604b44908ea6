"""What writes to the state's tables: every commit under the lease of its writer.

A change of a layered table is appended beside its rows, and costs what it is itself; ``MaintainedTables.fold`` joins
the two.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import ColumnProperties, CommitProperties, DeltaTable, WriterProperties
from deltalake.exceptions import DeltaError
from deltalake.schema import Schema

from embedding.errors import EmbedmillError
from jobs.state.durable import flush_commits
from jobs.state.fencing import fenced, newest, noted, numbered, refuse_unfenced
from jobs.state.parts import ROW_GROUP, WRITTEN_BY_PEOPLE, Part, joined, write_part
from jobs.state.readable_tables import FORGOTTEN, SEQ, ReadableTables
from jobs.state.storage import StatePath, delta_address, open_delta, sizes_of
from jobs.state.table_rows import key_of
from jobs.state.tables import CHANGES, TABLES, buckets_of

# Of a table's log: commits between two checkpoints. Whatever opens a table reads what came since the last one.
CHECKPOINTS, COMMITS = "delta.checkpointInterval", "10"
_BY_TIME = ("runs",)  # tables whose new keys are higher than those of its files, by the statistics of deltalake


class WritableTables(ReadableTables):
    """The tables below ``root``, to be changed under the lease of the number ``fence``; 0 is open for reading."""

    def __init__(self, root: StatePath, cut: str | None, fence: int) -> None:
        super().__init__(root, cut)
        self._fence = fence

    def table(self, name: str) -> DeltaTable:
        """Open a table at its newest version; one that never was there is created where this is open for writing.

        Raises DamagedStateError, or LostPurgesError, for one that was there, and ValueError for one that never was in a
        state that is open for reading.
        """
        return found if (found := self.found(name)) is not None else self._create(name, after=0)

    def _taken(self, name: str) -> DeltaTable:
        """``table`` for one commit to it: no other thread advances what that is checked against."""
        found = self._found(name, self._opened.taken)
        return found if found is not None else self._create(name, after=0)

    def _create(self, name: str, after: int) -> DeltaTable:
        """Create a table; the numbers of its changes are higher than ``after``."""
        refuse_unfenced(self._fence)
        spec = TABLES[name]
        first = max(after + 1, _now())
        try:
            table = DeltaTable.create(
                **delta_address(self.root / name),
                schema=spec.stored,
                mode="ignore",
                partition_by=spec.stored_by,
                configuration={CHECKPOINTS: COMMITS},
                commit_properties=numbered(self._fence, "", **({SEQ: first, FORGOTTEN: first} if spec.layered else {})),
            )
        except DeltaError:  # its answer was lost, or another run was faster
            if (made := self._found(name, self._opened.taken)) is None:
                raise
            table = made
        flush_commits(self.root / name, after=-1)
        return table

    @contextmanager
    def _committing(self, name: str, table: DeltaTable, **noted: int) -> Iterator[CommitProperties]:
        """See ``fenced``. ``table`` was taken. What the block commits is on the disk when this returns."""
        before = table.version()
        with fenced(self.root / name, table, self._fence, **noted) as properties:
            yield properties
        flush_commits(self.root / name, after=before)
        self._opened.put_back(name, table)

    def fenced_by(self, fence: int) -> Self:
        """The same tables, to be changed under another lease."""
        tables = copy.copy(self)
        tables._fence = fence
        return tables

    def _grown(self, name: str) -> DeltaTable:
        """The table, taken for a commit, with the columns that an earlier version of embedmill did not know."""
        table = self._taken(name)
        known = {field.name for field in table.schema().fields}
        if new := [field for field in Schema.from_arrow(TABLES[name].stored).fields if field.name not in known]:
            with self._committing(name, table) as properties:
                table.alter.add_columns(new, commit_properties=properties)
            table = self._taken(name)
        return table

    def next_seq(self, name: str) -> int:
        """The number of the next change of a layered table: higher than all before, also of a table made anew."""
        return max(noted(self.table(name), SEQ) + 1, _now())

    def append(self, name: str, parts: Sequence[Part]) -> None:
        """Commit files that workers wrote, all in one transaction. Their rows have keys that the table has no row of.

        Raises EmbedmillError for one that is not there: then its worker does not see this state, and wrote elsewhere.
        Raises ValueError for one of a layered table that was not written with a number of ``next_seq``.
        """
        if not parts:
            return
        there = sizes_of(self.root / name, [part.path for part in parts])
        for part in parts:
            if there[part.path] != part.size:
                raise EmbedmillError(
                    f"a worker wrote {part.rows:,} rows of table {name!r} that are not in {self.root}: driver and "
                    "workers must see one and the same state.uri"
                )
        self._add(name, parts)

    def _add(self, name: str, parts: Sequence[Part]) -> None:
        spec, table = TABLES[name], self._grown(name)
        actions = [part.added() for part in parts]
        seqs = [int(part.lowest.get(SEQ, 0)) for part in parts] if spec.layered else []
        with self._committing(name, table, **({SEQ: max(seqs)} if seqs else {})) as properties:
            if seqs and min(seqs) <= noted(table, SEQ):
                raise ValueError(f"{name}: rows are written under a number of next_seq, and committed once")
            table.create_write_transaction(
                [*actions], mode="append", schema=spec.stored, partition_by=spec.stored_by, commit_properties=properties
            )

    def merge(self, name: str, rows: pa.Table | pa.RecordBatchReader, *, only: Sequence[str] = ()) -> None:
        """Upsert rows by the table's key; rows with ``_delete`` true are removed instead.

        One transaction; of a layered table it costs what the rows are, and without ``only`` reads nothing. ``rows`` has
        the table's columns and ``_delete``; keys must not repeat in it. With ``only`` some columns, a row that is there
        keeps its others and is not removed.
        """
        if TABLES[name].per_cut and self.cut is None:
            raise ValueError(f"{name} is changed for one cut at a time")
        if not TABLES[name].layered:
            self._merge(name, rows, only)
            return
        refuse_unfenced(self._fence)
        if only:
            table = rows if isinstance(rows, pa.Table) else rows.read_all()
            rows = self._filled(name, table.select(TABLES[name].changes.names), only)
        seq, parts = self.next_seq(name), list[Part]()
        for changes in joined(rows.to_batches() if isinstance(rows, pa.Table) else rows):
            named = changes.rename_columns({"_delete": "gone"})
            parts += write_part(self.root, name, named, self.cut or "", seq=seq, layer=CHANGES)
        if parts:
            self._add(name, parts)

    def _filled(self, name: str, rows: pa.Table, only: Sequence[str]) -> pa.Table:
        """The rows of the table with these keys as they are but for ``only``, and those that are not in the table."""
        spec = TABLES[name]
        within = [(column, "in", rows[column].unique().to_pylist()) for column in spec.key]
        held = self.dataset(name, within).to_table(spec.schema.names)
        place = pc.index_in(key_of(held, spec.key), key_of(rows, spec.key))
        held, place = held.filter(pc.is_valid(place)), place.filter(pc.is_valid(place))
        for column in only:
            held = held.set_column(held.column_names.index(column), spec.stored.field(column), rows[column].take(place))
        held = held.append_column("_delete", pa.array([False] * len(held)))
        absent = pc.invert(pc.is_in(key_of(rows, spec.key), key_of(held, spec.key)))
        added = rows.filter(pc.and_(absent, pc.invert(rows["_delete"])))
        return pa.concat_tables([held.cast(spec.changes), added.cast(spec.changes)])

    def _merge(self, name: str, rows: pa.Table | pa.RecordBatchReader, only: Sequence[str]) -> None:
        """``merge`` of a table whose rows are few: its files are written anew."""
        spec = TABLES[name]
        values = {column: f"s.`{column}`" for column in spec.schema.names}
        keys = " AND ".join(f"t.`{column}` = s.`{column}`" for column in spec.key)
        if spec.bucketed:
            table = rows if isinstance(rows, pa.Table) else rows.read_all()
            rows = table.append_column("bucket", buckets_of(table["team_id"]))
            values["bucket"] = "s.`bucket`"
        if spec.per_cut:
            values["cut"] = f"'{self.cut}'"
            keys += f" AND t.`cut` = '{self.cut}'"
        table = self._grown(name)
        with self._committing(name, table) as properties:
            merger = table.merge(
                rows,
                predicate=keys,
                source_alias="s",
                target_alias="t",
                streamed_exec=name not in _BY_TIME,  # only an execution in memory leaves out files by their statistics
                writer_properties=rewritten(name),
                commit_properties=properties,
            ).when_not_matched_insert(updates=values, predicate="NOT s.`_delete`")
            if not only:
                merger = merger.when_matched_delete(predicate="s.`_delete`")
            merger.when_matched_update(updates={column: values[column] for column in only or values}).execute()

    def change(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """``merge`` of a few rows given as dicts with ``_delete``; a column that is left out is null."""
        if rows:
            self.merge(name, pa.Table.from_pylist(list(rows), schema=TABLES[name].changes))

    def raise_fence(self) -> None:
        """Let every table see this lease's number, where an earlier holder may only be slow and not dead."""
        for name in TABLES:
            self._add(name, [])


def newest_fence(root: StatePath) -> int:
    """The highest number of a lease under which any table below ``root`` was committed to, of whatever format."""
    return newest(open_delta, (root / name for name in TABLES))


def _now() -> int:
    return int(time.time() * 1_000_000)


def rewritten(name: str) -> WriterProperties:
    """How a merge or a delete writes the rows that it keeps."""
    silent = {
        c: ColumnProperties(statistics_enabled="NONE") for c in WRITTEN_BY_PEOPLE if c in TABLES[name].schema.names
    }
    return WriterProperties(compression="ZSTD", max_row_group_size=ROW_GROUP, column_properties=silent or None)
