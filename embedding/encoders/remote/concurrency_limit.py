"""How many requests a service may be sent at once: found out by asking for more until it says that it is too many."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from embedding.encoders.remote.service import TryAgain


class AdaptiveLimit:
    """A limit on concurrency that grows by one with each round of successes and halves when the service pushes back.

    The rule is TCP's (additive increase, multiplicative decrease). Requests that were under way when the limit was
    halved do not halve it again: they were sent under the old one and say nothing of the new.
    """

    def __init__(self, most: int, first: int = 4) -> None:
        self._most = most
        self._limit = float(min(first, most))
        self.ramping = False  # whether it was started anew and has not found its height yet
        self._busy = 0
        self._era = 0  # how often the limit was halved
        self._changed = threading.Condition()

    @property
    def limit(self) -> int:
        """Requests that may be under way now."""
        return int(self._limit)

    @property
    def free(self) -> bool:
        """Whether a request would be sent at once."""
        return self._busy < int(self._limit)

    def restart(self) -> None:
        """Begin at 1, for a service that was away."""
        with self._changed:
            self._limit = 1.0
            self.ramping = self._most > 1
            self._era += 1

    @contextmanager
    def slot(self, until: float | None = None) -> Iterator[int]:
        """Wait for a place, and hold it. Yields what ``pushed_back`` wants to know.

        Raises TryAgain where there is none ``until`` then, of the monotonic clock.
        """
        with self._changed:
            seconds = None if until is None else until - time.monotonic()
            if not self._changed.wait_for(lambda: self._busy < int(self._limit), seconds):
                raise TryAgain("no place for another request in its time", full=True)
            self._busy += 1
            era = self._era
        try:
            yield era
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()

    def succeeded(self) -> None:
        """A request was answered."""
        with self._changed:
            self._limit = min(float(self._most), self._limit + 1.0 / self._limit)
            self.ramping = self.ramping and self._limit < self._most
            self._changed.notify_all()

    def pushed_back(self, era: int) -> None:
        """A request of that era was throttled or ran into its time limit."""
        with self._changed:
            if era == self._era:
                self._limit = max(1.0, self._limit / 2)
                self.ramping = False
                self._era += 1
