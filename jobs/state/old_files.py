"""Erasure: remove the bytes of dropped rows from the state's files, old versions and logs included."""

from __future__ import annotations

import os
from contextlib import suppress

from jobs.state.storage import sizes_below
from jobs.state.store import State
from jobs.state.tables import TABLES

_KEPT = "delta.logRetentionDuration"


def erase_dropped(state: State, name: str) -> int:
    """Remove every file that a table's current rows do not need, and its log up to now; returns how many files.

    Call it only while holding the lease. A reader that opened the table before may fail, and finds all when it opens
    it again. The log goes because it names rows: a delete has their keys in it.
    """
    if TABLES[name].layered:  # a row that a change replaced or removed is in its file still
        state.fold(name)
    files = len(state.vacuum(name, hours=0))
    log = state.root / name / "_delta_log"
    before = sizes_below(log).keys()
    state.set_properties(name, {_KEPT: "interval 0 days"})
    state.checkpoint(name)
    state.set_properties(name, {_KEPT: "interval 30 days"})
    return files + len(before - sizes_below(log).keys())


def empty_engine_log(state: State) -> None:
    """Empty the engines' log. A process that has it open appends at its new end."""
    with suppress(FileNotFoundError):
        os.truncate(state.engine_log, 0)
