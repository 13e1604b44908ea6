"""Calls that block have a place each, which a late one keeps; what becomes of a late one is told nobody."""

from __future__ import annotations

import asyncio
import gc
import threading
import time

import pytest

from jobs.serve.batcher import TooLate
from jobs.serve.places import Places


def test_a_late_call_keeps_its_place_until_it_has_ended() -> None:
    async def run() -> None:
        places, end = Places(1, "calls"), threading.Event()
        with pytest.raises(TooLate):
            await places.run(lambda: end.wait(10), time.monotonic() + 0.1)
        begun: list[int] = []
        with pytest.raises(TooLate):
            await places.run(lambda: begun.append(1), time.monotonic() + 0.2)
        assert begun == [], "the index still answers the first"
        end.set()
        assert await places.run(lambda: 7, time.monotonic() + 10) == 7
        await asyncio.sleep(0)

    asyncio.run(run())


def test_what_a_late_call_raises_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        places, end = Places(1, "calls"), threading.Event()

        def fail() -> None:
            end.wait(10)
            raise RuntimeError("zanzibar")

        with pytest.raises(TooLate):
            await places.run(fail, time.monotonic() + 0.1)
        end.set()
        await places.run(lambda: None, time.monotonic() + 10)
        gc.collect()

    asyncio.run(run())
    gc.collect()
    assert "zanzibar" not in caplog.text and not caplog.records


def test_what_a_call_raises_in_time_is_raised_and_gives_its_place_back() -> None:
    async def run() -> None:
        places = Places(1, "calls")
        with pytest.raises(ZeroDivisionError):
            await places.run(lambda: 1 // 0, time.monotonic() + 10)
        assert await places.run(lambda: 1, time.monotonic() + 10) == 1
        begun: list[int] = []
        with pytest.raises(TooLate):
            await places.run(lambda: begun.append(1), time.monotonic() - 1)
        assert begun == [] and await places.close(1)

    asyncio.run(run())


def test_as_many_calls_run_at_once_as_there_are_places() -> None:
    """However few cores there are, and whatever else waits: asyncio's own threads are cores + 4, for all of a process."""

    async def run() -> int:
        places, all_begun = Places(40, "calls"), threading.Barrier(41)
        asked = [asyncio.create_task(places.run(lambda: all_begun.wait(10), time.monotonic() + 20)) for _ in range(40)]
        await asyncio.to_thread(all_begun.wait, 10)
        return len(await asyncio.gather(*asked))

    assert asyncio.run(run()) == 40


def test_a_call_that_nobody_waits_for_any_more_is_not_begun() -> None:
    """All places are taken for longer than its time."""

    async def run() -> list[int]:
        places, end, begun = Places(40, "calls"), threading.Event(), list[int]()
        first = [asyncio.create_task(places.run(lambda: end.wait(10), time.monotonic() + 20)) for _ in range(40)]
        await asyncio.sleep(0)
        with pytest.raises(TooLate):
            await places.run(lambda: begun.append(1), time.monotonic() + 0.2)
        end.set()
        await asyncio.gather(*first)
        assert await places.close(10)
        return begun

    assert asyncio.run(run()) == []


def test_what_does_not_end_is_left_behind() -> None:
    async def run() -> None:
        places, end = Places(2, "calls"), threading.Event()
        with pytest.raises(TooLate):
            await places.run(lambda: end.wait(10), time.monotonic() + 0.1)
        began = time.monotonic()
        assert not await places.close(0.2)
        assert time.monotonic() - began < 5
        end.set()
        assert await places.close(10)

    asyncio.run(run())
