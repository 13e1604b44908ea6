"""The fencing token: every commit carries the number of its writer's lease, so that a late writer cannot commit.

Asking the lease before a commit is not enough: a process may be stopped after the answer and go on when another has
taken over. Delta Lake keeps such a number with a commit, and refuses a commit that began before another one of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from deltalake import CommitProperties, DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError, DeltaError

from embedding.errors import LeaseHeldError

LOST = "the lease on this state was lost to another run; run again"
_APP = "lease"


@contextmanager
def fenced(table: DeltaTable, number: int, **noted: int) -> Iterator[CommitProperties]:
    """Yield the properties to commit with under the lease of this number, with what is ``noted`` in the commit.

    Raises LeaseHeldError where a later lease has committed, before the block or during it; ValueError without a number.
    """
    check(table, number)
    try:
        yield numbered(number, **noted)
    except CommitFailedError:
        if _number(DeltaTable(table.table_uri)) > number:
            raise LeaseHeldError(LOST) from None
        raise


def numbered(number: int, **noted: int) -> CommitProperties:
    """What puts the number of a lease, and further numbers by name, into a commit."""
    return CommitProperties(app_transactions=[Transaction(name, n) for name, n in {_APP: number, **noted}.items()])


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


def newest(uris: Iterable[str]) -> int:
    """The highest number that any of the tables was committed under; 0 for one that is missing or damaged."""
    found = 0
    for uri in uris:
        with suppress(DeltaError, ValueError):  # the command that works with a damaged table names it
            found = max(found, _number(DeltaTable(uri)))
    return found


def _number(table: DeltaTable) -> int:
    return noted(table, _APP)
