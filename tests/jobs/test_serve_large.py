"""A request of many texts is encoded in pieces between those of others, and no longer than its time lasts."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from jobs.serve.batcher import Batcher, Counts, Limits, Overloaded, Speed, TooLate, Vectors


class Slow:
    """Encodes a thousand tokens a second. The calls are kept, as tokens of each."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, texts: Sequence[str], tokens: Counts) -> Vectors:
        self.calls.append(int(tokens.sum()))
        time.sleep(float(tokens.sum()) / 1_000)
        return np.arange(len(texts), dtype=np.float32)[:, None]


def make_batcher(encode: Callable[[Sequence[str], Counts], Vectors], *, most_tokens: int, at_once: int = 1) -> Batcher:
    """Of batches of 100 tokens; what it was told of the encoder's speed is twenty times too much."""
    return Batcher(encode, Limits(100, most_tokens, 10.0, at_once), Speed(20_000, 1.0))


async def ask(batcher: Batcher, texts: int, each: int, seconds: float) -> Vectors:
    return await batcher.vectors(["a"] * texts, np.full(texts, each), time.monotonic() + seconds)


def test_a_request_that_cannot_be_encoded_in_its_time_is_not_gone_on_with() -> None:
    """Five seconds of work in half a one: it ends after its first pieces, and the next request is answered."""

    async def run() -> None:
        encoder = Slow()
        batcher = make_batcher(encoder, most_tokens=1_000)
        began = time.monotonic()
        with pytest.raises(TooLate):
            await ask(batcher, 500, 10, 0.5)
        assert time.monotonic() - began < 0.4, "it is told as soon as it is known"
        assert sum(encoder.calls) < 500
        assert len(await ask(batcher, 1, 20, 5)) == 1
        assert await batcher.close(10) and batcher.waiting_tokens == 0

    asyncio.run(run())


def test_a_small_request_waits_for_a_piece_of_a_large_one_and_not_for_all() -> None:
    async def run() -> None:
        encoder = Slow()
        batcher = make_batcher(encoder, most_tokens=10_000)
        large = asyncio.create_task(ask(batcher, 100, 10, 20))  # a second
        await asyncio.sleep(0.1)
        assert batcher.waiting_tokens > 500, "what it has still to do is told"
        for _ in range(3):
            began = time.monotonic()
            await ask(batcher, 1, 10, 5)
            assert time.monotonic() - began < 0.3
        assert not large.done()
        await large
        assert max(encoder.calls) <= 100
        assert await batcher.close(10) and batcher.waiting_tokens == 0

    asyncio.run(run())


def test_large_requests_share_what_may_wait() -> None:
    async def run() -> None:
        batcher = make_batcher(Slow(), most_tokens=400)
        first = asyncio.create_task(ask(batcher, 50, 10, 20))  # more than may wait, and nothing else does
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded):
            await ask(batcher, 30, 10, 20)
        assert len(await ask(batcher, 1, 10, 20)) == 1, "a small one has a place"
        assert len(await first) == 50
        assert await batcher.close(10)

    asyncio.run(run())


def test_a_request_that_comes_too_late_is_told_so_and_not_to_come_again() -> None:
    async def run() -> None:
        batcher = make_batcher(Slow(), most_tokens=400)
        with pytest.raises(TooLate):
            await ask(batcher, 1, 10, -0.1)
        assert await batcher.close(10)

    asyncio.run(run())


def test_batches_that_may_run_side_by_side_do_not_wait_for_one_that_stalls() -> None:
    """As with a model behind a service, one of whose answers does not come."""

    async def run() -> None:
        stalled, end = threading.Event(), threading.Event()

        def encode(texts: Sequence[str], tokens: Counts) -> Vectors:
            if not stalled.is_set():
                stalled.set()
                end.wait(10)
            return np.zeros((len(texts), 1), np.float32)

        batcher = make_batcher(encode, most_tokens=400, at_once=2)
        with pytest.raises(TooLate):
            await ask(batcher, 1, 90, 0.2)
        for _ in range(3):
            assert batcher.wait_seconds() == 0.0
            assert len(await ask(batcher, 1, 90, 5)) == 1
        assert not await batcher.close(0.1), "it is left behind"
        end.set()
        assert await batcher.close(10)

    asyncio.run(run())
