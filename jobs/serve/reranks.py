"""Reranking for those who wait: within what is left of a request's time, and not by a service that does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from embedding.rerankers.base import NotReranked
from jobs.search.searcher import Answer

if TYPE_CHECKING:
    from indexers.base import Hit
    from jobs.search.rerank import Reranking
    from jobs.search.searcher import Query

_SHARE = 0.8  # of what is left of a request's time; the rest is for its answer
_FAILURES = 3  # in a row, after which the reranker is left alone
REST = 5.0  # seconds, after which one search asks it again


class Reranks:
    """Reranks for one process, ``count`` searches at once; it is called from their threads.

    ``full_seconds`` is the time of a request that does not shorten it: one that is late because its client gave it
    little time says nothing of the reranker. ``failed`` is called for each answer that is not reranked, ``say`` is
    given a line for a person.
    """

    def __init__(
        self,
        count: int,
        full_seconds: float,
        failed: Callable[[], None],
        say: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._full_seconds, self._failed, self._say, self._clock = full_seconds, failed, say, clock
        self._threads = ThreadPoolExecutor(count, "rerank")
        self._lock = threading.Lock()
        self._in_a_row = 0
        self._rests_until = 0.0

    def answer(self, reranking: Reranking, query: Query, hits: list[Hit], deadline: float) -> Answer:
        """Hits in the reranker's order, or as they are with the reason. ``deadline`` is of the clock."""
        if not hits:
            return Answer([], True)
        began = self._clock()
        seconds = _SHARE * (deadline - began)
        try:
            if seconds <= 0:
                raise NotReranked("no time was left")
            self._ask_whether_it_rests()
            found = self._ordered(reranking, query, hits, seconds)
        except NotReranked as error:
            self._failed()
            return Answer(hits[: query.k], False, str(error))
        return Answer(found[: query.k], True)

    def _ordered(self, reranking: Reranking, query: Query, hits: list[Hit], seconds: float) -> list[Hit]:
        began = self._clock()
        asked = self._threads.submit(reranking.order, query.text, hits, seconds)
        try:
            found = asked.result(seconds)
        except Exception as error:  # of a model of this machine anything, which may quote a text
            asked.cancel()  # where it has not begun
            late = f"no answer in {seconds:.1f} s" if isinstance(error, TimeoutError) else type(error).__name__
            reason = str(error) if isinstance(error, NotReranked) else late
            if self._clock() - began < seconds or seconds >= _SHARE * self._full_seconds / 2:
                self._note_failure(reason)
            raise NotReranked(reason) from None
        self._note_success()
        return found

    def _ask_whether_it_rests(self) -> None:
        with self._lock:
            if self._in_a_row < _FAILURES:
                return
            if (now := self._clock()) < self._rests_until:
                raise NotReranked(f"not asked for {REST:g} s after {_FAILURES} failures in a row")
            self._rests_until = now + REST  # this one asks, and no other until it is known how that ended

    def _note_failure(self, reason: str) -> None:
        with self._lock:
            self._in_a_row += 1
            self._rests_until = self._clock() + REST
            first = self._in_a_row == _FAILURES
        if first:
            self._say(f"the reranker failed {_FAILURES} times in a row and is asked every {REST:g} s only: {reason}")

    def _note_success(self) -> None:
        with self._lock:
            again, self._in_a_row = self._in_a_row >= _FAILURES, 0
        if again:
            self._say("the reranker answers again")
