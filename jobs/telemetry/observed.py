"""What was encoded in this process's command, until it is sent over OTLP."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import NamedTuple

from jobs.telemetry.tracing import enabled


class Embedded(NamedTuple):
    """A shard that was encoded: seconds, tokens, and the attributes of both."""

    seconds: float
    tokens: int
    attributes: Mapping[str, str]


_seen: list[Embedded] = []
_mutex = threading.Lock()


def observe(one: Embedded) -> None:
    """Keep it, where somebody will take it."""
    if enabled("metrics"):
        with _mutex:
            _seen.append(one)


def take() -> list[Embedded]:
    """All that was kept since it was last taken."""
    with _mutex:
        seen, _seen[:] = [*_seen], []
    return seen
