"""Termination by a signal: one line is printed, and this process ends with its engines within seconds.

A signal is an exception in the main thread, so that a run is recorded as failed and its lease given up. Where that
thread is inside an engine's own code, or what it then does takes too long, a thread of our own ends the process and all
that it has started.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

import psutil

GRACE_SECONDS = 8.0  # from the signal to the end; Docker kills after ten
ASKS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_came: list[int] = []
_hurry = threading.Event()
_told = threading.Lock()


class Stopped(KeyboardInterrupt):
    """A signal asked this process to end. What heeds an interrupt heeds it as well."""


def heed(say: Callable[[int], None]) -> None:
    """From now on end on a signal. ``say`` is told the signal where the process is ended from outside the main thread.

    Call it in the main thread.
    """
    for number in ASKS:
        if signal.getsignal(number) != signal.SIG_IGN:  # as under nohup
            signal.signal(number, _raise)
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.set_wakeup_fd(writable, warn_on_full_buffer=False)  # written to whatever the main thread is busy with
    threading.Thread(target=_watch, args=(readable, say), name="ending", daemon=True).start()


def first_to_tell() -> bool:
    """Whether this call is the first to report the signal, in the main thread or the one that ends the process."""
    return _told.acquire(blocking=False)


def line(number: int) -> str:
    """What a person is told."""
    said = "interrupted" if number == signal.SIGINT else f"ended by {signal.Signals(number).name}"
    return f"{said}; run the same command again to go on"


def came() -> int:
    """The signal that asked this process to end; 0 where none did."""
    return _came[0] if _came else 0


def _raise(number: int, _: FrameType | None) -> None:
    first = not _came
    _came.append(number)
    if first:
        logging.disable()  # py4j logs, with tracebacks, the interrupt and what it makes of the calls after it
        raise Stopped


def _watch(readable: int, say: Callable[[int], None]) -> None:
    while (number := os.read(readable, 1)[0]) not in ASKS:
        continue
    if signal.getsignal(number) is not _raise:
        return
    deadline = time.monotonic() + GRACE_SECONDS
    threading.Thread(target=_second, args=(readable, deadline), name="ending-now", daemon=True).start()
    while time.monotonic() < deadline and not _hurry.wait(0.1):
        continue
    if first_to_tell():
        with suppress(Exception):
            say(number)
    end_now(128 + number)


def _second(readable: int, deadline: float) -> None:
    """Hurry on a second signal: its sender will not wait."""
    while time.monotonic() < deadline:
        if os.read(readable, 1)[0] in ASKS:
            _hurry.set()


def end_now(code: int) -> NoReturn:
    """End this process and all that it has started and that still runs, at once.

    Nothing is waited for: what is connected to an engine aborts or complains soon after that has gone.
    """
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(code)


@contextmanager
def kept(number: int) -> Iterator[None]:
    """Keep what is done on a signal whatever the block sets, in any thread.

    Ray takes SIGTERM for a fault of its own (absl's failure handler): it writes its stack, and aborts in three seconds.
    """
    libc, before = ctypes.CDLL(None), ctypes.create_string_buffer(512)  # of a struct sigaction, 152 bytes with glibc
    known = libc.sigaction(number, None, before) == 0
    try:
        yield
    finally:
        if known:
            libc.sigaction(number, before, None)
