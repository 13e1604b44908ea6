"""Walk: the data files below a folder, or a prefix of an object store, by the rules that Spark lists a table by."""

from __future__ import annotations

import itertools
import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from embedding.buckets import Prefix, StoredObject
from embedding.errors import SourceError
from jobs.sources.table import ndjson
from jobs.sources.table.batch import DataFile, ObjectName

_PARQUET = (".parquet", ".parq", ".pq")
MAGIC = b"PAR1"
_NULL = "__HIVE_DEFAULT_PARTITION__"
_PART = re.compile(r"([^=]+)=(.*)", re.DOTALL)
# A folder in a table by which it is one whose own log says which of its files count.
_ICEBERG = ".metadata.json"
_LAKES = {"_delta_log": "a Delta table", ".hoodie": "a Hudi table"}


@dataclass(slots=True)
class Found:
    """What lies below a root. ``unreadable`` are folders that could not be listed, with why."""

    files: list[Path] = field(default_factory=list)
    others: list[Path] = field(default_factory=list)  # of a kind that the format does not have
    links: list[Path] = field(default_factory=list)  # to folders; they are not followed
    unreadable: list[tuple[Path, str]] = field(default_factory=list)


def walk(root: Path, format: str) -> Found:
    """Look for data files. Raises SourceError for a table that must be read by its log."""
    found = Found()
    is_data = _is_parquet if format == "parquet" else _is_json
    errors: list[OSError] = []
    for folder, folders, names in os.walk(root, onerror=errors.append):
        _refuse_lake(root, folder, folders)
        folders[:] = sorted(name for name in folders if not hidden(name))
        for name in [n for n in folders if os.path.islink(os.path.join(folder, n))]:
            found.links.append(Path(folder, name))
        for name in sorted(names):
            if not hidden(name):
                path = Path(folder, name)
                (found.files if is_data(path) else found.others).append(path)
    for error in errors:
        found.unreadable.append((Path(os.fsdecode(error.filename)), error.strerror or type(error).__name__))
    return found


@dataclass(slots=True)
class FoundObjects:
    """What lies below a prefix."""

    files: list[StoredObject] = field(default_factory=list)
    others: list[StoredObject] = field(default_factory=list)  # of a kind that the format does not have


def walk_objects(root: Prefix, format: str) -> FoundObjects:
    """``walk`` in an object store. Raises SourceError, as it does, and OSError where the store cannot be asked."""
    found = FoundObjects()
    for one in root.listing():
        *folders, name = one.path.split("/")
        for depth, folder in enumerate(itertools.takewhile(lambda one: not hidden(one) or one in _LAKES, folders)):
            where = "/".join((str(root), *folders[:depth]))
            if kind := _LAKES.get(folder):
                raise _is_lake(where, kind)
            if folder == "metadata" and depth == len(folders) - 1 and name.endswith(_ICEBERG):
                raise _is_lake(where, "an Iceberg table")
        if not any(map(hidden, (*folders, name))):
            # Engines write Parquet without its suffix too: executors look at the first bytes of such.
            fits = format == "parquet" or is_named(ObjectName(root, one.path), format)
            (found.files if fits else found.others).append(one)
    return found


def hidden(name: str) -> bool:
    """Whether Spark passes over a file or folder: its own (``_SUCCESS``, ``_temporary``), and what begins with a dot.

    ``_day=3`` is a partition's folder.
    """
    return name.startswith(".") or (name.startswith("_") and "=" not in name) or name.endswith("._COPYING_")


def partition_values(path: DataFile, root: Path | Prefix) -> dict[str, str | None]:
    """What the folders ``name=value`` between ``root`` and a file say. Values are texts, whatever they look like."""
    if isinstance(path, ObjectName):
        parts = tuple((path.path or path.root.key).split("/"))
    else:
        parts = path.relative_to(root).parts if isinstance(root, Path) and root.is_dir() else path.parts
    return dict(_value(match) for part in parts[:-1] if (match := _PART.fullmatch(part)))


def _value(match: re.Match[str]) -> tuple[str, str | None]:
    return unquote(match[1]), None if match[2] == _NULL else unquote(match[2])


def _refuse_lake(root: Path, folder: str, folders: list[str]) -> None:
    kind = next((_LAKES[name] for name in folders if name in _LAKES), None)
    if kind is None and "metadata" in folders and _is_iceberg(Path(folder, "metadata")):
        kind = "an Iceberg table"
    if kind is not None:
        raise _is_lake(folder if Path(folder) != root else str(root), kind)


def _is_lake(where: str, kind: str) -> SourceError:
    advice = 'set format = "delta"' if "Delta" in kind else "it cannot be read"
    return SourceError(f"table source: {where} is {kind}, whose log says which of its files count: {advice}")


def _is_iceberg(folder: Path) -> bool:
    try:
        return any(name.endswith(_ICEBERG) for name in os.listdir(folder))
    except OSError:
        return False


def _is_json(path: Path) -> bool:
    return is_named(path, "json")


def _is_parquet(path: Path) -> bool:
    """By the name; or, as engines write some without a suffix, by the first bytes."""
    return is_named(path, "parquet") or _has_magic(path)


def is_named(path: DataFile, format: str) -> bool:
    """Whether a file is of a format by its name."""
    if format == "parquet":
        return path.suffix.lower() in _PARQUET
    name = PurePosixPath(path.path or path.root.key) if isinstance(path, ObjectName) else path
    suffix = name.suffix.lower()
    return (PurePosixPath(name.stem).suffix.lower() if suffix in ndjson.PACKED else suffix) in ndjson.SUFFIXES


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False
