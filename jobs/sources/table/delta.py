"""Delta: what a table's log says of its data files. The files themselves are Parquet, and are read as such.

deltalake's own list of files says nothing of deletion vectors, and its reader of single files nothing of column
mapping; so both are taken from the log and applied to each file. A table with a feature that changes what its files
mean in a way that is not known here is refused.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import pyarrow as pa

from embedding.buckets import Prefix
from embedding.errors import SourceError
from jobs.sources.table.batch import DataFile, ObjectName

# What a reader must know of (``readerFeatures``). v2Checkpoint is a form of the log, which deltalake reads; a variant
# is a type of column that none of ours can have.
_FEATURES = frozenset(
    {"deletionVectors", "columnMapping", "timestampNtz", "v2Checkpoint", "variantType", "variantType-preview"}
)
# deltalake reads a path as an address: it decodes %41, turns a backslash and refuses a control character.
_PLAIN = re.compile(r"[^%\\\x00-\x1f\x7f\ud800-\udfff]*")


_PLAIN_KEY = re.compile(r"[^%#?\\\x00-\x1f\x7f]*")


@dataclass(frozen=True, slots=True)
class DeltaFile:
    """A data file of a table: where it is, its partition's values, and the rows that a deletion vector takes away."""

    path: DataFile
    values: Mapping[str, Any]
    dropped: np.ndarray | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One version of a table. ``columns`` says by which name or field id its files have each column."""

    version: int
    columns: Mapping[str, str | int]
    partitioned_by: frozenset[str]
    mapped: bool  # names in the files are not those of the table
    files: Mapping[DataFile, DeltaFile]


def snapshot(root: Path | Prefix, version: int | None = None) -> Snapshot:
    """Read a table's log, at its newest version or the one given.

    Raises SourceError for what is no table, cannot be read, or uses a feature that is not understood.
    """
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    with _addressable(root) as address:
        try:
            if isinstance(root, Prefix):
                with root.delta_options() as options:
                    table = DeltaTable(str(address), version=version, storage_options=options)
            else:
                table = DeltaTable(str(address), version=version)
            _check_features(root, table.protocol())
            return _read(root, address, table)
        except TableNotFoundError:
            raise SourceError(f"table source: {root} is not a Delta table") from None
        except (DeltaError, OSError, pa.ArrowException) as error:
            raise SourceError(f"table source: {root}: {_why(root, error)}") from None


@contextmanager
def _addressable(root: Path | Prefix) -> Iterator[Path | Prefix]:
    """A path of the table that deltalake understands: where it would not, a folder of links to what is in it."""
    if isinstance(root, Prefix):
        if not _PLAIN_KEY.fullmatch(root.key) or {"", ".", ".."}.intersection(root.key.split("/")[:-1]):
            raise SourceError(f"table source: {root}: a Delta table's prefix may have no %, #, ?, // and no .. in it")
        yield root
        return
    if _PLAIN.fullmatch(str(root.resolve())) or not root.is_dir():
        yield root.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="embedmill-delta-") as folder:
        for name in os.listdir(root):
            os.symlink(root / name, Path(folder, name))
        yield Path(folder).resolve()


def _check_features(root: Path | Prefix, protocol: Any) -> None:
    strange = sorted(set(protocol.reader_features or ()) - _FEATURES)
    if strange:
        raise SourceError(_cannot(root, strange))


def _cannot(root: Path | Prefix, features: list[str]) -> str:
    return (
        f"table source: {root} uses Delta features that are not understood here ({', '.join(features)}), "
        "and would be read wrongly; drop them from the table, or give a copy without them"
    )


def _why(root: Path | Prefix, error: Exception) -> str:
    """One line for a log that cannot be read. The library's own may hold statistics of the data, so it is not shown."""
    strange = sorted(set(_declared_features(root)) - _FEATURES)
    if strange:
        return _cannot(root, strange).removeprefix(f"table source: {root} ")
    if isinstance(error, PermissionError):
        return "its Delta log may not be read"
    return f"its Delta log cannot be read ({type(error).__name__})"


