"""The fencing token: every commit carries the number of its writer's lease, so that a late writer cannot commit.

Asking the lease before a commit is not enough: a process may be stopped after the answer and go on when another has
taken over. Delta Lake keeps such a number with a commit, and refuses a commit that began before another one of it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from typing import Any, TypeVar

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import DeltaError

from embedding.errors import LeaseHeldError
from jobs.state.storage import StatePath, open_delta

LOST = "the lease on this state was lost to another run; run again"
_APP = "lease"
Place = TypeVar("Place")  # what a table is opened by
_COMMIT = "embedmill.commit"


@contextmanager
def fenced(folder: StatePath, table: DeltaTable, number: int, **noted: int) -> Iterator[CommitProperties]:
    """Yield the properties to commit with under the lease of this number, with what is ``noted`` in the commit.

    The block commits once to the ``table`` of a folder. Where the store took the commit and its answer was lost, the
    commit is found in the log, by an id of its own, and the block counts as done.

    Raises LeaseHeldError where a later lease has committed, before the block or during it; ValueError without a number.
    """
    check(table, number)
    before, commit = table.version(), uuid.uuid4().hex
    try:
        yield numbered(number, commit, **noted)
    except (DeltaError, OSError):
        if any(said.get(_COMMIT) == commit for said in commits_since(folder, before)):
            return
        if newest(open_delta, [folder]) > number:
            raise LeaseHeldError(LOST) from None
        raise


def commits_since(folder: StatePath, version: int) -> Iterator[dict[str, Any]]:
    """What the commits to a table after a version say of themselves, as far as the log holds them.

    Not by ``DeltaTable.history``, which holds the interpreter while it waits for a store: no lease would beat.
    """
    for number in count(version + 1):
        try:
            entry = (folder / "_delta_log" / f"{number:020}.json").read_text()
        except FileNotFoundError:
            return
        yield from (action["commitInfo"] for action in map(json.loads, entry.splitlines()) if "commitInfo" in action)


def numbered(number: int, commit: str, **noted: int) -> CommitProperties:
    """What puts the number of a lease, the id of the commit and further numbers by name into a commit."""
    numbers = {_APP: number, **noted}
    return CommitProperties(
        app_transactions=[Transaction(name, n) for name, n in numbers.items()],
        custom_metadata={_COMMIT: commit} if commit else None,
    )


def noted(table: DeltaTable, name: str) -> int:
    """The newest number that a commit to the table noted under a name; 0 where none did."""
    return table.transaction_version(name) or 0


def check(table: DeltaTable, number: int) -> None:
    """Raise LeaseHeldError where a later lease has committed to the table; ValueError without a number."""
    refuse_unfenced(number)
    if _number(table) > number:
        raise LeaseHeldError(LOST)


def refuse_unfenced(number: int) -> None:
    """Raise ValueError for a writer without the number of a lease."""
    if number < 1:
        raise ValueError("this state is open for reading; hold the lease and use State.for_writing")


def newest(opened: Callable[[Place], DeltaTable], tables: Iterable[Place]) -> int:
    """The highest number that any of the tables was committed under; 0 for one that is missing or damaged."""
    found = 0
    for place in tables:
        with suppress(DeltaError, ValueError):  # the command that works with a damaged table names it
            found = max(found, _number(opened(place)))
    return found


def _number(table: DeltaTable) -> int:
    return noted(table, _APP)
