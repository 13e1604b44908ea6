"""Queries of many requests encoded together, by a budget of tokens; what waits is bounded, and told to come later."""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]
Counts = npt.NDArray[np.integer]
_MEMORY = 0.2  # weight of the newest batch in the speed that waiting times are told by
WAIT = 0.5  # of its time, at most, may a request be expected to wait: in a rush all is slower than it was before
_FIRST_SPEED = 20_000.0  # tokens a second, until a batch has been measured


class Overloaded(Exception):
    """No place for a request now. ``after`` is when to come again, in whole seconds."""

    def __init__(self, after: int) -> None:
        super().__init__(f"too many requests; come again in {after} s")
        self.after = after


class TooLate(Exception):
    """A request's time was over before it was answered."""


@dataclass(slots=True, eq=False)
class _Waiting:
    texts: Sequence[str]
    tokens: Counts
    total: int
    deadline: float
    answer: asyncio.Future[Vectors]


class Batcher:
    """Encodes on one thread of its own what requests hand in; the calls are of one event loop.

    ``encode`` takes texts and their lengths in tokens and returns float32 (len(texts), dim). At most ``most_tokens``
    wait; a request that is larger by itself has a place when nothing else waits. ``told`` is given each batch's texts
    and tokens.
    """

    def __init__(
        self,
        encode: Callable[[Sequence[str], Counts], Vectors],
        *,
        batch_tokens: int,
        most_tokens: int,
        told: Callable[[int, int], None] = lambda texts, tokens: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.waiting_tokens = 0
        self._encode, self._told, self._clock = encode, told, clock
        self._batch_tokens, self._most_tokens = batch_tokens, most_tokens
        self._queue: deque[_Waiting] = deque()
        self._under_way = 0  # tokens of the batch that is being encoded
        self._speed = _FIRST_SPEED
        self._thread = ThreadPoolExecutor(1, "encode")
        self._worker: asyncio.Task[None] | None = None

    def wait_seconds(self) -> float:
        """About how long what waits now will take to be encoded."""
        return (self.waiting_tokens + self._under_way) / self._speed

    async def vectors(self, texts: Sequence[str], tokens: Counts, deadline: float) -> Vectors:
        """Vectors of texts, float32 (len(texts), dim); NaN in the row of one that cannot be encoded.

        ``deadline`` is of the clock. Raises Overloaded where there is no place or it could not be kept, TooLate where
        it has passed, and what ``encode`` raises.
        """
        total = int(tokens.sum())
        full = self._queue and self.waiting_tokens + total > self._most_tokens
        if full or self.wait_seconds() > WAIT * (deadline - self._clock()):
            raise Overloaded(max(1, math.ceil(self.wait_seconds())))
        asked = _Waiting(texts, tokens, total, deadline, asyncio.get_running_loop().create_future())
        self._queue.append(asked)
        self.waiting_tokens += total
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        try:
            async with asyncio.timeout(max(0.0, deadline - self._clock())):
                return await asked.answer
        except TimeoutError:
            raise TooLate from None

    async def close(self) -> None:
        """Wait for what is under way. Nothing may be asked any more."""
        if self._worker is not None:
            await self._worker
        self._thread.shutdown()

    async def _work(self) -> None:
        """Encode batch after batch until nothing waits."""
        try:
            while batch := self._next_batch():
                await self._answer(batch)
        finally:
            self._worker = None

    def _next_batch(self) -> list[_Waiting]:
        """Requests that are still wanted, in their order, of at most ``batch_tokens`` but of one at least."""
        batch: list[_Waiting] = []
        total = 0
        while self._queue and (not batch or total + self._queue[0].total <= self._batch_tokens):
            asked = self._queue.popleft()
            self.waiting_tokens -= asked.total
            if not asked.answer.done() and self._clock() < asked.deadline:  # else nobody waits for it any more
                batch.append(asked)
                total += asked.total
        return batch

    async def _answer(self, batch: Sequence[_Waiting]) -> None:
        texts = [text for asked in batch for text in asked.texts]
        tokens = np.concatenate([asked.tokens for asked in batch])
        self._under_way = int(tokens.sum())
        began = self._clock()
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._thread, self._encode, texts, tokens)
        except Exception as error:
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(error)
            return
        finally:
            spent, encoded, self._under_way = self._clock() - began, self._under_way, 0
        if spent > 0:
            self._speed += _MEMORY * (encoded / spent - self._speed)
        self._told(len(texts), encoded)
        start = 0
        for asked in batch:
            if not asked.answer.done():
                asked.answer.set_result(found[start : start + len(asked.texts)])
            start += len(asked.texts)
