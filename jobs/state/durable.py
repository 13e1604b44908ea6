"""Puts commits on the disk, so that a loss of power takes back nothing that was acknowledged.

What an object store has taken is there already: of a table in one there is nothing to do.

deltalake does not: it renames or links what it wrote, and the file system writes both when it likes. A table whose log
names a file that is empty would be damaged.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from urllib.parse import unquote

from embedding.atomic_file import flush
from jobs.state.storage import StatePath

_LAST_CHECKPOINT = "_last_checkpoint"


def flush_commits(table: StatePath, after: int) -> None:
    """Flush the commits of a table's folder after a version, with the files that they add; -1 is all, with the folder.

    What was flushed when it was written costs next to nothing.
    """
    if not isinstance(table, Path):
        return
    log, files = table / "_delta_log", list[Path]()
    for version in count(after + 1):
        entry = log / f"{version:020}.json"
        if not entry.exists():
            break
        files += [entry, *log.glob(f"{version:020}.checkpoint*.parquet")]
        actions = map(json.loads, entry.read_text().splitlines())
        files += [table / unquote(action["add"]["path"]) for action in actions if "add" in action]
    flush_files([*files, log / _LAST_CHECKPOINT], table)
    if after < 0:
        flush(table.parent)


def flush_checkpoint(table: StatePath, version: int) -> None:
    """Flush the checkpoint of a version, before the log entries that it stands for are removed."""
    if not isinstance(table, Path):
        return
    log = table / "_delta_log"
    flush_files([*log.glob(f"{version:020}.checkpoint*.parquet"), log / _LAST_CHECKPOINT], table)


def flush_removals(table: StatePath) -> None:
    """Have files that were removed from a table's folder stay removed."""
    for folder, _, _ in os.walk(table) if isinstance(table, Path) else ():
        flush(Path(folder))


def flush_files(files: Iterable[StatePath], root: StatePath) -> None:
    """Flush those of the files below ``root`` that are there, and the folders between; what is gone was replaced."""
    if not isinstance(root, Path):
        return
    folders = set[Path]()
    for file in files:
        if isinstance(file, Path) and file.exists():
            flush(file)
            folders |= {folder for folder in file.parents if folder.is_relative_to(root)}
    for folder in sorted(folders, reverse=True):
        flush(folder)
