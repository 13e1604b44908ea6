"""Queries of many requests encoded together, by a budget of tokens; what waits is bounded, and told to come later.

A request of many texts is encoded in pieces. Its next piece queues once the one before is done, so that others wait for
a piece and not for all of it, and that it ends where its time does.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Counts = npt.NDArray[np.integer]
WAIT = 0.5  # of its time, at most, may a request be expected to wait: in a rush all is slower than it was before
_AFTER = 0.15  # of its time is kept for what is before and after encoding: reading it, and writing the answer
_BATCH = 0.25  # of the longest time that a request has, at most, is a batch expected to take
_TELLING = 256  # tokens, from which a batch is about as fast as a large one
_MEMORY = 0.3  # seconds of encoding, after which a measured speed counts for a third
_PIECES = 4  # of a batch, that many texts of one request are encoded in
_HOPE = 2.0  # times as fast as so far, at most, may a request's other pieces be expected to be


class Overloaded(Exception):
    """No place for a request now. ``after`` is when to come again, in whole seconds."""

    def __init__(self, after: int) -> None:
        super().__init__(f"too many requests; come again in {after} s")
        self.after = after


class TooLate(Exception):
    """A request's time was over before it was answered."""


class Speed:
    """Tokens a second that one call of an encoder makes, by what it did of late."""

    def __init__(self, tokens: int, seconds: float) -> None:
        """As a first batch of so many tokens took so many seconds."""
        self._tokens, self._seconds = float(tokens), seconds

    def __call__(self) -> float:
        """Tokens a second."""
        return self._tokens / self._seconds

    def learn(self, tokens: int, seconds: float, most: float = math.inf) -> None:
        """Take in a batch of at most ``most`` tokens.

        A short one that was slow says nothing: a call costs what it costs with few texts too.
        """
        if seconds <= 0 or (tokens < min(_TELLING, most / 2) and tokens / seconds < self()):
            return
        kept = math.exp(-seconds / _MEMORY)
        self._tokens = kept * self._tokens + tokens
        self._seconds = kept * self._seconds + seconds


@dataclass(frozen=True, slots=True)
class Limits:
    """A batch has at most ``batch_tokens``; ``most_tokens`` may wait, and ``at_once`` batches be under way.

    ``seconds`` is the longest time of a request: no batch is larger than what the encoder does in a part of it, or a
    slow one would be late with all of it.
    """

    batch_tokens: int
    most_tokens: int
    seconds: float
    at_once: int = 1


@dataclass(slots=True, eq=False)
class _Waiting:
    texts: Sequence[str]
    tokens: Counts
    total: int
    deadline: float
    end: float  # when it has to be encoded
    answer: asyncio.Future[Vectors]


