"""The id of a state, by which an index remembers who writes it."""

from __future__ import annotations

import re
import uuid

from embedding.errors import DamagedStateError, OwnershipError
from jobs.state.storage import StatePath, replace_file

FILE = "state.id"


def state_id(root: StatePath) -> str:
    """The id of a state, "" of one that has never written. A copy or a restored backup keeps it.

    Raises DamagedStateError for a file that is no id.
    """
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


def own_id(root: StatePath) -> str:
    """The id of a state, made where there is none. Call it only while holding the lease."""
    if not (found := state_id(root)):
        found = uuid.uuid4().hex
        replace_file(root / FILE, found.encode())
    return found


def refuse_other(root: StatePath, version: str, owner: str) -> None:
    """Raise OwnershipError where the version's owner is another state."""
    ours = own_id(root)
    if owner not in ("", ours):
        raise OwnershipError(
            f"index {version} belongs to state {owner}, and this is state {ours} ({root}); nothing was "
            "written. Give this state an index.name of its own, or, if that state is given up, run "
            "`embedmill takeover`"
        )
