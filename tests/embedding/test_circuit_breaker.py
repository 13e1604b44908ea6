"""The circuit breaker of an endpoint against a model of it, with outcomes that come late and in any order."""

from __future__ import annotations

import threading

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from embedding.encoders.remote.circuit_breaker import CircuitBreaker
from embedding.encoders.remote.concurrency_limit import AdaptiveLimit

AFTER, SECONDS = 3, 10.0


class Breaker(RuleBasedStateMachine):
    """The model: one of three states, the outcomes since it closed, and which requests are of this period."""

    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.breaker = CircuitBreaker(AFTER, SECONDS, lambda: self.now)
        self.state = "closed"
        self.outcomes: list[bool] = []
        self.until = 0.0
        self.valid: set[int] = set()
        self.trials = 0

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=tickets)
    def a_request_comes(self) -> int | None:
        ticket = self.breaker.admit()
        if self.state == "closed":
            assert ticket is not None
        elif self.state == "half-open":
            assert ticket is None, "one request tries it"
        elif self.now < self.until:
            assert ticket is None, "it is left out"
        else:
            assert ticket is not None
            self.state, self.valid = "half-open", set()
        if ticket is not None:
            self.valid.add(ticket)
        return ticket

    @rule(ticket=tickets)
    def it_is_answered(self, ticket: int | None) -> None:
        if ticket is None:
            return
        back = self.breaker.succeeded(ticket)
        assert back == (ticket in self.valid and self.state == "half-open")
        if ticket not in self.valid:
            return
        if back:
            self.state, self.valid, self.outcomes = "closed", set(), []
        self.outcomes.append(True)

    @rule(ticket=tickets)
    def it_fails(self, ticket: int | None) -> None:
        if ticket is None:
            return
        self.breaker.failed(ticket)
        if ticket not in self.valid:
            return
        self.outcomes.append(False)
        recent = self.outcomes[-20:]
        row = len(self.outcomes) >= AFTER and not any(self.outcomes[-AFTER:])
        if self.state == "half-open" or row or (len(recent) == 20 and recent.count(False) >= 10):
            self.state, self.valid, self.outcomes = "open", set(), []
            self.until = self.now + SECONDS

    @rule(ticket=tickets)
    def nothing_is_known_of_it(self, ticket: int | None) -> None:
        if ticket is None:
            return
        self.breaker.abandoned(ticket)
        if ticket in self.valid and self.state == "half-open":
            self.state, self.valid = "open", set()

    @invariant()
    def it_is_closed_where_the_model_is(self) -> None:
        assert self.breaker.closed == (self.state == "closed")
        assert self.breaker.remaining() == (max(0.0, self.until - self.now) if self.state != "closed" else 0.0)


TestBreaker = Breaker.TestCase


def test_half_of_the_last_twenty_opens_it_though_never_three_in_a_row() -> None:
    breaker = CircuitBreaker(AFTER, SECONDS)
    for number in range(20):
        assert breaker.closed
        ticket = breaker.admit()
        assert ticket is not None
        if number % 2:
            breaker.failed(ticket)
        else:
            breaker.succeeded(ticket)
    assert not breaker.closed and breaker.opened == 1


def test_of_many_threads_one_tries_it() -> None:
    breaker = CircuitBreaker(1, 0.0)
    ticket = breaker.admit()
    assert ticket is not None
    breaker.failed(ticket)
    begin = threading.Barrier(16)
    admitted: list[int] = []

    def come() -> None:
        begin.wait()
        if (found := breaker.admit()) is not None:
            admitted.append(found)

    threads = [threading.Thread(target=come) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(admitted) == 1


def test_an_endpoint_that_is_back_is_sent_one_request_then_more() -> None:
    limit = AdaptiveLimit(4, first=4)
    limit.restart()
    heights = [limit.limit]
    while limit.ramping:
        with limit.slot():
            limit.succeeded()
        heights.append(limit.limit)
    assert heights[0] == 1 and heights[-1] == 4 and heights == sorted(heights) and len(heights) > 6
