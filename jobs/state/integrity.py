"""Finds which tables of the state are damaged, and in which file. Repairs nothing; that is ``rebuild``.

``tables.json`` beside the tables records the version at which the last run left each of them: a table that is missing,
or that has lost the end of its log, looks like an older one that is whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from embedding.errors import DamagedStateError, EmbedmillError, LostPurgesError, ResourceError
from jobs.state.object_path import ObjectPath
from jobs.state.storage import StatePath, open_delta, replace_file, sizes_below, sizes_of
from jobs.state.tables import TABLES

RECORD = "tables.json"
_ENTRY = re.compile(r"(\d{20})\.json")
_CHECKPOINT = re.compile(r"(\d{20})\.checkpoint.*\.parquet")


@dataclass(frozen=True, slots=True)
class Damage:
    """One fault; ``file`` is below the state's folder. With ``log`` it is the table's log, else that file alone."""

    table: str
    file: str
    fault: str
    log: bool = False


def damage_error(root: StatePath, damage: Damage) -> EmbedmillError:
    """The error that names a damage and what mends it."""
    where = f"state.uri: table {damage.table!r} is damaged: {root / damage.file} {damage.fault}"
    if damage.table == "purges":
        return LostPurgesError(
            f"{where}; it says what was purged and cannot be made again: put the folder back from a backup "
            "(docs/faults.md)"
        )
    return DamagedStateError(f"{where}; run `embedmill verify --repair`, which rebuilds the table")


# -- the record --------------------------------------------------------------------------------------------------------


def recorded_versions(root: StatePath) -> dict[str, int | None]:
    """Version of each table when the last run ended; None of one whose rebuilding has begun and not ended."""
    try:
        found = json.loads((root / RECORD).read_text())
        return {name: found[name] for name in TABLES if name in found}
    except (FileNotFoundError, ValueError):
        return {}


def record_versions(root: StatePath, *, rebuilding: Collection[str] = (), rebuilt: Collection[str] = ()) -> None:
    """Record every table's version; tables ``rebuilding`` count as damaged until ``rebuilt``. Needs the lease."""
    before = recorded_versions(root)
    unfinished = ({name for name, version in before.items() if version is None} | set(rebuilding)) - set(rebuilt)
    now = {name: _newest(root / name) for name in TABLES}
    there = [name for name in TABLES if name in unfinished or now[name] >= 0]
    recorded = {name: None if name in unfinished else now[name] for name in there}
    if recorded != before:
        replace_file(root / RECORD, json.dumps(recorded).encode())


def _newest(table: StatePath) -> int:
    """Version of the newest log entry, -1 where there is none. Opens nothing."""
    return max(_versions(_names(table), _ENTRY), default=-1)


def _names(table: StatePath) -> list[str]:
    """Names of the files of a table's log; none where there is no log. One request to a store."""
    try:
        return [file.name for file in (table / "_delta_log").iterdir()]
    except FileNotFoundError:
        return []


def _versions(files: Iterable[str], name: re.Pattern[str]) -> list[int]:
    return [int(found[1]) for file in files if (found := name.fullmatch(file))]


# -- looking -----------------------------------------------------------------------------------------------------------


def first_damage(root: StatePath) -> Damage | None:
    """The first fault that shows without opening a data file: missing, gone back, unfinished, empty. Milliseconds."""
    recorded = recorded_versions(root)  # before the logs, which only grow
    for name in sorted(TABLES, key=lambda n: n != "purges"):
        for damage in _visible_damage(root, name, recorded):
            return damage
    return None


def find_damage(root: StatePath) -> list[Damage]:
    """Every fault of every table, by reading all of it. ``purges`` comes first, since it alone cannot be rebuilt."""
    recorded = recorded_versions(root)
    found: list[Damage] = []
    for name in sorted(TABLES, key=lambda n: n != "purges"):
        if (root / name).exists() or name in recorded:
            found += list(_visible_damage(root, name, recorded)) or _read(root, name)
    return found


def _visible_damage(root: StatePath, name: str, recorded: dict[str, int | None]) -> Iterator[Damage]:
    if name not in recorded:
        return
    log, version = f"{name}/_delta_log", recorded[name]
    if version is None:
        yield Damage(name, name, "is being rebuilt, or was when that was killed", log=True)
        return
    files = sizes_below(root / log)
    newest = max(_versions(files, _ENTRY), default=-1)
    if not files and not (root / log).is_dir():
        yield Damage(name, name if not (root / name).is_dir() else log, "is missing", log=True)
    elif newest < version:
        yield Damage(name, log, f"ends at version {newest} and was at {version}", log=True)
    else:
        for file, size in sorted(files.items()):
            if size == 0 and file.endswith(".json"):
                yield Damage(name, f"{log}/{file}", "is empty", log=True)


def _read(root: StatePath, name: str) -> list[Damage]:
    bad_entry = _bad_entry(root, name)
    if bad_entry is not None:
        return [bad_entry]
    try:
        actions = pa.table(open_delta(root / name).get_add_actions(flatten=True))
    except Exception as error:  # deltalake raises whatever its parts do, Rust panics among them
        if isinstance(root, ObjectPath) and isinstance(error, OSError):
            raise ResourceError(f"{root / name} cannot be read now ({type(error).__name__}); try again") from None
        return [Damage(name, f"{name}/_delta_log", f"cannot be read ({type(error).__name__})", log=True)]
    found, sizes = [], dict(zip(actions["path"].to_pylist(), actions["size_bytes"].to_pylist(), strict=True))
    there = sizes_of(root / name, sizes)
    for path, size in sizes.items():
        if fault := _file_fault(root / name / path, size, there[path]):
            found.append(Damage(name, f"{name}/{path}", fault))
    return found


def _bad_entry(root: StatePath, name: str) -> Damage | None:
    """A log entry that is no JSON, or the first that is missing between two others."""
    log = root / name / "_delta_log"
    files = _names(root / name)
    since = max(_versions(files, _CHECKPOINT), default=-1)
    entries = sorted(v for v in _versions(files, _ENTRY) if v > since)  # older ones are in the checkpoint
    for expected, version in enumerate(entries, since + 1):
        file = log / f"{expected:020}.json"
        if version != expected:
            return Damage(name, f"{name}/_delta_log/{file.name}", "is missing", log=True)
        try:
            good = all(isinstance(json.loads(line), dict) for line in file.read_text().splitlines() if line.strip())
        except ValueError:
            good = False
        if not good:
            return Damage(name, f"{name}/_delta_log/{file.name}", "is not a log entry", log=True)
    return None


def _file_fault(file: StatePath, size: int, there: int | None) -> str:
    if there is None:
        return "is missing"
    if there != size:
        return "is not as long as it was written"
    return "does not decode" if rows_of(file) is None else ""


def rows_of(file: StatePath) -> int | None:
    """Rows of a Parquet file that can be read to its end, with its checksums where it has them; else None.

    Raises ResourceError where a store does not give the file: that says nothing of what is in it.
    """
    source = pa.BufferReader(file.read_bytes()) if isinstance(file, ObjectPath) else file
    try:
        with pq.ParquetFile(source, page_checksum_verification=True) as data:
            return sum(len(batch) for batch in data.iter_batches())
    except (pa.ArrowException, OSError, ValueError):  # ValueError: UTF-8
        return None
