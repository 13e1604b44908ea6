"""A slow encoder: what it is asked for at once is no more than it does in a part of a request's time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np
import pytest

from jobs.serve.batcher import Batcher, Counts, Limits, Overloaded, Speed, TooLate, Vectors

DEADLINE = 1.0
MEASURED = 20_000.0  # tokens a second, once


class Encoder:
    """Takes so many seconds for a call, and for each token of it. The calls are kept, as tokens of each."""

    def __init__(self, call: float, token: float) -> None:
        self.calls: list[int] = []
        self._call, self._token = call, token

    def __call__(self, texts: Sequence[str], tokens: Counts) -> Vectors:
        self.calls.append(int(tokens.sum()))
        time.sleep(self._call + self._token * float(tokens.sum()))
        return np.zeros((len(texts), 1), np.float32)


def make_batcher(encoder: Encoder, speed: float) -> Batcher:
    return Batcher(encoder, Limits(4_096, 65_536, DEADLINE), Speed(int(speed), 1.0))


async def status(batcher: Batcher, tokens: int) -> str:
    try:
        await batcher.vectors(["a"], np.array([tokens]), time.monotonic() + DEADLINE)
    except (Overloaded, TooLate) as error:
        return type(error).__name__
    return "answered"


async def rush(batcher: Batcher, requests: int) -> dict[str, int]:
    """How many of requests of 20 tokens each, which come within half a second, end in which way."""
    asked = []
    for _ in range(requests):
        asked.append(asyncio.create_task(status(batcher, 20)))
        await asyncio.sleep(0.5 / requests)
    ends = await asyncio.gather(*asked)
    return {end: ends.count(end) for end in sorted(set(ends))}


def test_in_a_rush_a_slow_encoder_answers_or_refuses_and_is_late_with_none() -> None:
    """At 1,000 tokens a second a batch of 4,096 would end after four times the deadline, and be of no use to anybody."""

    async def run() -> None:
        encoder = Encoder(0.0, 0.001)
        batcher = make_batcher(encoder, 1_000.0)
        ends = await rush(batcher, 250)
        assert set(ends) == {"answered", "Overloaded"}, ends
        assert ends["answered"] >= 25, "it does 25 in its first half second, and has some waiting"
        assert max(encoder.calls) <= 260, "a quarter of the deadline"
        assert await batcher.close(10)

    asyncio.run(run())


def test_an_encoder_that_became_slow_is_known_after_one_batch() -> None:
    async def run() -> None:
        batcher = make_batcher(Encoder(0.0, 0.001), MEASURED)
        asked = asyncio.create_task(status(batcher, 1_000))
        await asyncio.sleep(0.1)
        assert batcher.wait_seconds() == pytest.approx(1_000 / MEASURED), "as it was measured before"
        await asked
        asked = asyncio.create_task(status(batcher, 300))
        await asyncio.sleep(0.1)
        assert 0.15 < batcher.wait_seconds() < 0.35, "what it does now, and not twenty times that"
        await asked
        assert await batcher.close(10)

    asyncio.run(run())


def test_what_waits_for_an_encoder_that_became_slow_is_refused_and_not_late() -> None:
    """A place was given by the speed of before: a batch that takes three times as long tells that there is none."""

    async def run() -> None:
        encoder = Encoder(0.0, 0.001)
        batcher = make_batcher(encoder, 3_000.0)
        asked = [asyncio.create_task(status(batcher, 300)) for _ in range(12)]
        began = time.monotonic()
        ends = await asyncio.gather(*asked)
        assert set(ends) == {"answered", "Overloaded"}, ends
        assert ends.count("answered") >= 2
        assert time.monotonic() - began < 1.3 * DEADLINE
        assert sum(encoder.calls) <= 300 * ends.count("answered"), "nothing is encoded for nobody"
        assert await status(batcher, 300) == "answered"
        assert await batcher.close(10)

    asyncio.run(run())


def test_an_encoder_that_stood_still_once_is_tried_again() -> None:
    """By what a machine that was asleep has measured, nothing would ever be in time."""

    async def run() -> None:
        batcher = make_batcher(Encoder(0.005, 0.00005), 1.0)
        assert [await status(batcher, 20) for _ in range(3)] == ["answered"] * 3
        for _ in range(100):
            await status(batcher, 20)
        assert await rush(batcher, 100) == {"answered": 100}
        assert await batcher.close(10)

    asyncio.run(run())


def test_single_queries_do_not_make_a_rush_look_longer_than_it_is() -> None:
    """A call costs 20 ms with one text and with a hundred: alone they are 500 tokens a second, together thousands."""

    async def run() -> None:
        batcher = make_batcher(Encoder(0.02, 0.00005), 10_000.0)
        for _ in range(20):
            assert await status(batcher, 10) == "answered"
        assert await rush(batcher, 150) == {"answered": 150}
        assert await batcher.close(10)

    asyncio.run(run())


def test_a_batch_that_was_faster_than_what_was_measured_counts_at_once() -> None:
    speed = Speed(1_000, 1.0)
    speed.learn(20, 0.001)
    assert speed() > 1_000
    speed.learn(10_000, 1.0)
    assert 7_000 < speed() < 10_000, "what it did in the last second counts for most"


@pytest.mark.parametrize(("measured", "batch_tokens"), [(800.0, 4_096), (MEASURED, 128)])
def test_an_encoder_whose_batches_are_small_is_known_to_be_slower_too(measured: float, batch_tokens: int) -> None:
    """By its speed or by the configuration no batch reaches 256 tokens: those that there are have to tell."""

    async def run() -> None:
        speed = Speed(int(measured * 0.05), 0.05)
        batcher = Batcher(Encoder(0.0, 1 / 300), Limits(batch_tokens, 65_536, DEADLINE), speed)
        for _ in range(2):
            await status(batcher, min(200, batch_tokens))
        ends = await rush(batcher, 100)
        assert set(ends) == {"answered", "Overloaded"}, ends
        assert await batcher.close(10)

    asyncio.run(run())


def test_a_batch_is_no_larger_than_the_shortest_time_in_it_allows() -> None:
    """A request that gives itself 0.25 s is answered: it waits 0.1 s, and what came after it waits for the next."""

    async def run() -> None:
        batcher = make_batcher(Encoder(0.0, 0.001), 1_000.0)
        asked = [asyncio.create_task(status(batcher, 100))]
        await asyncio.sleep(0.01)
        short = asyncio.create_task(batcher.vectors(["a"], np.array([20]), time.monotonic() + 0.25))
        await asyncio.sleep(0)
        asked += [asyncio.create_task(status(batcher, 40)) for _ in range(7)]
        assert (await short).shape == (1, 1)
        assert await asyncio.gather(*asked) == ["answered"] * 8
        assert batcher.waiting_tokens == 0 and await batcher.close(10)

    asyncio.run(run())
