"""The scratch folders of a state: of runs, which hold their plan and texts, and of the engines of processes.

The next holder of the lease clears the scratch of a run. Engines outlive a run, so a process keeps a sign of life in
their folder: on this machine its process id is checked, elsewhere the age of the sign.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import threading
import uuid
from contextlib import suppress
from pathlib import Path

import psutil

from embedding.errors import ResourceError
from jobs.state.lease import is_gone, is_here, machine_id, started_at
from jobs.state.object_path import ObjectPath
from jobs.state.state_folder import scratch_of
from jobs.state.storage import StatePath, replace_file

_ALIVE = "alive.json"
_beating: set[Path] = set()
_opened: set[Path] = set()
_mutex = threading.Lock()


def clear_work(root: StatePath, *, keep: str = "") -> int:
    """Drop the scratch of other runs than ``keep``, not of running engines. Call it only while holding the lease.

    A plan in it is void once another run has written: a step that finds it gone plans anew. Returns the number of
    folders removed.
    """
    if isinstance(root, ObjectPath):
        gone = clear_folder(scratch_of(root), keep)
        for prefix in (root / "work").folders():
            if prefix.name != keep:
                prefix.remove_all()
                gone += 1
        return gone
    return clear_folder(root / "work", keep)


def clear_folder(work: Path, keep: str = "") -> int:
    """``clear_work`` in a folder of this machine."""
    gone = 0
    for folder in work.iterdir() if work.exists() else ():
        if folder.is_dir() and folder.name != keep and not _in_use(folder):
            # In one step, so that no half of a plan is left where this is killed.
            if not folder.name.startswith("."):
                folder = folder.rename(work / f".{folder.name}.{uuid.uuid4().hex}")
            shutil.rmtree(folder, ignore_errors=True)
            gone += not folder.exists()
    return gone


def scratch_left(root: StatePath) -> int:
    """Folders of scratch that are there: of engines that run, or of a run that goes on."""
    work = scratch_of(root)
    left = sum(folder.is_dir() for folder in work.iterdir()) if work.exists() else 0
    return left + len(list((root / "work").folders())) if isinstance(root, ObjectPath) else left


def open_scratch(folder: Path, seconds: int) -> None:
    """Make the scratch folder of this process's engines, private, and show life in it; see ``show_life``.

    Empty when this process first asks: one that was killed may have had the same id, and left text in it.
    """
    with _mutex:
        if folder not in _opened:
            shutil.rmtree(folder, ignore_errors=True)
            _opened.add(folder)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    show_life(folder, seconds)


def show_life(folder: Path, seconds: int) -> None:
    """While this process lives, say so in its engines' folder: four times in ``seconds``, the length of a lease.

    So a process that takes over an expired lease finds the sign of its old holder too old as well.
    """
    with _mutex:
        _sign(folder, seconds)
        if folder not in _beating:
            _beating.add(folder)
            threading.Thread(target=_beat, args=(folder, seconds), name="scratch", daemon=True).start()


def _sign(folder: Path, seconds: int) -> None:
    me = psutil.Process()
    said = {
        "host": socket.gethostname(),
        "machine": machine_id(),
        "pid": me.pid,
        "process_started": started_at(me),
        "seconds": seconds,
    }
    replace_file(folder / _ALIVE, json.dumps(said).encode())


def _beat(folder: Path, seconds: int) -> None:
    pause = threading.Event()
    while not pause.wait(seconds / 4):
        with suppress(OSError):  # gone, or a file system that fails for a moment
            os.utime(folder / _ALIVE)


def _in_use(folder: Path) -> bool:
    """Whether a folder is of engines that may be running."""
    found = re.fullmatch(r"engines-(.+)-([0-9]+)", folder.name)
    if found is None:
        return False
    try:
        said = json.loads((folder / _ALIVE).read_text())
        seen = (folder / _ALIVE).stat().st_mtime
        if is_here(said):
            return not is_gone(said)
        return _now(folder.parent) - seen < float(said["seconds"])
    except (OSError, ValueError, KeyError):  # killed before it could say anything, or an older version's
        return found[1] == socket.gethostname() and psutil.pid_exists(int(found[2]))


def _now(folder: Path) -> float:
    """The time by the clock that stamps files there, which need not be this machine's."""
    file = folder / f".now.{uuid.uuid4().hex}"
    file.touch()
    try:
        return file.stat().st_mtime
    finally:
        file.unlink(missing_ok=True)


def check_disk(root: StatePath, min_free_mb: int) -> None:
    """Raise ResourceError where the state's disk, or that of its scratch, is nearly full: better now than half-way."""
    root = scratch_of(root) if isinstance(root, ObjectPath) else root
    free = shutil.disk_usage(root).free // 1_000_000
    if free < min_free_mb:
        raise ResourceError(
            f"disk full: {root} has {free} MB free, limits.min_free_mb asks for {min_free_mb}; free some space"
        )
