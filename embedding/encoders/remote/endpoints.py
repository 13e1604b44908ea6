"""Several endpoints of one space as one: the first that can answers, and what fails at one is asked of the next.

A text that an endpoint refuses is the text's fault: no other is asked for it. A failure is held against an endpoint
once the texts are known to be none of its causes: another answered them, or it failed on a plain one.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from embedding.encoders.remote import same_space
from embedding.encoders.remote.cost import Meter
from embedding.encoders.remote.endpoint import Endpoint
from embedding.encoders.remote.hedging import Hedging
from embedding.encoders.remote.service import RefusedInput, TryAgain
from embedding.errors import ConfigError, SpaceMismatchError

log = logging.getLogger(__name__)
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Asked:
    """A question under way at an endpoint."""

    endpoint: Endpoint
    ticket: int
    meter: Meter
    began: float


class Endpoints:
    """``all`` are the endpoints in the order of preference; ``expected`` are the space's vectors of the probes.

    A single endpoint is the only source of its space: it is neither proven nor left out.
    """

    def __init__(self, endpoints: Sequence[Endpoint], expected: bytes, hedge: float) -> None:
        self.all = tuple(endpoints)
        self._expected = expected
        self._hedging = Hedging(hedge) if hedge and len(self.all) > 1 else None
        if len(self.all) == 1:
            self.all[0].proven = True

    def close(self) -> None:
        """Close the connections that are kept for the next request."""
        for endpoint in self.all:
            endpoint.service.close()

    def prove(self) -> None:
        """Prove each endpoint that answers now. Raises SpaceMismatchError, and ConfigError of one that is denied."""
        for endpoint in self.all:
            try:
                self._prove(endpoint)
            except TryAgain as error:
                log.warning("endpoint %s does not answer (%s); it is proven before it is used", endpoint.name, error)

    def ask(
        self,
        texts: Sequence[str],
        tokens: npt.NDArray[np.integer],
        *,
        plain: bool = False,
        until: float | None = None,
    ) -> Vectors:
        """Vectors of some texts from the first endpoint that can give them, float32 of shape (len(texts), dim).

        Texts that are ``plain`` can be the cause of no failure. Nothing is sent after ``until``. Raises RefusedInput,
        TryAgain where no endpoint answers, ConfigError where all deny access, and SpaceMismatchError.
        """
        held: list[tuple[Endpoint, int, TryAgain | ConfigError]] = []  # failures that the texts may be to blame for
        faults: list[TryAgain | ConfigError] = []
        for endpoint, ticket in self._admitted():
            try:
                vectors = self._answer(endpoint, ticket, texts, tokens, until)
            except (TryAgain, ConfigError) as error:
                faults.append(error)
                if plain or not endpoint.proven or not endpoint.breaker.closed:
                    self._blame(endpoint, ticket, error)
                else:
                    held.append((endpoint, ticket, error))
                continue
            except RefusedInput:
                endpoint.succeeded(ticket)
                raise
            except BaseException:
                endpoint.breaker.abandoned(ticket)
                raise
            for failure in held:
                self._blame(*failure)
            return vectors
        if not faults:
            wait = min(endpoint.breaker.remaining() for endpoint in self.all)
            raise TryAgain("every endpoint is left out for its failures", after=wait, full=True)
        raise next((one for one in faults if isinstance(one, TryAgain)), faults[0])

    def _admitted(self) -> Iterator[tuple[Endpoint, int]]:
        """Endpoints that may be asked, with the ticket for it; those that are busy while they come back, last."""
        if len(self.all) == 1:
            yield self.all[0], 0
            return
        busy = [one for one in self.all if one.breaker.closed and one.limit.ramping and not one.limit.free]
        for endpoint in [*(one for one in self.all if one not in busy), *busy]:
            ticket = endpoint.breaker.admit()
            if ticket is not None:
                yield endpoint, ticket

    def _blame(self, endpoint: Endpoint, ticket: int, fault: Exception) -> None:
        """Hold a failure against an endpoint; what was too much at once is the limit's affair."""
        if len(self.all) == 1 or not isinstance(fault, TryAgain | ConfigError):
            return
        if isinstance(fault, TryAgain) and fault.full:
            endpoint.breaker.abandoned(ticket)
            return
        before = endpoint.breaker.opened
        endpoint.breaker.failed(ticket)
        if endpoint.breaker.opened > before:
            log.warning("endpoint %s is left out for its failures (%s)", endpoint.name, fault)

    def _prove(self, endpoint: Endpoint) -> None:
        if not endpoint.proven:
            same_space.prove(endpoint, self._expected)

    def _answer(
        self,
        endpoint: Endpoint,
        ticket: int,
        texts: Sequence[str],
        tokens: npt.NDArray[np.integer],
        until: float | None,
    ) -> Vectors:
        """One endpoint's answer; with hedging that of the next one, where that is there first."""
        self._prove(endpoint)
        hedging = self._hedging
        if hedging is None:
            vectors = endpoint.ask(texts, tokens, until=until)
            endpoint.succeeded(ticket)
            return vectors
        hedging.began()
        answers: queue.SimpleQueue[tuple[_Asked, Vectors | Exception]] = queue.SimpleQueue()
        first = self._ask_beside(endpoint, ticket, texts, tokens, answers, until)
        under_way = [first]
        try:
            asked, found = answers.get(timeout=hedging.patience(endpoint.number))
        except queue.Empty:
            if (second := self._second(endpoint)) is not None:
                second[0].count_hedged()
                under_way.append(self._ask_beside(*second, texts, tokens, answers, until))
            asked, found = answers.get()
        lost = None
        if isinstance(found, Exception) and not isinstance(found, SpaceMismatchError) and len(under_way) > 1:
            lost = (asked.endpoint, asked.ticket, found)
            under_way.remove(asked)
            asked, found = answers.get()
        for other in under_way:
            if other is not asked:
                other.endpoint.count_left(other.meter)
        if isinstance(found, Exception):
            raise found
        if lost is not None:
            self._blame(*lost)
        return found

    def _second(self, first: Endpoint) -> tuple[Endpoint, int] | None:
        """The next endpoint, where it is well, has room, and the share of hedged requests is not used up."""
        assert self._hedging is not None
        for endpoint in self.all:
            if endpoint is not first and endpoint.breaker.closed and endpoint.limit.free:
                ticket = endpoint.breaker.admit() if self._hedging.take() else None
                return None if ticket is None else (endpoint, ticket)
        return None

    def _ask_beside(
        self,
        endpoint: Endpoint,
        ticket: int,
        texts: Sequence[str],
        tokens: npt.NDArray[np.integer],
        answers: queue.SimpleQueue[tuple[_Asked, Vectors | Exception]],
        until: float | None,
    ) -> _Asked:
        """Ask in a thread that may be left behind: it tells the breaker and counts, whoever still waits."""
        asked = _Asked(endpoint, ticket, Meter(int(tokens.sum())), time.monotonic())

        def ask() -> None:
            try:
                self._prove(endpoint)
                vectors = endpoint.ask(texts, tokens, asked.meter, until=until)
            except Exception as error:
                if asked.meter.closed:  # another answered the same
                    self._blame(endpoint, ticket, error)
                answers.put((asked, error))
                return
            endpoint.succeeded(ticket)
            if self._hedging is not None:
                self._hedging.answered(endpoint.number, time.monotonic() - asked.began)
            answers.put((asked, vectors))

        threading.Thread(target=ask, daemon=True).start()
        return asked
