"""Frames: rows of tables and of files, which SQL decides over. One text of a query, run by either of two engines.

Spark (``spark_frames``) where the work is large or the cluster is another one, DuckDB in this process
(``duckdb_frames``) where it is small: starting Spark takes more than most nightly runs compute.

Queries use what both have, with the same meaning: no quoted name, no ``*`` but of one frame, SEMI and ANTI JOIN, window
functions, NULLS LAST where a NULL may be, and BIGINT around sums and counts. A value that comes from a user is a row of
a frame that is joined, never a literal. Functions that only Spark has by that name are defined in ``duckdb_frames``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeAlias

import pyarrow as pa

from jobs.state.parts import Part, joined, write_part
from jobs.state.storage import StatePath
from jobs.state.tables import TABLES

if TYPE_CHECKING:
    from jobs.state.staging import Staged
    from jobs.state.store import State
    from jobs.state.table_files import TableFile, Wanted

Batches: TypeAlias = Iterator[pa.RecordBatch]


class Frame(Protocol):
    """Rows that an engine knows; nothing is computed before they are asked for."""

    @property
    def columns(self) -> list[str]:
        """Names of the columns, in order."""
        ...


class Frames(ABC):
    """An engine: makes frames, and carries out what is asked of them. Frames are of the engine that made them."""

    def table(
        self,
        state: State,
        name: str,
        partition: Mapping[str, str] | None = None,
        *,
        teams: Sequence[str] = (),
        wanted: Wanted | None = None,
    ) -> Frame:
        """A state table's current rows, optionally of some partitions only, with its columns in order.

        Of ``teams`` it has all rows that are ``wanted``, where they are named, and of the others some.
        Changes that lie beside the rows of a layered table replace those of their keys; where there are none, the rows
        are read as they are.
        """
        spec, groups = TABLES[name], state.groups(name, partition, teams)
        base = [file for group in groups for file in group.base]
        changes = [file for group in groups for file in group.changes]
        if not base and not changes:
            return self.local(spec.schema, [])
        asked = [*([wanted] if wanted is not None else []), *([{"team_id": teams}] if teams else [])]
        rows = self.stored(state, name, base, asked) if base else self.local(spec.stored, [])
        if not changes:
            return self.sql(f"SELECT {columns(spec.schema.names)} FROM {{rows}}", rows=rows)
        identity = [*["cut"] * spec.per_cut, *spec.key]
        same = equal(identity, "b", "n")
        return self.sql(
            f"""
            WITH ordered AS (SELECT {columns([*identity, "seq"])},
                row_number() OVER (PARTITION BY {columns(identity)} ORDER BY seq DESC) AS place FROM {{changes}}),
            newest AS (SELECT {columns([*identity, "seq"])} FROM ordered WHERE place = 1)
            SELECT {columns(spec.schema.names, "b")} FROM {{rows}} b
            ANTI JOIN newest n ON {same} AND coalesce(b.seq, 0) < n.seq
            UNION ALL
            SELECT {columns(spec.schema.names, "b")} FROM {{changes}} b
            SEMI JOIN newest n ON {same} AND b.seq = n.seq WHERE NOT coalesce(b.gone, FALSE)
            """,
            rows=rows,
            changes=self.stored(state, name, changes),
        )

    @abstractmethod
    def stored(self, state: State, name: str, files: Sequence[TableFile], wanted: Sequence[Wanted] = ()) -> Frame:
        """The rows of some files of a state table, one at least, with all that is stored of them.

        Rows for which one of ``wanted`` does not hold may be left out.
        """

    @abstractmethod
    def files(self, schema: pa.Schema, rows: Staged) -> Frame:
        """Rows that a run has staged, if any, with the columns of ``schema``."""

    @abstractmethod
    def local(self, schema: pa.Schema, rows: pa.Table | Sequence[Mapping[str, object]]) -> Frame:
        """A few rows of this process, with the columns of ``schema``."""

    @abstractmethod
    def sql(self, query: str, **named: Frame) -> Frame:
        """The answer of a query in which ``{name}`` stands for the frame of that name."""

    @abstractmethod
    def keep(self, frame: Frame) -> AbstractContextManager[Frame]:
        """Within the block, the frame computed once for all its uses."""

    @abstractmethod
    def collect(self, frame: Frame) -> pa.Table:
        """All rows, in this process."""

    @abstractmethod
    def write(self, frame: Frame, folder: StatePath, *, by: str = "", spread: str = "", most: int = 0) -> int:
        """Stage a frame in ``folder`` in place of what is there; returns how many rows were sent.

        With ``by`` in as few files as there are values of that column, in folders ``by=value``; ``spread`` is another
        column by whose values such a folder may have more of them. A file has at most ``most`` rows, 0 is no limit.
        """

    def write_parts(self, state: State, name: str, frame: Frame) -> int:
        """Write a frame with a table's columns as new files of it, and commit them; returns its rows."""
        seq = state.next_seq(name) if TABLES[name].layered else 0
        parts = self.parts(frame, state.root, name, state.cut or "", seq)
        state.append(name, parts)
        return sum(part.rows for part in parts)

    @abstractmethod
    def parts(self, frame: Frame, root: StatePath, name: str, cut: str, seq: int) -> list[Part]:
        """Write a frame with a table's columns as new files of it, which the driver commits; see ``parts_of``."""

    @abstractmethod
    def map(
        self,
        frame: Frame,
        function: Callable[[Batches], Batches],
        schema: pa.Schema,
        *,
        by: Sequence[str] = (),
        order: Sequence[str] = (),
    ) -> Frame:
        """What a function makes of the frame's batches: rows with the columns of ``schema``.

        With ``by`` rows with the same values of it go to one call, sorted by it and by ``order``.
        """

    @abstractmethod
    def read_each(
        self, tasks: pa.Table, function: Callable[[Batches], Batches], schema: pa.Schema, folder: StatePath
    ) -> None:
        """Stage what a function makes of rows in ``folder``.

        ``tasks`` are in order of their weight, which is the column ``size`` in bytes. The function can be pickled.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of all frames and their memory; new ones may be made. Spark itself goes on until the process ends."""


def as_table(schema: pa.Schema, rows: pa.Table | Sequence[Mapping[str, object]]) -> pa.Table:
    """Rows that may be given as dicts."""
    return rows if isinstance(rows, pa.Table) else pa.Table.from_pylist(list(rows), schema=schema)


def equal(names: Iterable[str], of: str, other: str) -> str:
    """The condition of a query that these columns are the same in two frames."""
    return " AND ".join(f"{of}.{name} = {other}.{name}" for name in names)


def columns(names: Iterable[str], of: str = "") -> str:
    """Columns for a query, each with the name ``of`` its frame."""
    return ", ".join(f"{of}.{name}" if of else name for name in names)


def parts_of(batches: Batches, root: StatePath, name: str, cut: str, seq: int) -> Iterator[Part]:
    """Write batches of a table's rows as files of it, which the driver commits as its change ``seq``."""
    for rows in joined(batches):
        yield from write_part(root, name, rows, cut, seq=seq)
