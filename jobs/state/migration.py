"""Migration: rewrites the tables of a state of the former format, which had a folder for each team, as they are now.

Rows are copied as they are, so nothing is encoded again. A table is written whole below ``migrating`` and then takes
the place of the former one; the marker goes last. Whatever dies between, the same again goes on.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from deltalake import DeltaTable

from embedding.errors import ConfigError, EmbedmillError
from jobs.state.integrity import record_versions
from jobs.state.lease import Lease
from jobs.state.maintained_tables import MaintainedTables
from jobs.state.parts import Part, joined, write_rows
from jobs.state.path_alias import delta_uri
from jobs.state.state_folder import FORMAT, FORMER, MARKER, format_of, restamp
from jobs.state.tables import BASE, TABLES

ASIDE = "migrating"
Bar = Callable[[str, int], Callable[[int], None]]


def rows_to_migrate(root: Path) -> dict[str, int]:
    """Rows by table that are of the former format.

    Raises ConfigError for a folder that is no state, and for a state of an earlier format than that or a later one.
    """
    found = format_of(root)
    if found is None:
        raise ConfigError(f"state.uri: {root} holds no state: there is no {MARKER} in it")
    if found not in (FORMER, FORMAT):
        raise ConfigError(f"state.uri: {root} has format {found}; only format {FORMER} is migrated, to {FORMAT}")
    rows = {}
    for name, spec in TABLES.items():
        if spec.bucketed and (table := _former(root, name)) is not None:
            rows[name] = _count(table)
    return rows


def migrate(root: Path, lease: Lease, bar: Bar) -> None:
    """Rewrite what ``rows_to_migrate`` names, and mark the state. ``bar`` begins to show the rows of a table.

    Raises EmbedmillError where not as many rows were written as there were, LeaseHeldError for a lost lease.
    """
    aside = root / ASIDE
    for name in [name for name, spec in TABLES.items() if spec.bucketed]:
        _finish_swap(root, name)
        if (former := _former(root, name)) is not None:
            shutil.rmtree(aside / name, ignore_errors=True)
            aside.mkdir(mode=0o700, exist_ok=True)
            _rewrite(former, MaintainedTables(aside, None, lease.number), name, bar(name, _count(former)))
            lease.check()
            rename(root / name, aside / f"{name}-former")
            _finish_swap(root, name)
    lease.check()
    record_versions(root)
    restamp(root)
    shutil.rmtree(aside, ignore_errors=True)


def rename(old: Path, new: Path) -> None:
    """Rename a folder."""
    old.rename(new)


def _former(root: Path, name: str) -> DeltaTable | None:
    """A table of the former format; None where it never was there, or is as it is now."""
    if not (root / name).exists():
        return None
    table = DeltaTable(delta_uri(root / name))
    return None if "bucket" in table.metadata().partition_columns else table


def _count(table: DeltaTable) -> int:
    return sum(pa.table(table.get_add_actions(flatten=True))["num_records"].to_pylist())


def _finish_swap(root: Path, name: str) -> None:
    """Put the new table in the place of the former one, which is set aside only where the new one is whole."""
    former = root / ASIDE / f"{name}-former"
    if former.exists():
        if not (root / name).exists():
            rename(root / ASIDE / name, root / name)
        shutil.rmtree(former)


def _rewrite(former: DeltaTable, new: MaintainedTables, name: str, advance: Callable[[int], None]) -> None:
    spec = TABLES[name]
    own = {"bucket", "layer", "seq", "gone"}
    schema = pa.schema([field for field in spec.stored if field.name not in own])
    seq, parts = new.next_seq(name) if spec.layered else 0, list[Part]()

    def batches() -> Iterator[pa.RecordBatch]:
        for batch in former.to_pyarrow_dataset(schema=schema).to_batches():
            yield batch
            advance(len(batch))

    for rows in joined(batches()):
        if spec.layered:
            rows = rows.append_column("seq", pa.array([seq] * len(rows), pa.int64()))
        parts += write_rows(new.root, name, rows, {"layer": BASE} if spec.layered else {})
    written, asked = sum(part.rows for part in parts), _count(former)
    if written != asked:
        raise EmbedmillError(f"table {name!r} has {asked:,} rows and {written:,} were read; nothing was changed")
    new.table(name)
    new.append(name, parts)
    new.fold(name, new.groups(name), join=2)
