"""What a run has spent on a managed model so far, noted in its work folder by every process that encodes.

An entry is an empty file whose name tells the shard and millionths of a USD, so that the log lies in a folder as well
as in an object store. A shard begins only below the limit: when it is reached, shards that are under way are finished
and stored, so that a run may spend as much more as one shard for each actor costs.
"""

from __future__ import annotations

import uuid

from embedding.errors import BudgetError
from jobs.embed.attempt_log import entries
from jobs.state.storage import StatePath, remove_all, replace_file

SPENT = "spent"


class Spending:
    """The log in a ``folder``, against a limit in USD; None is no limit, and nothing is noted then."""

    def __init__(self, folder: StatePath, limit: float | None) -> None:
        self._folder, self._limit = folder, limit

    def begin(self, usd: float) -> None:
        """Start anew, for a run that has spent so much already."""
        if self._limit is not None:
            remove_all(self._folder)
            self.note("before", usd)

    def check(self) -> None:
        """Raise BudgetError where the limit is reached."""
        if self._limit is None:
            return
        spent = sum(int(name.rpartition("-")[2]) for name in entries(self._folder)) / 1e6
        if spent >= self._limit:
            raise BudgetError(
                f"model.remote.max_usd: the run has spent about {spent:.6g} USD of {self._limit:g}; what was encoded "
                "is stored, and the next run goes on from there: run again, or raise it"
            )

    def note(self, shard: str, usd: float) -> None:
        """Add what a shard cost."""
        if self._limit is None or not usd:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(self._folder / f"{shard}-{uuid.uuid4().hex[:8]}-{max(1, round(usd * 1e6))}", b"", durable=False)
