"""The ``table`` source: rows of Parquet, newline-delimited JSON or Delta files; a data file is a partition.

``walk`` and ``delta`` find the files, ``parquet`` and ``ndjson`` open them, ``cells`` and ``values`` say
what is in them, ``newest`` which row of a document counts, and ``rows`` makes records of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from embedding import ids
from embedding.buckets import Prefix, StoredObject
from embedding.errors import SourceError
from embedding.records import Kind, Record, Rejected
from jobs.sources.base import Listing, Partition, ReadLimits, Root, read_failure, stat_fingerprint, unreachable
from jobs.sources.table import delta, ndjson, walk
from jobs.sources.table.batch import ColumnFault, Data, DataFile, ObjectName
from jobs.sources.table.parquet import ParquetData
from jobs.sources.table.rows import Rows

if TYPE_CHECKING:
    from jobs.config_sources import Columns

__all__ = ["TableSource"]

_REQUIRED = ("id", "text", "created_at")
_PROBE_BYTES = 1 << 24  # of JSON lines that a listing looks through for a column that may be in none


class TableSource:
    """Reads a table whose columns are mapped by name. Each row says its team, or the source does for all."""

    kind: Kind = "message"

    def __init__(
        self, root: Root, *, source_id: str, format: str, columns: Columns, team_id: str | None, qualifier: str = ""
    ) -> None:
        self.root = root
        self.source_id = source_id
        self.team_id = team_id
        self.format = format
        self.rows = Rows(columns, team_id, qualifier)
        self.reader = f"table:2:{team_id}:{format}:{sorted(columns.model_dump(exclude_none=True).items())}:{qualifier}"
        self.names: Mapping[str, str] = {}
        self._version: int | None = None  # of a Delta table, as it was listed
        self._snapshot: delta.Snapshot | None = None

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_snapshot": None}  # an executor reads the log itself, at the same version

    def listing(self) -> Listing:
        """See Source.listing. Looks into files only as far as it must to know that every column is in one of them.

        Raises SourceError for a missing or empty table and a missing column.
        """
        return replace(self._listing(), moves=True)

    def _listing(self) -> Listing:
        if isinstance(self.root, Prefix):
            try:
                return self._list_objects(self.root)
            except OSError as error:
                raise unreachable("table", self.root, error) from None
        if not self.root.exists():
            raise SourceError(f"table source: no such path: {self.root}")
        if self.format == "delta":
            return self._list_delta(self.root)
        return self._list_files(self.root)

    def _list_files(self, root: Path) -> Listing:
        found = walk.walk(root, self.format) if root.is_dir() else walk.Found([root])
        if not found.files:
            if found.unreadable:
                raise SourceError(f"table source: {root}: {found.unreadable[0][1]}")
            raise self._empty()
        rejected = [
            *(self._reject(path, "unreadable_folder", why) for path, why in found.unreadable),
            *(self._reject(path, "link_to_folder", "links to folders are not followed") for path in found.links),
            *(Rejected(self._key(path), *_other(self.format), ignored=True) for path in found.others),
        ]
        partitions: list[Partition] = []
        for path in found.files:
            self._stat(path, "", partitions, rejected)
        listed = Listing(tuple(partitions), tuple(rejected), complete=not found.unreadable)
        newest = sorted(partitions, key=lambda p: int(p.fingerprint.split(":")[1]), reverse=True)
        return self._checked(listed, self._missing(Path(partition.path) for partition in newest))

    def _list_objects(self, root: Prefix) -> Listing:
        if self.format == "delta":
            return self._list_delta(root)
        found = walk.walk_objects(root, self.format)
        single = None if found.files or found.others else root.single()
        files = [replace(single, path="")] if single else found.files
        if not files:
            raise self._empty()
        rejected = tuple(
            Rejected(self._key(ObjectName(root, one.path)), *_other(self.format), ignored=True) for one in found.others
        )
        listed = Listing(tuple(self._object(root, one) for one in files), rejected)
        newest = sorted(files, key=lambda one: one.modified, reverse=True)
        return self._checked(listed, self._missing(ObjectName(root, one.path) for one in newest))

    def read(self, partition: Partition) -> Iterator[Record]:
        """See Source.read. Streams, so a file may be larger than memory; only its ids and times are held."""
        try:
            if not self._is_data(partition):
                yield Rejected("", *_other(self.format), ignored=True)
                return
            data, values = self._open(self._file(partition))
            with closing(data):
                yield from self.rows.records(data, values)
        except ColumnFault as fault:
            yield Rejected("", fault.reason, fault.detail, whole=True)
        except SourceError as error:
            yield Rejected("", "unreadable_table", type(error).__name__, retry=True, whole=True)
        except OSError as error:
            # Arrow raises one without a number for bytes that do not decode.
            yield read_failure(error) if error.errno else Rejected("", "unreadable_table", "damaged", whole=True)
        except (pa.ArrowException, ValueError, KeyError) as error:
            yield Rejected("", "unreadable_table", type(error).__name__, whole=True)

    def isolation_limits(self, partition: Partition) -> ReadLimits | None:
        """See Source.isolation_limits. A lake's own table is streamed, and its rows are many."""
        return None

    # -- files ---------------------------------------------------------------------------------------------------------

    def _list_delta(self, root: Root) -> Listing:
        if isinstance(root, Prefix) and next(root.listing(), None) is None:  # or it says why it cannot be listed
            raise self._empty()
        self._snapshot = snapshot = delta.snapshot(root)
        self._version = snapshot.version
        if not snapshot.files:
            raise self._empty()
        # After the log: what a commit adds meanwhile is in neither.
        there = {found.path: found for found in root.listing()} if isinstance(root, Prefix) else {}
        places = {column: snapshot.columns.get(column) for column in self.rows.wanted}
        partitions: list[Partition] = []
        rejected: list[Rejected] = []
        for _, file in sorted(snapshot.files.items()):
            # A file never changes; what a new version of the table says of it does.
            dropped = b"" if file.dropped is None else file.dropped.tobytes()
            said = repr((sorted(places.items()), sorted(file.values.items()), dropped))
            digest = hashlib.blake2b(said.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()
            if not isinstance(file.path, ObjectName):
                self._stat(file.path, f":{digest}", partitions, rejected)
            elif (found := there.get(file.path.path)) is not None:
                partitions.append(self._object(file.path.root, found, f":{digest}"))
            else:
                rejected.append(self._reject(file.path, "io_error", "no such object"))
        missing = set(self.rows.wanted) - set(snapshot.columns) - snapshot.partitioned_by
        if not snapshot.mapped:
            missing = {column for column in missing if column.partition(".")[0] not in snapshot.columns}
        # A file of the log that is not there: the table is not as the log says, and nothing may be concluded of it.
        return self._checked(Listing(tuple(partitions), tuple(rejected), complete=not rejected), missing)

    def _stat(self, path: Path, more: str, partitions: list[Partition], rejected: list[Rejected]) -> None:
        try:
            status = path.stat()
        except OSError as error:
            rejected.append(self._reject(path, "io_error", error.strerror or ""))
            return
        partitions.append(Partition(self._key(path), str(path), stat_fingerprint(status) + more, status.st_size))

    def _object(self, root: Prefix, found: StoredObject, more: str = "") -> Partition:
        return Partition(self._key(ObjectName(root, found.path)), found.path, found.fingerprint + more, found.size)

    def _is_data(self, partition: Partition) -> bool:
        """Whether an object that is no data file by its name is one by its first bytes. Raises OSError."""
        if (
            not isinstance(self.root, Prefix)
            or self.format != "parquet"
            or walk.is_named(self._file(partition), "parquet")
        ):
            return True
        return partition.size >= len(walk.MAGIC) and self.root.read(partition.path, len(walk.MAGIC)) == walk.MAGIC

    def _file(self, partition: Partition) -> DataFile:
        return ObjectName(self.root, partition.path) if isinstance(self.root, Prefix) else Path(partition.path)

    def _open(self, path: DataFile) -> tuple[Data, dict[str, str | None]]:
        """An open data file, and the values that its partition gives to all its rows."""
        if self.format == "json":
            return ndjson.JsonData(path), walk.partition_values(path, self.root)
        if self.format == "parquet":
            return ParquetData(path), walk.partition_values(path, self.root)
        if self._snapshot is None:
            self._snapshot = delta.snapshot(self.root, self._version)
        snapshot = self._snapshot
        file = snapshot.files.get(path)
        if file is None:
            raise SourceError("the table's version does not have this file")
        places = snapshot.columns if snapshot.mapped else None
        return ParquetData(path, places=places, dropped=file.dropped), dict(file.values)

    def _missing(self, newest: Iterable[DataFile]) -> set[str]:
        """Columns that no file has. The newest come first, since columns are added more than they are removed.

        A file that cannot be read may have had them all.
        """
        missing = set(self.rows.wanted)
        budget, any_row = _PROBE_BYTES, self.format != "json"
        for path in newest:
            missing -= set(walk.partition_values(path, self.root))
            if budget <= 0:
                missing &= {self.rows.columns[name] for name in _REQUIRED}  # others may be in what was not read
            if not missing:
                return set()
            try:
                if self.format == "json":
                    names, seen, any_object = ndjson.names_in(path, frozenset(missing), budget)
                    missing -= names
                    budget -= seen
                    any_row |= any_object
                else:
                    with closing(ParquetData(path)) as data:
                        missing = {column for column in missing if data.type_of(column) is None}
            except pa.ArrowInvalid:
                if isinstance(path, ObjectName) and not walk.is_named(path, self.format):
                    continue  # no data file, as its reader will find
                return set()
            except (ColumnFault, OSError, pa.ArrowException, ValueError):
                return set()
        return missing if any_row else set()

    def _checked(self, listed: Listing, missing: set[str]) -> Listing:
        """The listing; or, where a configured column is nowhere, one that reads nothing and deletes nothing."""
        if not missing:
            return listed
        named = ", ".join(f"{name} = {column!r}" for name, column in self.rows.columns.items() if column in missing)
        fault = Rejected("", "missing_column", f"no file has the columns of {named}", whole=True)
        return Listing((), (fault, *listed.rejected), complete=False)

    def _empty(self) -> SourceError:
        return SourceError(f"table source: no {self.format} file in {self.root}; an empty root is never a deletion")

    def _key(self, path: DataFile) -> str:
        if isinstance(path, ObjectName):
            relative = path.path or path.root.name
        else:
            assert isinstance(self.root, Path)
            base = self.root if self.root.is_dir() else self.root.parent
            relative = path.relative_to(base).as_posix() if path.is_relative_to(base) else path.as_posix()
        return ids.file_id("", relative).removeprefix("/f/")

    def _reject(self, path: DataFile, reason: str, detail: str) -> Rejected:
        return Rejected(self._key(path), reason, detail, retry=True)


def _other(format: str) -> tuple[str, str]:
    return "not_a_data_file", f"not a {format} file by its name"
