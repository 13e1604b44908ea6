"""The scratch folders below the state: of runs, which hold their plan and texts, and of the engines of processes."""

from __future__ import annotations

import re
import shutil
import socket
import uuid
from pathlib import Path

import psutil


def clear_work(root: Path, *, keep: str = "") -> None:
    """Drop the scratch of other runs than ``keep``, not of running engines. Call it only while holding the lease.

    What was planned in it is void once another run has written: whoever finds it gone plans anew.
    """
    work = root / "work"
    for folder in work.iterdir() if work.exists() else ():
        if folder.is_dir() and folder.name != keep and not _in_use(folder.name):
            # In one step, so that no half of a plan is left where this is killed.
            if not folder.name.startswith("."):
                folder = folder.rename(work / f".{folder.name}.{uuid.uuid4().hex}")
            shutil.rmtree(folder, ignore_errors=True)


def _in_use(folder: str) -> bool:
    """Whether a folder is of engines that may be running: on another machine, or of a process of this one."""
    found = re.fullmatch(r"engines-(.+)-([0-9]+)", folder)
    return found is not None and (found[1] != socket.gethostname() or psutil.pid_exists(int(found[2])))
