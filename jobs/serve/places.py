"""Calls that block, in threads of their own: so many at once, and one that is late keeps its place until it has ended.

Each kind of call has its own places: what waits for the index holds up nothing that waits for the processor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from jobs.serve.batcher import TooLate

T = TypeVar("T")


class Places:
    """As many as ``count`` calls at once, of one event loop. Threads have the ``name``."""

    def __init__(self, count: int, name: str) -> None:
        self._free = asyncio.Semaphore(count)
        self._threads = ThreadPoolExecutor(count, name)  # as many as there are places: what has one begins at once
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, call: Callable[[], T], deadline: float | None = None) -> T:
        """What ``call`` returns, or raises, in a thread.

        ``deadline`` is of the monotonic clock, None for none. Raises TooLate where it passes: a call that has begun
        goes on, any other is not begun.
        """
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TooLate
        try:
            async with asyncio.timeout(left):
                await self._free.acquire()
                asked = asyncio.get_running_loop().run_in_executor(self._threads, call)
                self._running.add(asked)
                asked.add_done_callback(self._ended)
                return await asyncio.shield(asked)
        except TimeoutError:
            raise TooLate from None

    async def close(self, seconds: float) -> bool:
        """Begin nothing more, and wait so long for what has begun. Returns whether all of it has ended."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)
        return not self._running

    def _ended(self, asked: asyncio.Future[Any]) -> None:
        self._running.discard(asked)
        self._free.release()
        if not asked.cancelled():
            asked.exception()  # of a late one nobody asks any more, and asyncio would log it, with what it quotes
