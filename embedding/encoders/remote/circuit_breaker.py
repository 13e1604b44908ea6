"""When an endpoint that fails is left out, and when it is tried again.

Closed, it is asked. It opens after so many failures in a row, or where half of its last answers were failures; nothing
is asked then for a while. After that it is half-open: one request tries it, and its outcome closes or opens it.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable

_WINDOW = 20  # outcomes that the share of failures is taken of
_SHARE = 0.5


class CircuitBreaker:
    """Of one endpoint, for any number of threads. ``opened`` counts how often it opened.

    A ticket says in which period a request was let through: an outcome of a former period says nothing of this one.
    """

    def __init__(self, open_after: int, open_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.opened = 0
        self._open_after, self._open_seconds, self._clock = open_after, open_seconds, clock
        self._lock = threading.Lock()
        self._period = 0
        self._row = 0
        self._outcomes: deque[bool] = deque(maxlen=_WINDOW)
        self._until: float | None = None  # None while it is closed
        self._trial = False  # whether the one request of the half-open period is under way

    @property
    def closed(self) -> bool:
        """Whether requests pass as they come."""
        return self._until is None

    def remaining(self) -> float:
        """Seconds until a request may try it; 0 where one may, or does."""
        until = self._until
        return 0.0 if until is None else max(0.0, until - self._clock())

    def admit(self) -> int | None:
        """A ticket for one request, None where none may be sent now."""
        with self._lock:
            if self._until is None:
                return self._period
            if self._trial or self._clock() < self._until:
                return None
            self._trial = True
            self._period += 1
            return self._period

    def succeeded(self, ticket: int) -> bool:
        """The request was answered. Returns whether that closed it: the endpoint is back."""
        with self._lock:
            if ticket != self._period:
                return False
            back = self._until is not None
            if back:
                self._reset()
            self._row = 0
            self._outcomes.append(True)
            return back

    def failed(self, ticket: int) -> None:
        """The request failed, and not for its texts."""
        with self._lock:
            if ticket != self._period:
                return
            self._row += 1
            self._outcomes.append(False)
            full = len(self._outcomes) == _WINDOW and self._outcomes.count(False) >= _SHARE * _WINDOW
            if self._until is not None or self._row >= self._open_after or full:
                self._reset()
                self._until = self._clock() + self._open_seconds
                self.opened += 1

    def abandoned(self, ticket: int) -> None:
        """Nothing is known of the request: if it was the one that tries, another may."""
        with self._lock:
            if ticket == self._period and self._trial:
                self._trial = False
                self._period += 1

    def _reset(self) -> None:
        self._period += 1
        self._row, self._trial, self._until = 0, False, None
        self._outcomes.clear()
