"""The contract of a service that encodes, in one screen: a request, an answer, and what its errors mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class TryAgain(Exception):
    """The service could not answer now. ``after`` is what it asks to be waited (seconds), None where it says nothing.

    ``throttled`` says that it was asked too much, or too much at once; ``full`` that it said so itself, which no text
    can be the cause of.
    """

    def __init__(self, cause: str, *, after: float | None = None, throttled: bool = False, full: bool = False) -> None:
        super().__init__(cause)
        self.after = after
        self.throttled = throttled or full
        self.full = full


class RefusedInput(Exception):
    """The service will not encode one or more of the texts, whenever it is asked. Its message may quote them."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Vectors in the order of the texts, and the tokens that the service bills, None where it does not say."""

    vectors: Sequence[Sequence[float]]
    tokens: int | None = None


class Service(Protocol):
    """One service's way to say it: a request, an answer, and what its errors mean.

    ``texts_at_once`` is the most texts that its shape of a request has room for.
    """

    name: str
    texts_at_once: int

    def ask(self, texts: Sequence[str]) -> Answer:
        """Send one request.

        Raises TryAgain, RefusedInput, or ConfigError where access is denied or there is no such model.
        """
        ...

    def close(self) -> None:
        """Close the connections that are kept for the next request."""
        ...
