"""What services were asked for and answered, in all and by endpoint."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class EndpointCost:
    """The same of one endpoint.

    ``failures`` are requests without a valid answer, ``hedged`` those that were sent to it while another was still
    asked, ``opened`` says how often it was left out for its failures.
    """

    name: str
    requests: int = 0
    failures: int = 0
    tokens: int = 0
    usd: float = 0.0
    hedged: int = 0
    opened: int = 0

    def __add__(self, other: EndpointCost) -> EndpointCost:
        counts = [one.name for one in fields(self) if one.name != "name"]
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in counts})


@dataclass(frozen=True, slots=True)
class Cost:
    """What was asked of a service and answered, and the requests that had to be sent again. ``usd`` is an estimate.

    ``endpoints`` divides it, where there are several.
    """

    requests: int = 0
    retries: int = 0
    texts: int = 0
    tokens: int = 0
    usd: float = 0.0
    endpoints: tuple[EndpointCost, ...] = ()

    def __add__(self, other: Cost) -> Cost:
        counts = ("requests", "retries", "texts", "tokens", "usd")
        by_name = {one.name: one for one in self.endpoints}
        for one in other.endpoints:
            by_name[one.name] = by_name[one.name] + one if one.name in by_name else one
        added = {name: getattr(self, name) + getattr(other, name) for name in counts}
        return replace(self, **added, endpoints=tuple(by_name[name] for name in sorted(by_name)))

    @classmethod
    def of_json(cls, told: Mapping[str, Any]) -> Cost:
        """From what ``dataclasses.asdict`` made of one."""
        endpoints = tuple(EndpointCost(**one) for one in told.get("endpoints", ()))
        return cls(**{**told, "endpoints": endpoints})


class Request(NamedTuple):
    """One request: when it was sent and answered (ns since 1970), its texts, the class of the fault, its endpoint."""

    began: int
    ended: int
    texts: int
    fault: str
    endpoint: str


class Meter:
    """Counts what one question costs at an endpoint, also while nobody waits for the answer any more."""

    def __init__(self, tokens: int) -> None:
        self._left = tokens
        self._lock = threading.Lock()
        self.closed = False

    def takes(self, known: int) -> bool:
        """Whether a piece of ``known`` tokens, by our count, is still to be counted as it is answered."""
        with self._lock:
            self._left -= 0 if self.closed else known
            return not self.closed

    def close(self) -> int:
        """Leave what is not answered yet: the tokens, by our count, which the service may bill all the same."""
        with self._lock:
            left = 0 if self.closed else self._left
            self.closed = True
            return left
