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
        places, end = Places(1), threading.Event()
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
        places, end = Places(1), threading.Event()

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
        places = Places(1)
        with pytest.raises(ZeroDivisionError):
            await places.run(lambda: 1 // 0, time.monotonic() + 10)
        assert await places.run(lambda: 1, time.monotonic() + 10) == 1
        with pytest.raises(TooLate):
            await places.run(lambda: 2, time.monotonic() - 1)

    asyncio.run(run())
