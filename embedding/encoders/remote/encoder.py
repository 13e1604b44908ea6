"""Encoders behind a remote service: requests within its limits, several at once, tried again, checked and counted.

An answer that is short, long, misordered, of another width or not finite is never used: it is asked for again. A text
that the service refuses or fails on by itself, while it answers a text of ours, gets a row of NaN, which the caller
takes for a text that cannot be encoded. A service that answers nothing is an error of the whole, never of a text.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from embedding.encoders.remote.concurrency_limit import AdaptiveLimit
from embedding.encoders.spec import RemoteSettings
from embedding.errors import ConfigError, EmbedmillError, EncoderError

_LONGEST_WAIT = 60.0  # seconds; a service that asks for more is asked again sooner
_FIRST_WAIT = 0.5
_SUSPECT = 3  # attempts, after which it is asked whether the service fails or the texts do
_SUSPECT_WAIT = 1.0  # seconds at most between attempts at a text while the service answers others


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


@dataclass(frozen=True, slots=True)
class Cost:
    """What was asked of a service and answered, and the requests that had to be sent again. ``usd`` is an estimate."""

    requests: int = 0
    retries: int = 0
    texts: int = 0
    tokens: int = 0
    usd: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, name) + getattr(other, name) for name in self.__slots__))


class Request(NamedTuple):
    """One request: when it was sent and answered (ns since 1970), its texts, and the class of what went wrong."""

    began: int
    ended: int
    texts: int
    fault: str


MOST_REQUESTS = 10_000  # that are kept until somebody takes them


class RemoteEncoder:
    """An Encoder over a Service."""

    device = "remote"

    def __init__(self, service: Service, settings: RemoteSettings) -> None:
        self.name = service.name
        self.dim = settings.dim
        self.cost = Cost()
        self.limit = AdaptiveLimit(settings.concurrency)
        self._service = service
        self._settings = settings
        self._requests_made: list[Request] = []
        self._counting = threading.Lock()

    def close(self) -> None:
        """See Encoder.close: the connections that are kept for the next request."""
        self._service.close()

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode. A text that the service refuses, or fails on whenever it is asked, has a row of NaN.

        Raises EncoderError where the service stays down, ConfigError where it denies access.
        """
        out = np.full((len(texts), self.dim), np.nan, dtype=np.float32)
        requests = list(self._requests(tokens))
        with ThreadPoolExecutor(max_workers=self._settings.concurrency) as pool:
            running = [pool.submit(self._fill, out, texts, tokens, *rows) for rows in requests]
            try:
                for future in running:
                    future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)  # nothing more is sent to a service that is down
                raise
        return out

    def _requests(self, tokens: npt.NDArray[np.integer]) -> Iterator[tuple[int, int]]:
        """Rows (start, stop) of each request, within the limits on texts and tokens; a longer text goes alone."""
        most = min(self._settings.request_texts, self._service.texts_at_once)
        start = total = 0
        for row, length in enumerate(tokens.tolist()):
            if row > start and (row - start == most or total + length > self._settings.request_tokens):
                yield start, row
                start, total = row, 0
            total += length
        if len(tokens):
            yield start, len(tokens)

    def _fill(
        self, out: npt.NDArray[np.float32], texts: Sequence[str], tokens: npt.NDArray[np.integer], start: int, stop: int
    ) -> None:
        """Encode some rows; where the service fails on them and answers others, their halves, down to the text."""
        try:
            vectors, billed = self._ask(texts[start:stop], min(_SUSPECT, self._settings.attempts))
        except (RefusedInput, TryAgain, ConfigError) as error:
            found = self._asked_on(texts[start:stop], error)
            if found is None and stop - start > 1:
                middle = (start + stop) // 2
                self._fill(out, texts, tokens, start, middle)
                self._fill(out, texts, tokens, middle, stop)
            if found is None:
                return
            vectors, billed = found
        out[start:stop] = vectors
        known = int(tokens[start:stop].sum()) if billed is None else billed
        self._count(self._cost(stop - start, known))

    def _asked_on(
        self, texts: Sequence[str], error: RefusedInput | TryAgain | ConfigError
    ) -> tuple[npt.NDArray[np.float32], int | None] | None:
        """What becomes of a request that failed: vectors after all, or None where one of its texts is to blame.

        That is where the service answers others. Raises EncoderError or ConfigError where it does not.
        """
        again = isinstance(error, TryAgain)
        if again:
            self._count(Cost(retries=1))
        up = not _full(error) and self._answers()
        if up and (len(texts) > 1 or not again):
            return None
        if again and (left := self._settings.attempts - _SUSPECT) > 0:
            try:
                return self._ask(texts, left, longest=_SUSPECT_WAIT if up else _LONGEST_WAIT, first=_SUSPECT)
            except RefusedInput:
                return None
            except TryAgain as last:
                error = last
        if up and not _full(error) and self._answers():
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

    def _answers(self) -> bool:
        """Whether the service answers a short text that nothing is wrong with; new each time, for it may cache."""
        try:
            _, billed = self._ask([f"ok {random.getrandbits(32)}"], min(_SUSPECT, self._settings.attempts))
        except TryAgain:
            self._count(Cost(retries=1))
            return False
        except (RefusedInput, ConfigError):
            return False
        self._count(self._cost(0, billed or 2))
        return True

    def _ask(
        self, texts: Sequence[str], attempts: int, *, longest: float = _LONGEST_WAIT, first: int = 0
    ) -> tuple[npt.NDArray[np.float32], int | None]:
        """Ask up to ``attempts`` times, after ``first`` earlier ones, with waits of ``longest`` seconds at most."""

        def wait(state: RetryCallState) -> float:
            return min(longest, _wait(state, first))

        retrying = Retrying(
            retry=retry_if_exception_type(TryAgain),
            stop=stop_after_attempt(attempts),
            wait=wait,
            before_sleep=lambda _: self._count(Cost(retries=1)),
            reraise=True,
        )
        return retrying(self._once, texts)

    def _cost(self, texts: int, tokens: int) -> Cost:
        usd = tokens * self._settings.usd_per_million_tokens / 1e6
        return Cost(requests=1, texts=texts, tokens=tokens, usd=usd)

    def _once(self, texts: Sequence[str]) -> tuple[npt.NDArray[np.float32], int | None]:
        with self.limit.slot() as era:
            began, fault = time.time_ns(), ""
            try:
                answer = self._service.ask(texts)
            except Exception as error:
                fault = type(error).__name__
                if isinstance(error, TryAgain) and error.throttled:
                    self.limit.pushed_back(era)
                raise
            finally:
                self._note(Request(began, time.time_ns(), len(texts), fault))
            self.limit.succeeded()
        return self._checked(answer, len(texts)), answer.tokens

    def _checked(self, answer: Answer, count: int) -> npt.NDArray[np.float32]:
        try:
            vectors = np.asarray(answer.vectors, dtype=np.float32)
        except (TypeError, ValueError):
            raise TryAgain("an answer that is not a matrix") from None
        if vectors.shape != (count, self.dim):
            raise TryAgain(f"an answer of shape {vectors.shape} for {count} texts of {self.dim} dimensions")
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(vectors).all() or not lengths.all():
            raise TryAgain("an answer with a vector that is not finite, or zero")
        return vectors / lengths if self._settings.normalise else vectors

    def _count(self, more: Cost) -> None:
        with self._counting:
            self.cost += more

    def _note(self, request: Request) -> None:
        with self._counting:
            if len(self._requests_made) < MOST_REQUESTS:
                self._requests_made.append(request)

    def take_requests(self) -> list[Request]:
        """What was asked since it was last taken; of very many the first."""
        with self._counting:
            made, self._requests_made = self._requests_made, []
        return made

    def take_cost(self) -> Cost:
        """What was spent since it was last taken."""
        with self._counting:
            spent, self.cost = self.cost, Cost()
        return spent


def _full(error: Exception) -> bool:
    return isinstance(error, TryAgain) and error.full


def _wait(state: RetryCallState, before: int) -> float:
    """Exponential with full jitter, and at least what the service asks for."""
    error = state.outcome.exception() if state.outcome else None
    asked = (error.after or 0.0) if isinstance(error, TryAgain) else 0.0
    backoff = random.uniform(0.0, _FIRST_WAIT * 2 ** (before + state.attempt_number - 1))
    return min(_LONGEST_WAIT, asked + backoff)
