"""Whose an index is: its versions remember the state that writes them, and no other state writes there.

A state that knows nothing of another one's rows takes them for ghosts and deletes them. A version without an owner
was made by an earlier release, and is the first writer's.
"""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding.errors import DamagedStateError, OwnershipError
from jobs.durable import replace_file
from jobs.scope import Scope

if TYPE_CHECKING:
    from jobs.mill import Mill

FILE = "state.id"


def state_id(root: Path) -> str:
    """The id of a state, "" of one that has never written. A copy or a restored backup keeps it."""
    file = root / FILE
    try:
        found = file.read_text().strip()
    except FileNotFoundError:
        return ""
    if not re.fullmatch("[0-9a-f]{32}", found):
        raise DamagedStateError(
            f"state.uri: {file} is damaged; put it back from a backup, or remove it and run `embedmill takeover`"
        )
    return found


def own_id(root: Path) -> str:
    """The id of a state, made where there is none. Call it only while holding the lease."""
    if not (found := state_id(root)):
        found = uuid.uuid4().hex
        replace_file(root / FILE, found.encode())
    return found


def own_index(mill: Mill) -> None:
    """Before the first write to an index: all its versions are this state's. Call it only while holding the lease.

    Raises OwnershipError where one is another state's.
    """
    if not mill.has_index():
        return
    index, ours = mill.index(), own_id(mill.state.root)
    owners = {version: index.owner_of(version) for version in index.versions()}
    for version, owner in owners.items():
        refuse_other(mill, version, owner)
    for version, owner in owners.items():
        if not owner:
            index.set_owner(version, ours)


def refuse_other(mill: Mill, version: str, owner: str) -> None:
    """Raise OwnershipError where the version's owner is another state."""
    ours = own_id(mill.state.root)
    if owner not in ("", ours):
        raise OwnershipError(
            f"index {version} belongs to state {owner}, and this is state {ours} ({mill.state.root}); nothing was "
            "written. Give this state an index.name of its own, or, if that state is given up, run "
            "`embedmill takeover`"
        )


def takeover(mill: Mill, *, wait: float = 0.0) -> dict[str, Any]:
    """Record this state as the owner of every version, whoever had it. Changes no row.

    Returns by version who owned it before ("" for nobody).
    """
    with mill.writing("takeover", Scope(), wait) as (report, lease):
        index, ours = mill.index(), own_id(mill.state.root)
        before = {version: index.owner_of(version) for version in index.versions()}
        for version, owner in before.items():
            if owner != ours:
                lease.check()
                index.set_owner(version, ours)
        report.index = index.live() or ""
        report.status = "ok"
    return {
        "run_id": report.run_id, "index": report.index or None, "state_id": ours,
        "versions": [{"name": version, "owner_before": owner} for version, owner in before.items()],
        "taken": sum(owner != ours for owner in before.values()),
    }  # fmt: skip
