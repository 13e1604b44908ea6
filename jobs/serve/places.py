"""Calls that block, in threads: so many at once, and one that is late keeps its place until it has ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from jobs.serve.batcher import TooLate

T = TypeVar("T")


class Places:
    """As many as ``count`` calls at once, of one event loop."""

    def __init__(self, count: int) -> None:
        self._free = asyncio.Semaphore(count)

    async def run(self, call: Callable[[], T], deadline: float) -> T:
        """What ``call`` returns, or raises, in a thread.

        ``deadline`` is of the monotonic clock. Raises TooLate where it passes; a call that has begun goes on.
        """
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await self._free.acquire()
                asked = asyncio.ensure_future(asyncio.to_thread(call))
                asked.add_done_callback(self._ended)
                return await asyncio.shield(asked)
        except TimeoutError:
            raise TooLate from None

    def _ended(self, asked: asyncio.Future[T]) -> None:
        self._free.release()
        if not asked.cancelled():
            asked.exception()  # of a late one nobody asks any more, and asyncio would log it, with what it quotes
