"""Encoders behind remote services: several requests at once, tried again, down to the text that is to blame.

A text that the service refuses or fails on by itself, while it answers a text of ours, gets a row of NaN, which the
caller takes for a text that cannot be encoded. A service that answers nothing is an error of the whole, never
of a text. ``until`` is when nobody waits for the vectors any more, of the monotonic clock; None: somebody always does.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
from tenacity import RetryCallState, Retrying, retry_if_exception_type

from embedding.encoders.remote.concurrency_limit import AdaptiveLimit
from embedding.encoders.remote.cost import Cost, Request
from embedding.encoders.remote.endpoints import Endpoints
from embedding.encoders.remote.service import RefusedInput, TryAgain
from embedding.encoders.spec import RemoteSettings
from embedding.errors import ConfigError, EmbedmillError, EncoderError

_LONGEST_WAIT = 60.0  # seconds; a service that asks for more is asked again sooner
_FIRST_WAIT = 0.5
_SUSPECT = 3  # attempts, after which it is asked whether the service fails or the texts do
_SUSPECT_WAIT = 1.0  # seconds at most between attempts at a text while the service answers others


class RemoteEncoder:
    """An Encoder over the endpoints of a space. A call asks them for so many ``seconds`` at most."""

    device = "remote"

    def __init__(self, endpoints: Endpoints, settings: RemoteSettings, seconds: float | None = None) -> None:
        self.name = endpoints.all[0].service.name
        self.dim = settings.dim
        self._endpoints = endpoints
        self._settings = settings
        self._seconds = seconds
        self._texts = 0
        self._counting = threading.Lock()

    @property
    def limit(self) -> AdaptiveLimit:
        """On requests to the first endpoint."""
        return self._endpoints.all[0].limit

    def close(self) -> None:
        """See Encoder.close: the connections that are kept for the next request."""
        self._endpoints.close()

    def prove(self) -> list[str]:
        """Prove that the endpoints that answer are of one space; returns the names of those that do not answer.

        Raises SpaceMismatchError, and ConfigError of one that is denied.
        """
        self._endpoints.prove()
        return [endpoint.name for endpoint in self._endpoints.all if not endpoint.proven]

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode. A text that the service refuses, or fails on whenever it is asked, has a row of NaN.

        Raises EncoderError where the service stays down, ConfigError where it denies access.
        """
        until = None if self._seconds is None else time.monotonic() + self._seconds
        out = np.full((len(texts), self.dim), np.nan, dtype=np.float32)
        requests = list(self._endpoints.all[0].requests(tokens))
        if len(requests) == 1:  # a query's
            self._fill(out, texts, tokens, *requests[0], until)
            return out
        most = max(endpoint.settings.concurrency for endpoint in self._endpoints.all)
        with ThreadPoolExecutor(max_workers=most) as pool:
            running = [pool.submit(self._fill, out, texts, tokens, *rows, until) for rows in requests]
            try:
                for future in running:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)  # nothing more is sent to a service that is down
                raise
        return out

    def _fill(
        self,
        out: npt.NDArray[np.float32],
        texts: Sequence[str],
        tokens: npt.NDArray[np.integer],
        start: int,
        stop: int,
        until: float | None,
    ) -> None:
        """Encode some rows; where the service fails on them and answers others, their halves, down to the text."""
        some = texts[start:stop], tokens[start:stop]
        try:
            vectors = self._ask(some, min(_SUSPECT, self._settings.attempts), until=until)
        except (RefusedInput, TryAgain, ConfigError) as error:
            found = self._asked_on(*some, error, until)
            if found is None and stop - start > 1:
                middle = (start + stop) // 2
                self._fill(out, texts, tokens, start, middle, until)
                self._fill(out, texts, tokens, middle, stop, until)
            if found is None:
                return
            vectors = found
        out[start:stop] = vectors
        with self._counting:
            self._texts += stop - start

    def _asked_on(
        self,
        texts: Sequence[str],
        tokens: npt.NDArray[np.integer],
        error: RefusedInput | TryAgain | ConfigError,
        until: float | None,
    ) -> npt.NDArray[np.float32] | None:
        """What becomes of a request that failed: vectors after all, or None where one of its texts is to blame.

        That is where the service answers others. Raises EncoderError or ConfigError where it does not.
        """
        again = isinstance(error, TryAgain)
        up = not _full(error) and self._answers(until)
        if up and (len(texts) > 1 or not again):
            return None
        if again and (left := self._settings.attempts - _SUSPECT) > 0:
            try:
                longest = _SUSPECT_WAIT if up else _LONGEST_WAIT
                return self._ask((texts, tokens), left, until=until, longest=longest, first=_SUSPECT)
            except RefusedInput:
                return None
            except TryAgain as last:
                error = last
        if up and not _full(error) and self._answers(until):
            return None
        raise self._of_all(error) from None

    def _of_all(self, error: Exception) -> EmbedmillError:
        """What a service's fault is where it is of no single text."""
        if isinstance(error, ConfigError):
            return error
        if isinstance(error, RefusedInput):
            return EncoderError(f"model.backend: {self.name} refuses every text ({error})")
        return EncoderError(
            f"model.backend: {self.name} did not answer in {self._settings.attempts} attempts ({error})"
        )

    def _answers(self, until: float | None) -> bool:
        """Whether the service answers a short text that nothing is wrong with; new each time, for it may cache."""
        attempts = min(_SUSPECT, self._settings.attempts)
        try:
            self._ask(([f"ok {random.getrandbits(32)}"], np.array([2])), attempts, until=until, plain=True)
        except (TryAgain, RefusedInput, ConfigError):
            return False
        return True

    def _ask(
        self,
        some: tuple[Sequence[str], npt.NDArray[np.integer]],
        attempts: int,
        *,
        until: float | None,
        plain: bool = False,
        longest: float = _LONGEST_WAIT,
        first: int = 0,
    ) -> npt.NDArray[np.float32]:
        """Ask for some texts, with their lengths, up to ``attempts`` times, after ``first`` earlier ones.

        Waits between them are of ``longest`` seconds at most.
        """
        if until is not None and time.monotonic() >= until:
            raise TryAgain("its time is over")

        def wait(state: RetryCallState) -> float:
            return min(longest, _wait(state, first))

        retrying = Retrying(
            retry=retry_if_exception_type(TryAgain),
            stop=lambda state: state.attempt_number >= attempts or _over(state, until),
            wait=wait,
            reraise=True,
        )
        return retrying(self._endpoints.ask, *some, plain=plain, until=until)

    def take_requests(self) -> list[Request]:
        """What was asked since it was last taken; of very many the first."""
        return [one for endpoint in self._endpoints.all for one in endpoint.take_requests()]

    def take_cost(self) -> Cost:
        """What was spent since it was last taken."""
        with self._counting:
            texts, self._texts = self._texts, 0
        spent = [endpoint.take_cost() for endpoint in self._endpoints.all]
        return Cost(
            sum(one.requests for one in spent),
            sum(one.failures for one in spent),
            texts,
            sum(one.tokens for one in spent),
            sum(one.usd for one in spent),
            tuple(spent) if len(spent) > 1 or self._settings.batch else (),
        )


def _full(error: Exception) -> bool:
    return isinstance(error, TryAgain) and error.full


def _over(state: RetryCallState, until: float | None) -> bool:
    """Whether the next attempt would come too late."""
    return until is not None and time.monotonic() + state.upcoming_sleep >= until


def _wait(state: RetryCallState, before: int) -> float:
    """Exponential with full jitter, and at least what the service asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = (error.after or 0.0) if isinstance(error, TryAgain) else 0.0
    backoff = random.uniform(0.0, _FIRST_WAIT * 2 ** (before + state.attempt_number - 1))
    return min(_LONGEST_WAIT, asked + backoff)
