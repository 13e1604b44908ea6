"""One endpoint of a space: requests within its limits, checked answers, its cost, and its circuit breaker.

An answer that is short, long, misordered, of another width or not finite is never used: it counts as none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from embedding.encoders.remote.circuit_breaker import CircuitBreaker
from embedding.encoders.remote.concurrency_limit import AdaptiveLimit
from embedding.encoders.remote.cost import EndpointCost, Meter, Request
from embedding.encoders.remote.service import Answer, Service, TryAgain
from embedding.encoders.spec import RemoteSettings
from embedding.errors import ConfigError

MOST_REQUESTS = 10_000  # that are kept until somebody takes them


class Endpoint:
    """``number`` is its place in the order of preference, from 0. ``proven``: its vectors are known to be the space's.

    ``name`` is what logs and reports call it: number, backend and model, never its address.
    """

    def __init__(self, number: int, service: Service, settings: RemoteSettings) -> None:
        self.number, self.service, self.settings = number, service, settings
        self.name = f"{number} {service.name}"
        self.limit = AdaptiveLimit(settings.concurrency)
        self.breaker = CircuitBreaker(settings.open_after, settings.open_seconds)
        self.proven = False
        self.proving = threading.Lock()
        self.unproven = 0  # how often it did not answer the probes
        self._cost = EndpointCost(self.name)
        self._opened = 0  # what the breaker had counted when the cost was last taken
        self._requests: list[Request] = []
        self._counting = threading.Lock()

    def ask(
        self,
        texts: Sequence[str],
        tokens: npt.NDArray[np.integer],
        meter: Meter | None = None,
        *,
        until: float | None = None,
    ) -> npt.NDArray[np.float32]:
        """Vectors of some texts, float32 of shape (len(texts), dim), in as many requests as its limits ask for.

        ``tokens`` are the texts' lengths. What is answered is counted, and with a ``meter`` as long as that is open.
        Nothing is sent after ``until``, of the monotonic clock.
        Raises TryAgain, RefusedInput or ConfigError.
        """
        found = [
            self._request(texts[start:stop], int(tokens[start:stop].sum()), meter, until)
            for start, stop in self.requests(tokens)
        ]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def requests(self, tokens: npt.NDArray[np.integer]) -> Iterator[tuple[int, int]]:
        """Rows (start, stop) of each request, within the limits on texts and tokens; a longer text goes alone."""
        most = min(self.settings.request_texts, self.service.texts_at_once)
        start = total = 0
        for row, length in enumerate(tokens.tolist()):
            if row > start and (row - start == most or total + length > self.settings.request_tokens):
                yield start, row
                start, total = row, 0
            total += length
        if len(tokens):
            yield start, len(tokens)

    def _request(
        self, texts: Sequence[str], known: int, meter: Meter | None, until: float | None
    ) -> npt.NDArray[np.float32]:
        try:
            with self.limit.slot(until) as era:
                began, fault = time.time_ns(), ""
                try:
                    answer = self.service.ask(texts)
                except Exception as error:
                    fault = type(error).__name__
                    if isinstance(error, TryAgain) and error.throttled:
                        self.limit.pushed_back(era)
                    raise
                finally:
                    self._note(Request(began, time.time_ns(), len(texts), fault, self.name))
                self.limit.succeeded()
            vectors = self._checked(answer, len(texts))
        except (TryAgain, ConfigError):
            self._count(EndpointCost(self.name, failures=1))
            raise
        if meter is None or meter.takes(known):
            self._count(self._priced(known if answer.tokens is None else answer.tokens, requests=1))
        return vectors

    def _checked(self, answer: Answer, count: int) -> npt.NDArray[np.float32]:
        dim = self.settings.dim
        try:
            vectors = np.asarray(answer.vectors, dtype=np.float32)
        except (TypeError, ValueError):
            raise TryAgain("an answer that is not a matrix") from None
        if vectors.shape != (count, dim):
            raise TryAgain(f"an answer of shape {vectors.shape} for {count} texts of {dim} dimensions")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(vectors).all() or not lengths.all():
            raise TryAgain("an answer with a vector that is not finite, or zero")
        return vectors / lengths if self.settings.normalise else vectors

    def succeeded(self, ticket: int) -> None:
        """It answered what the ticket let through. One that was away is sent more and more, from one request on."""
        if self.breaker.succeeded(ticket):
            self.limit.restart()

    def count_left(self, meter: Meter) -> None:
        """Nobody waits for the rest of an answer any more: count what it may cost."""
        if left := meter.close():
            self._count(self._priced(left, requests=1))

    def count_hedged(self) -> None:
        """It was sent what another is still asked for."""
        self._count(EndpointCost(self.name, hedged=1))

    def _priced(self, tokens: int, requests: int) -> EndpointCost:
        usd = tokens * self.settings.usd_per_million_tokens / 1e6
        return EndpointCost(self.name, requests=requests, tokens=tokens, usd=usd)

    def _count(self, more: EndpointCost) -> None:
        with self._counting:
            self._cost += more

    def _note(self, request: Request) -> None:
        with self._counting:
            if len(self._requests) < MOST_REQUESTS:
                self._requests.append(request)

    def take_cost(self) -> EndpointCost:
        """What was spent since it was last taken."""
        with self._counting:
            spent, self._cost = self._cost, EndpointCost(self.name)
            opened, self._opened = self.breaker.opened - self._opened, self.breaker.opened
            return replace(spent, opened=opened)

    def take_requests(self) -> list[Request]:
        """What was asked since it was last taken; of very many the first."""
        with self._counting:
            made, self._requests = self._requests, []
        return made
