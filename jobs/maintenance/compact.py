"""Compaction: folds changes into the rows of their tables and joins small files, some of it at the end of each run.

A reader that opened a table before goes on: the files that were replaced stay until ``gc`` or a purge removes them.
"""

from __future__ import annotations

from jobs.state.folding import due
from jobs.state.store import State
from jobs.state.table_files import Group
from jobs.state.tables import TABLES

# Bytes of files that one run writes anew: so many for each row that it changed itself, between the least and the most.
# A run that changed little does not pay at once for what a large one has left.
_OF_A_ROW, _LEAST, _MOST = 10_000, 50_000_000, 1_000_000_000
_BUCKETED = [name for name, spec in TABLES.items() if spec.bucketed]
_SMALL = [name for name in TABLES if name not in _BUCKETED]


def compact_due(state: State, changed: int) -> None:
    """Fold the partitions that are worth it, the costliest to read first, up to a bound. Needs the lease.

    ``changed`` is how many rows the run wrote or deleted in the index. One partition is folded whatever its size.
    """
    # Each run adds a file to ``runs``; to the other small tables one that found something to do.
    for name in _SMALL if changed else ("runs",):
        state.fold(name, [group for group in state.every_cut().groups(name) if due(group)], join=2)
    most = left = min(_MOST, max(_LEAST, _OF_A_ROW * changed))
    for name in _BUCKETED:
        chosen = list[Group]()
        groups = [group for group in state.every_cut().groups(name) if due(group)]
        for group in sorted(groups, key=lambda one: len(one.base) + len(one.changes), reverse=True):
            size = sum(file.size for file in (*group.base, *group.changes))
            if size <= left or not chosen and left == most:
                chosen.append(group)
                left -= size
        state.fold(name, chosen, join=2)


def compact_all(state: State) -> None:
    """Fold every partition that has changes, and join all small files. Needs the lease."""
    for name in _BUCKETED:
        state.fold(name, state.every_cut().groups(name), join=2)


def sizes(state: State) -> dict[str, tuple[int, int]]:
    """Files and bytes of the newest version of each table."""
    found = {}
    for name in TABLES:
        groups = state.every_cut().groups(name)
        files = [file for group in groups for file in (*group.base, *group.changes)]
        found[name] = len(files), sum(file.size for file in files)
    return found