class Batcher:
    """Encodes on threads of its own what requests hand in; the calls are of one event loop.

    ``encode`` takes texts and their lengths in tokens and returns float32 (len(texts), dim); ``speed`` is that of one
    call. A request that is larger than all that may wait has a place when nothing else waits. ``told`` is given each
    batch's texts and tokens. ``waiting_tokens`` are those of requests that have a place and are not being encoded yet.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str], Counts], Vectors],
        limits: Limits,
        speed: Speed,
        told: Callable[[int, int], None] = lambda texts, tokens: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waiting_tokens = 0
        self._encode, self._told, self._clock = encode, told, clock
        self._limits, self._at_once, self._speed = limits, limits.at_once, speed
        self._queue: deque[_Waiting] = deque()
        self._queued = 0  # tokens of the queue: of a large request it has one piece
        self._under_way = 0  # tokens that are being encoded
        self._threads = ThreadPoolExecutor(limits.at_once, "encode")
        self._workers: set[asyncio.Task[None]] = set()

    def wait_seconds(self) -> float:
        """About how long a request that came now would wait for others; 0 where a thread is free."""
        if len(self._workers) < self._at_once:
            return 0.0
        return (self._queued + self._under_way) / (self._speed() * self._at_once)

    async def vectors(self, texts: Sequence[str], tokens: Counts, deadline: float) -> Vectors:
        """Vectors of texts, float32 (len(texts), dim); NaN in the row of one that cannot be encoded.

        ``deadline`` is of the clock. Raises Overloaded where there is no place or it could not be kept, TooLate where
        it has passed or the texts are too many for it, and what ``encode`` raises.
        """
        began, total = self._clock(), int(tokens.sum())
        if began >= deadline:
            raise TooLate
        large = total > self._piece_tokens() and len(texts) > 1
        ahead = self.waiting_tokens if large else self._queued
        full = ahead and ahead + total > self._limits.most_tokens
        if full or self.wait_seconds() > WAIT * (deadline - began):
            raise self._overloaded()
        self.waiting_tokens += total
        if not large:
            return await self._handed_in(texts, tokens, total, deadline)
        found: list[Vectors] = []
        left = total
        try:
            for piece in self._pieces(tokens):
                spent, done = self._clock() - began, total - left
                # At its own pace so far, which is that of its share: what cannot be done in time is not gone on with.
                if done and spent * left / done > _HOPE * (deadline - began - spent):
                    raise TooLate
                left -= (size := int(tokens[piece].sum()))
                found.append(await self._handed_in(texts[piece], tokens[piece], size, deadline))
        finally:
            self.waiting_tokens -= left
        return np.concatenate(found)

    async def _handed_in(self, texts: Sequence[str], tokens: Counts, total: int, deadline: float) -> Vectors:
        end = deadline - _AFTER * (deadline - self._clock())
        asked = _Waiting(texts, tokens, total, deadline, end, asyncio.get_running_loop().create_future())
        self._queue.append(asked)
        self._queued += total
        if len(self._workers) < self._at_once:
            self._workers.add(asyncio.create_task(self._work()))
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                return await asked.answer
        except TimeoutError:
            raise TooLate from None

    async def close(self, seconds: float) -> bool:
        """Wait so long for what is under way; nothing may be asked any more. Returns whether all has ended."""
        if self._workers:
            await asyncio.wait(self._workers, timeout=seconds)
        self._threads.shutdown(wait=False, cancel_futures=True)
        return not self._workers

    def _most(self) -> float:
        """Tokens of a batch, at most; so many that it tells the speed, where the configuration lets it."""
        return min(self._limits.batch_tokens, max(_TELLING, self._speed() * _BATCH * self._limits.seconds))

    def _piece_tokens(self) -> int:
        return max(1, int(self._most() * self._at_once / _PIECES))

    def _pieces(self, tokens: Counts) -> Iterator[slice]:
        """Rows of each piece, in order: of one text at least."""
        ends = np.cumsum(tokens)
        start = 0
        while start < len(ends):
            most = self._piece_tokens() + (int(ends[start - 1]) if start else 0)
            stop = max(start + 1, int(np.searchsorted(ends, most, "right")))
            yield slice(start, stop)
            start = stop

    async def _work(self) -> None:
        """Encode batch after batch until nothing waits."""
        me = asyncio.current_task()
        assert me is not None
        try:
            batch = self._next_batch(idle=True)
            while batch:
                await self._answer(batch)
                batch = self._next_batch()
        finally:
            self._workers.discard(me)  # at once: what comes now begins another

    def _next_batch(self, *, idle: bool = False) -> list[_Waiting]:
        """Requests that are still wanted, in their order, of at most ``_most`` tokens but of one at least.

        What would make an earlier one of them late waits for the next batch. What would be late by the speed that is
        known now is refused; the first after an ``idle`` time is tried: that may have been measured at a bad moment.
        """
        batch: list[_Waiting] = []
        total, most, now, speed = 0, self._most(), self._clock(), self._speed()
        while self._queue and (not batch or total + self._queue[0].total <= most):
            asked = self._queue.popleft()
            self._queued -= asked.total
            self.waiting_tokens -= asked.total
            if asked.answer.done() or now >= asked.deadline:  # nobody waits for it any more
                continue
            late = now + (total + asked.total) / speed > asked.end
            if late and (batch or not idle):
                asked.answer.set_exception(self._overloaded())
                continue
            batch.append(asked)
            total += asked.total
            most = min(most, (asked.end - now) * speed)
        return batch

    def _overloaded(self) -> Overloaded:
        return Overloaded(max(1, math.ceil(self.wait_seconds())))

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        texts = [text for asked in batch for text in asked.texts]
        tokens = np.concatenate([asked.tokens for asked in batch])
        self._under_way += (encoded := int(tokens.sum()))
        began = self._clock()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._threads, self._encode, texts, tokens)
        except Exception as error:
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(error)
            return
        finally:
            self._under_way -= encoded
        self._speed.learn(encoded, self._clock() - began, self._most())
        self._told(len(texts), encoded)
        start = 0
        for asked in batch:
            if not asked.answer.done():
                asked.answer.set_result(found[start : start + len(asked.texts)])
            start += len(asked.texts)
