"""Queries are encoded together, each gets its own vector, and what cannot be answered in time is told so."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.serve.batcher import Batcher, Limits, Overloaded, Speed, TooLate

Counts = npt.NDArray[np.integer]
SECONDS = 60.0  # the longest time of a request


def lengths(texts: Sequence[str]) -> Counts:
    return np.array([len(text) for text in texts])


class Encoder:
    """A vector of a text is its number; each call is kept. ``gate`` holds a call up until it is set."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, texts: Sequence[str], tokens: Counts) -> npt.NDArray[np.float32]:
        assert len(texts) == len(tokens)
        self.calls.append(list(texts))
        assert self.gate.wait(10)
        if "bad" in texts:
            raise RuntimeError("it fails")
        return np.array([[float(text.strip("x"))] for text in texts], np.float32)


def batcher(encoder: Encoder, *, batch_tokens: int = 100, most_tokens: int = 1_000) -> Batcher:
    """Of an encoder that was measured at 20,000 tokens a second."""
    return Batcher(encoder, Limits(batch_tokens, most_tokens, SECONDS), Speed(20_000, 1.0))


async def ask(batches: Batcher, *texts: str, seconds: float = 30.0) -> list[float]:
    found = await batches.vectors(texts, lengths(texts), time.monotonic() + seconds)
    return [float(row[0]) for row in found]


@given(
    requests=st.lists(st.lists(st.integers(0, 99_999), min_size=1, max_size=5), min_size=1, max_size=20),
    budget=st.integers(1, 40),
)
def test_each_request_gets_the_vectors_of_its_own_texts_in_order(requests: list[list[int]], budget: int) -> None:
    async def run() -> None:
        encoder = Encoder()
        batches = batcher(encoder, batch_tokens=budget, most_tokens=10_000)
        found = await asyncio.gather(*(ask(batches, *map(str, request)) for request in requests))
        assert found == [[float(number) for number in request] for request in requests]
        assert await batches.close(10)
        encoded = sorted(text for call in encoder.calls for text in call)
        assert encoded == sorted(str(n) for request in requests for n in request)
        assert all(sum(map(len, call)) <= budget or len(call) == 1 for call in encoder.calls)
        assert batches.waiting_tokens == 0

    asyncio.run(run())


def test_what_waits_is_encoded_at_once_and_not_one_by_one() -> None:
    async def run() -> None:
        encoder = Encoder()
        encoder.gate.clear()
        batches = batcher(encoder)
        asked = [asyncio.create_task(ask(batches, str(number))) for number in range(10)]
        await asyncio.sleep(0.05)
        encoder.gate.set()
        await asyncio.gather(*asked)
        assert await batches.close(10)
        assert len(encoder.calls) <= 2 and sum(map(len, encoder.calls)) == 10

    asyncio.run(run())


def test_a_request_without_a_place_is_told_when_to_come_again() -> None:
    async def run() -> None:
        encoder = Encoder()
        encoder.gate.clear()
        batches = batcher(encoder, batch_tokens=5, most_tokens=10)
        first = asyncio.create_task(ask(batches, "11111"))
        await asyncio.sleep(0.05)  # it is being encoded
        waiting = [asyncio.create_task(ask(batches, text)) for text in ("22222", "33333")]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as refused:
            await ask(batches, "4")
        assert refused.value.after >= 1
        encoder.gate.set()
        assert await asyncio.gather(first, *waiting) == [[11111.0], [22222.0], [33333.0]]
        assert await ask(batches, "4") == [4.0], "there is a place again"
        assert await batches.close(10)

    asyncio.run(run())


def test_a_request_that_would_wait_for_half_of_its_time_is_refused_at_once() -> None:
    """In a rush all is slower than what was measured before: what is expected to come late comes too late."""

    async def run() -> None:
        encoder = Encoder()
        encoder.gate.clear()
        batches = batcher(encoder, batch_tokens=5, most_tokens=10**6)
        first = asyncio.create_task(
            ask(batches, "1" * 20_000, seconds=60)
        )  # a second, by the speed that it was measured at
        await asyncio.sleep(0.05)
        assert 0.9 < batches.wait_seconds() < 1.1
        with pytest.raises(Overloaded):
            await ask(batches, "2", seconds=1.5)
        second = asyncio.create_task(ask(batches, "3", seconds=60))
        encoder.gate.set()
        assert await second == [3.0]
        await first
        assert await batches.close(10)

    asyncio.run(run())


def test_a_request_whose_time_is_over_is_not_encoded() -> None:
    async def run() -> None:
        encoder = Encoder()
        encoder.gate.clear()
        batches = batcher(encoder, batch_tokens=1)
        first = asyncio.create_task(ask(batches, "1"))
        await asyncio.sleep(0.05)
        with pytest.raises(TooLate):
            await ask(batches, "2", seconds=0.1)
        encoder.gate.set()
        assert await first == [1.0] and await ask(batches, "3") == [3.0]
        assert await batches.close(10)
        assert encoder.calls == [["1"], ["3"]]

    asyncio.run(run())


def test_an_encoder_that_fails_is_an_error_of_each_that_waits_for_it_and_of_no_other() -> None:
    async def run() -> None:
        encoder = Encoder()
        batches = batcher(encoder)
        found = await asyncio.gather(ask(batches, "bad"), ask(batches, "1"), return_exceptions=True)
        assert all(isinstance(one, RuntimeError) for one in found), "they were encoded together"
        assert await ask(batches, "2") == [2.0]
        assert await batches.close(10)

    asyncio.run(run())
