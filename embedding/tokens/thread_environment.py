"""How many threads a native library starts, where only the environment can tell it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def environment(variable: str, threads: int) -> Iterator[None]:
    """Set a variable while a library starts its threads, and put it back: child processes would inherit it."""
    before = os.environ.get(variable)
    os.environ[variable] = str(threads)
    try:
        yield
    finally:
        del os.environ[variable]
        if before is not None:
            os.environ[variable] = before
