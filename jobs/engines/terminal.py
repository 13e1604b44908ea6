"""Keeps the engines' output off the terminal: it goes to a log file, ours does not."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO

MAX_LOG_BYTES = 1_000_000


@contextmanager
def own_terminal(log: Path) -> Iterator[None]:
    """Keep the terminal for our own lines; what engines write to descriptors 1 and 2 and to stdout goes to ``log``.

    A JVM writes to the first, a raylet or a panic in a Rust thread to the second, Ray its news of dead workers to the
    third, and no setting of theirs stops all of it. The log may quote a document, so it is private and lies with the
    state.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    kept, ours = {number: os.dup(number) for number in (1, 2)}, sys.stderr
    sink = _sink(log)
    for number in kept:
        os.dup2(sink, number)
    if _is_descriptor(2, ours):
        sys.stderr = os.fdopen(os.dup(kept[2]), "w", buffering=1, encoding=ours.encoding, errors=ours.errors)
    try:
        with os.fdopen(sink, "w", buffering=1, errors="backslashreplace") as chatter, redirect_stdout(chatter):
            yield
    finally:
        sys.stderr.flush()
        sys.stderr = ours
        for number, before in kept.items():
            os.dup2(before, number)
            os.close(before)


class OwnOutput:
    """Standard output for the thread that makes it, until ``end``; of other threads, or later, all is dropped.

    Ray's threads print the news of dead workers until the very end, after ``own_terminal``, and one JSON object is
    promised. Where ``out`` is descriptor 1, that is standard error from then on, for whatever writes there by itself.
    """

    def __init__(self, out: TextIO) -> None:
        out.flush()
        if _is_descriptor(1, out):
            out = os.fdopen(os.dup(1), "w", encoding=out.encoding, errors=out.errors)
            os.dup2(2, 1)
        self._out = out
        self._thread: int | None = threading.get_ident()

    def write(self, text: str) -> int:
        """Print, or drop."""
        return self._out.write(text) if threading.get_ident() == self._thread else len(text)

    def end(self) -> None:
        """Print nothing any more."""
        self._thread = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._out, name)


def _sink(log: Path) -> int:
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        grown = log.exists() and log.stat().st_size > MAX_LOG_BYTES
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if grown else 0), 0o600)
    except OSError:  # a full or read-only disk is reported by the work itself, if it needs the disk
        return os.open(os.devnull, os.O_WRONLY)


def _is_descriptor(number: int, stream: TextIO) -> bool:
    try:
        return stream.fileno() == number
    except (OSError, ValueError):
        return False
