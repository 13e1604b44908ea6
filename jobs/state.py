"""The state: ACID tables (Delta Lake) below one folder, the hash key, and which space the folder belongs to.

Distributed writers call ``write_part`` and hand back a ``Part``; only the driver commits, in one transaction.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import TableNotFoundError
from deltalake.transaction import AddAction

from embedding.errors import ConfigError, ResourceError, SpaceMismatchError
from jobs.tables import TABLES

FORMAT = 1
_VECTOR = pa.list_(pa.float32())
MARKER = "embedmill.json"
# Any of these shows that a folder is ours. The marker alone would not do: it comes only once the lease is held.
_OURS = (MARKER, "hash.key", "lease.json", "work", *TABLES)


@dataclass(frozen=True, slots=True)
class Part:
    """A Parquet file that a worker wrote below a table's folder and that no reader sees until it is committed."""

    path: str  # relative to the table's folder
    size: int
    rows: int
    partition: dict[str, str]

    def to_json(self) -> str:
        """For the way back from a worker."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> Part:
        """Inverse of to_json."""
        return Part(**json.loads(text))


def write_part(root: str, name: str, rows: pa.Table) -> list[Part]:
    """Write rows of table ``name`` as new Parquet files, one for each value of its partition columns.

    Runs on any worker. The files are durable when this returns, and invisible until committed.
    """
    spec = TABLES[name]
    rows = rows.select(spec.schema.names).cast(spec.schema)
    parts = []
    for values, group in _groups(rows, spec.partition_by):
        folder = "/".join(f"{column}={value}" for column, value in values.items())
        path = f"{folder}/" * bool(folder) + f"part-{uuid.uuid4().hex}.parquet"
        file = Path(root) / name / path
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("wb") as sink:
            stored = group.drop_columns(list(values))
            # Vectors as they are: their bits are noise, packing them takes a core seconds and saves a twelfth.
            packed = [f for f in stored.schema if f.type != _VECTOR]
            pq.write_table(
                stored, sink, use_dictionary=[f.name for f in packed],
                compression={f"{f.name}.list.element" if pa.types.is_list(f.type) else f.name: "zstd" for f in packed},
            )  # fmt: skip
            sink.flush()
            os.fsync(sink.fileno())
        parts.append(Part(path, file.stat().st_size, group.num_rows, values))
    return parts


def _groups(rows: pa.Table, columns: tuple[str, ...]) -> Iterable[tuple[dict[str, str], pa.Table]]:
    if not columns:
        yield {}, rows
        return
    for values in rows.select(columns).group_by(list(columns)).aggregate([]).to_pylist():
        mask = None
        for column, value in values.items():
            equal = pc.equal(rows[column], value)
            mask = equal if mask is None else pc.and_(mask, equal)
        yield values, rows.filter(mask)


class State:
    """Handle on the tables below ``root``. Opening creates what is missing, private to the user."""

    def __init__(self, root: Path, *, hash_key: str = "") -> None:
        self.root = root
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._marker = root / MARKER
            ours = any((root / name).exists() for name in _OURS)
            if not ours and any(p.name != "milvus.db" for p in root.iterdir() if p.name[0] != "."):
                raise ConfigError(f"state.uri: {root} is not empty and not embedmill's; give a folder of its own")
        except OSError as error:
            raise ResourceError(f"state.uri: cannot use {root}: {error.strerror}") from None
        self.hash_key = self._key(hash_key)

    # -- space ---------------------------------------------------------------------------------------------------

    def claim_space(self, space_id: str, model: str) -> None:
        """Bind a new state to its space, or refuse a state that belongs to another.

        Raises SpaceMismatchError naming both.
        """
        if self._marker.exists():
            found = json.loads(self._marker.read_text())
            if found["space_id"] != space_id:
                raise SpaceMismatchError(
                    f"state {self.root} holds space {found['space_id']} ({found['model']}), the configuration asks for "
                    f"{space_id} ({model}); restore model.* or give another state.uri and index.name"
                )
            return
        _replace(self._marker, json.dumps({"format": FORMAT, "space_id": space_id, "model": model}).encode())

    def _key(self, given: str) -> bytes:
        if given:
            try:
                return bytes.fromhex(given)
            except ValueError:
                raise ConfigError("state.hash_key: must be hexadecimal") from None
        file = self.root / "hash.key"
        if not file.exists():
            _replace(file, secrets.token_bytes(32))
        return file.read_bytes()

    # -- tables --------------------------------------------------------------------------------------------------

    def table(self, name: str) -> DeltaTable:
        """Open a table at its newest version, creating it when it is missing."""
        spec = TABLES[name]
        uri = str(self.root / name)
        try:
            return DeltaTable(uri)
        except TableNotFoundError:
            return DeltaTable.create(uri, schema=spec.stored, mode="ignore", partition_by=list(spec.partition_by))

    def files(self, name: str, partition: Mapping[str, str] | None = None) -> list[str]:
        """Paths of a table's current files, for Spark."""
        filters = [(column, "=", value) for column, value in (partition or {}).items()]
        return [uri.removeprefix("file://") for uri in self.table(name).file_uris(filters or None)]

    def read(self, name: str, columns: Sequence[str] | None = None, where: pc.Expression | None = None) -> pa.Table:
        """Read a table into memory. Only for tables whose size does not grow with the number of chunks."""
        wanted = list(columns or TABLES[name].schema.names)
        if where is None:
            return self._dataset(name).to_table(columns=wanted)
        # Filtered afterwards and not in the scan: file statistics come back as string views, which a pushed-down
        # filter cannot compare. The two columns that make rows heavy are read only where asked for.
        light = [c for c in TABLES[name].schema.names if c in wanted or c not in ("text", "vector")]
        return self._dataset(name).to_table(columns=light).filter(where).select(wanted)

    def append(self, name: str, parts: Sequence[Part]) -> None:
        """Commit files that workers wrote, all in one transaction."""
        if not parts:
            return
        spec = TABLES[name]
        now = int(time.time() * 1000)
        actions = [AddAction(p.path, p.size, p.partition, now, True, json.dumps({"numRecords": p.rows})) for p in parts]
        self.table(name).create_write_transaction(
            actions, mode="append", schema=spec.stored, partition_by=list(spec.partition_by)
        )

    def merge(self, name: str, rows: pa.Table | pa.RecordBatchReader) -> None:
        """Upsert rows by the table's key; rows with ``_delete`` true are removed instead.

        One transaction. ``rows`` has the table's columns and ``_delete``; keys must not repeat in it.
        """
        spec = TABLES[name]
        values = {column: f"s.`{column}`" for column in spec.schema.names}
        keys = " AND ".join(f"t.`{column}` = s.`{column}`" for column in spec.key)
        (
            self.table(name)
            .merge(rows, predicate=keys, source_alias="s", target_alias="t")
            .when_matched_delete(predicate="s.`_delete`")
            .when_matched_update(updates=values)
            .when_not_matched_insert(updates=values, predicate="NOT s.`_delete`")
            .execute()
        )

    def change(self, name: str, rows: Sequence[Mapping[str, object]]) -> None:
        """``merge`` of a few rows given as dicts with ``_delete``; a column that is left out is null."""
        if rows:
            self.merge(name, pa.Table.from_pylist(list(rows), schema=TABLES[name].changes))

    def count(self, name: str, where: pc.Expression | None = None) -> int:
        """Number of rows."""
        return int(self._dataset(name).count_rows(filter=where))

    def _dataset(self, name: str) -> ds.Dataset:
        return self.table(name).to_pyarrow_dataset(schema=TABLES[name].stored)

    def vacuum(self, name: str, *, hours: int) -> list[str]:
        """Remove files that no version younger than ``hours`` needs; returns their paths."""
        return list(self.table(name).vacuum(retention_hours=hours, enforce_retention_duration=False, dry_run=False))

    # -- work ----------------------------------------------------------------------------------------------------

    @property
    def engines(self) -> Path:
        """Scratch folder of Spark, which outlives a run."""
        return self.root / "work" / "engines"

    @property
    def engine_log(self) -> Path:
        """What the engines wrote to standard error, for whoever looks into a fault of theirs."""
        return self.root / "work" / "engines.log"

    def work(self, run_id: str) -> Path:
        """Scratch folder of one run. Holds text, so it is private and goes when the run ends."""
        folder = self.root / "work" / run_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder

    def clear_work(self) -> None:
        """Drop the scratch of this and of killed runs, but not the engines'. Call it only while holding the lease."""
        work = self.root / "work"
        for folder in work.iterdir() if work.exists() else ():
            if folder.is_dir() and folder != self.engines:
                shutil.rmtree(folder, ignore_errors=True)


def _replace(file: Path, data: bytes) -> None:
    """Write a small private file so that a crash leaves the old one or the new one."""
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
        sink.write(data)
        sink.flush()
        os.fsync(sink.fileno())
    os.replace(temporary, file)