def _declared_features(root: Path | Prefix) -> list[str]:
    """Reader features of the newest protocol in the log's commits; none where it cannot be told."""
    try:
        for commit in _commits(root):
            for line in commit.splitlines():
                if '"protocol"' in line and isinstance(found := json.loads(line).get("protocol"), dict):
                    return [str(feature) for feature in found.get("readerFeatures") or ()]
    except (OSError, ValueError, AttributeError):
        pass
    return []


def _commits(root: Path | Prefix) -> Iterator[str]:
    """The commits of a table's log, the newest first. Raises OSError."""
    if isinstance(root, Prefix):
        log = Prefix(root.bucket, f"{root.start}_delta_log")
        for path in sorted((found.path for found in log.listing() if found.path.endswith(".json")), reverse=True):
            yield log.read(path).decode()
    else:
        for file in sorted((root / "_delta_log").glob("*.json"), reverse=True):
            yield file.read_text()


def _read(root: Path | Prefix, address: Path | Prefix, table: Any) -> Snapshot:
    configuration = table.metadata().configuration
    partitioned_by = frozenset(table.metadata().partition_columns)
    mode = configuration.get("delta.columnMapping.mode", "none")
    fields = json.loads(table.schema().to_json())["fields"]
    if mode not in ("none", "name", "id"):
        raise SourceError(_cannot(root, [f"columnMapping mode {mode}"]))
    adds = pa.table(table.get_add_actions(flatten=False))
    paths = [_located(root, path) for path in adds["path"].to_pylist()]
    values = adds["partition"].to_pylist() if "partition" in adds.column_names else [{}] * len(paths)
    dropped = _dropped(root, address, table)
    if unknown := set(dropped) - set(paths):
        raise SourceError(f"table source: {root}: {len(unknown)} deletion vectors are of no file of the table")
    return Snapshot(
        version=table.version(),
        columns={field["name"]: _place(field, mode) for field in fields if field["name"] not in partitioned_by},
        partitioned_by=partitioned_by,
        mapped=mode != "none",
        files={path: DeltaFile(path, said, dropped.get(path)) for path, said in zip(paths, values, strict=True)},
    )


def _place(field: Mapping[str, Any], mode: str) -> str | int:
    metadata = field.get("metadata") or {}
    if mode == "id":
        return int(metadata["delta.columnMapping.id"])
    return str(metadata["delta.columnMapping.physicalName"]) if mode == "name" else str(field["name"])


def _located(root: Path | Prefix, path: str) -> DataFile:
    """Where a file of the log is: relative paths and addresses are percent-encoded."""
    address = urlsplit(path) if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://?", path) else None
    if isinstance(root, Prefix):
        if address is None:
            return ObjectName(root, unquote(path))
        key = unquote(address.path).lstrip("/")
        if (address.scheme, address.netloc) != ("s3", root.bucket.name) or not key.startswith(root.start):
            raise SourceError(f"table source: {root}: a data file lies outside the table's prefix")
        return ObjectName(root, key.removeprefix(root.start))
    if address is None:
        return root / unquote(path, errors="surrogateescape")
    if address.scheme != "file":
        raise SourceError(f"table source: {root}: a data file lies outside this machine ({address.scheme}://)")
    return Path(unquote(address.path, errors="surrogateescape"))


def _dropped(root: Path | Prefix, address: Path | Prefix, table: Any) -> dict[DataFile, np.ndarray]:
    """Rows that deletion vectors take away, by file."""
    if "deletionVectors" not in (table.protocol().reader_features or ()):
        return {}
    found: dict[DataFile, np.ndarray] = {}
    for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()):
        for uri, kept in zip(batch["filepath"].to_pylist(), batch["selection_vector"], strict=True):
            path = _located(root, uri)
            if isinstance(path, Path) and isinstance(root, Path) and path.is_relative_to(str(address)):
                path = root / path.relative_to(str(address))
            found[path] = ~np.asarray(kept.values.to_numpy(zero_copy_only=False), bool)
    return found
