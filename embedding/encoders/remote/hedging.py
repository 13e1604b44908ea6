"""When a slow request is worth a second one to another endpoint: seldom, and only past what is usual."""

from __future__ import annotations

import threading
from collections import deque

_RECENT = 100  # answers that tell what is usual
_ENOUGH = 20
_USUAL = 0.95


class Hedging:
    """Bounds hedged requests to a ``share`` of all, for any number of threads."""

    def __init__(self, share: float) -> None:
        self._share = share
        self._lock = threading.Lock()
        self._asked = self._hedged = 0
        self._seconds: dict[int, deque[float]] = {}

    def began(self) -> None:
        """A request is sent."""
        with self._lock:
            self._asked += 1

    def answered(self, endpoint: int, seconds: float) -> None:
        """An endpoint answered after so long."""
        with self._lock:
            self._seconds.setdefault(endpoint, deque(maxlen=_RECENT)).append(seconds)

    def patience(self, endpoint: int) -> float | None:
        """Seconds within which an endpoint usually answers (95 %); None where too little is known."""
        with self._lock:
            known = sorted(self._seconds.get(endpoint, ()))
        return known[int(_USUAL * (len(known) - 1))] if len(known) >= _ENOUGH else None

    def take(self) -> bool:
        """Whether one more may be hedged; it is then counted."""
        with self._lock:
            if self._hedged + 1 > self._share * self._asked:
                return False
            self._hedged += 1
            return True
