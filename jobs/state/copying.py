"""Copies a state between a folder and an object store, or from one of them to another, file by file. Encodes nothing.

Until all is there the marker of the copy says so, and nothing runs over half a state. Then the place that it came from
is marked as left: two places of one state would both write its index. Whatever dies between, the same again goes on.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from embedding.errors import ConfigError, EmbedmillError
from jobs.state.durable import flush_files
from jobs.state.integrity import damage_error, find_damage
from jobs.state.lease import Lease
from jobs.state.maintained_tables import MaintainedTables
from jobs.state.state_folder import FORMAT, FORMER, MARKER, make_place, place_marker
from jobs.state.storage import StatePath, copy_file, remove_files, replace_file, sizes_below
from jobs.state.tables import TABLES

_AT_ONCE = 8  # files: most of the time is a store's answer
_SMALL = ("hash.key", "state.id", "tables.json", "watermark.json")


def files_to_copy(source: StatePath, target: StatePath) -> dict[str, int]:
    """Bytes by path of what a state consists of: tables and small files, and no scratch, lease or index.

    Raises ConfigError where ``source`` is no state of this format, or ``target`` holds something else than an earlier
    copy of it.
    """
    if str(source) == str(target):
        raise ConfigError(f"FROM and TO are the same place: {source}")
    said = place_marker(source)
    if said is None or "copying" in said:
        raise ConfigError(f"FROM: {source} holds no whole state")
    if said.get("format") != FORMAT:
        first = "run `embedmill state migrate` first" if said.get("format") == FORMER else "another release wrote it"
        raise ConfigError(f"FROM: {source} has format {said.get('format')}, this version writes {FORMAT}; {first}")
    if said.get("moved") not in (None, str(target)):
        raise ConfigError(f"FROM: the state of {source} was moved to {said['moved']}; copy it from there")
    there = place_marker(target) or {}
    if sizes_below_state(target) and str(source) not in (there.get("copying"), there.get("moved")):
        raise ConfigError(f"TO: {target} is not empty, and no unfinished copy of {source}; give a place of its own")
    if any((source / "work").glob("*.inflight")):
        raise ConfigError(f"FROM: a run that writes to {source} was killed; run `embedmill run` there first")
    return sizes_below_state(source)


def is_finished(source: StatePath, target: StatePath) -> bool:
    """Whether the state was moved by an earlier call. What is at ``target`` has gone its own way since."""
    left, there = place_marker(source) or {}, place_marker(target) or {}
    return left.get("moved") == str(target) and bool(there) and not {"copying", "moved"} & there.keys()


def sizes_below_state(root: StatePath) -> dict[str, int]:
    """Bytes by path of the tables and small files of a state."""
    return {path: size for path, size in sizes_below(root).items() if path.split("/")[0] in (*TABLES, *_SMALL)}


def copy(source: StatePath, target: StatePath, leases: tuple[Lease, Lease], advance: Callable[[int], None]) -> int:
    """Copy what ``files_to_copy`` names; returns how many files were written. ``advance`` is told bytes that are done.

    Raises the error of a damaged table where the copy does not read as it should, LeaseHeldError for a lost lease.
    """
    said = place_marker(source) or {}
    make_place(target)
    if leases[0].took_over:  # so that the holder before, who may wake up, commits nothing more
        MaintainedTables(source, None, leases[0].number).raise_fence()
    files, there = sizes_below_state(source), sizes_below_state(target)
    _mark(target, {"format": FORMAT, "copying": str(source)})
    # A data file never changes under its name; a log and a small file may have.
    missing = {path for path, size in files.items() if there.get(path) != size or not _is_data(path)}
    for kept in files.keys() - missing:
        advance(files[kept])
    for some in (filter(_is_data, missing), (path for path in missing if not _is_data(path))):
        with ThreadPoolExecutor(_AT_ONCE, "copy") as threads:
            for path in threads.map(lambda path: _copy(source, target, path), sorted(some)):
                advance(files[path])
    remove_files(target, sorted(there.keys() - files.keys()))
    if isinstance(target, Path):
        flush_files([target / path for path in files], target)
    _check(source, target, files)
    for lease in leases:
        lease.check()
    _mark(source, {**said, "moved": str(target)})  # first: between the two neither place is used
    _mark(target, {key: value for key, value in said.items() if key != "moved"})
    return len(missing)


def _is_data(path: str) -> bool:
    return path.endswith(".parquet") and "/_delta_log/" not in path


def _copy(source: StatePath, target: StatePath, path: str) -> str:
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    copy_file(source / path, target / path)
    return path


def _check(source: StatePath, target: StatePath, files: Mapping[str, int]) -> None:
    """Raise where the copy is not what it was copied from, or does not read to its end."""
    if sizes_below_state(source) != files or sizes_below_state(target) != files:
        raise EmbedmillError(f"{source} changed while it was copied to {target}; run the same command again")
    for damage in find_damage(target):
        raise damage_error(target, damage)


def _mark(root: StatePath, said: Mapping[str, Any]) -> None:
    replace_file(root / MARKER, json.dumps(said).encode())
