"""The versions that are served: the live one, and the one before it for as long as the index has it.

A version is asked in its own space and with its own encoder: a request has both from one object, so that a cutover
between the two steps of a search mixes nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from embedding.errors import ConfigError, EmbedmillError
from jobs.search.searcher import open_searcher
from jobs.serve.batcher import Batcher, Counts, Limits, Speed, TooLate, Vectors
from jobs.serve.places import Places
from jobs.telemetry.error_reporting import describe

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline
    from jobs.search.searcher import Searcher
    from jobs.serve.metrics import ServeMetrics

_LARGE = 20_000  # characters, from which counting tokens would hold up other requests
_COUNTED = 64  # texts, after which it is asked whether somebody still waits
_END_SECONDS = 1.0  # that a call which nobody waits for any more is given to end
_CHECKED = 60  # looks at the alias, after which it is asked whether the models may still be used
_ASKED_SECONDS = 5.0  # that a registry may take to answer
_WARM_UP = [f"how long does it take to read what nobody has said {n} times" for n in range(32)]  # of no customer


class Served:
    """One version with its encoder and the name of its ``model``. ``users`` are requests that have it in hand."""

    def __init__(self, pipeline: Pipeline, version: str, metrics: ServeMetrics, counting: Places) -> None:
        """Open a version and measure its encoder; long bodies are counted in the places of ``counting``.

        Raises EmbedmillError where the configuration cannot give it.
        """
        settings = pipeline.config.serve
        self._open = ExitStack()
        try:
            self.searcher: Searcher = self._open.enter_context(
                open_searcher(pipeline, version, seconds=settings.deadline_seconds)
            )
            self.encoder = self.searcher.encoder
            self.dim, speed = self._warm_up()
        except BaseException:
            self._open.close()
            raise
        self.version, self.space_id, self.model = version, self.searcher.space_id, self.encoder.model
        self.users = 0
        self._metrics, self._counting = metrics, counting
        self._batcher = Batcher(
            self.encoder.encode,
            Limits(settings.batch_tokens, settings.queue_tokens, settings.deadline_seconds, self.encoder.at_once),
            speed,
            told=metrics.batch,
        )
        self._kept: OrderedDict[tuple[str | None, bytes], Vectors] = OrderedDict()  # the newest last
        self._most_kept = settings.cached_queries

    def _warm_up(self) -> tuple[int, Speed]:
        """Make the encoder ready, then measure it: the width of its vectors, and its speed before the first request."""
        tokens = self.encoder.count(_WARM_UP)
        self.encoder.encode(_WARM_UP, tokens)
        began = time.perf_counter()
        vectors = self.encoder.encode(_WARM_UP, tokens)
        return vectors.shape[1], Speed(int(tokens.sum()), time.perf_counter() - began)

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait for the encoder."""
        return self._batcher.waiting_tokens

    def wait_seconds(self) -> float:
        """About how long what waits now will take to be encoded."""
        return self._batcher.wait_seconds()

    async def vectors(self, texts: Sequence[str], who: str | None, deadline: float) -> tuple[Vectors, Counts]:
        """Vectors of queries, float32 (len(texts), dim), and their tokens. What one asked before is remembered.

        ``who`` has a memory of its own: how fast an answer is tells nobody what others have asked. None has
        none. Raises Overloaded, TooLate, and what the encoder raises.
        """
        if sum(map(len, texts)) > _LARGE:
            tokens = await self._counting.run(partial(self._counted, texts, deadline), deadline)
        else:
            tokens = self.encoder.count(texts)
        encoded = tokens if self.encoder.longest is None else np.minimum(tokens, self.encoder.longest)
        keys = [(who, blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()) for text in texts]
        found = {row: self._kept[key] for row, key in enumerate(keys) if key in self._kept}
        for row in found:
            self._kept.move_to_end(keys[row])
        self._metrics.cached(len(found))
        out = np.empty((len(texts), self.dim), np.float32)
        for row, vector in found.items():
            out[row] = vector
        if left := [row for row in range(len(texts)) if row not in found]:
            out[left] = await self._batcher.vectors([texts[row] for row in left], encoded[left], deadline)
            for row in left:
                self._keep(keys[row], out[row])
        return out, tokens

    def _counted(self, texts: Sequence[str], deadline: float) -> Counts:
        """Lengths of texts; it ends soon after nobody waits for them any more."""
        found = []
        for start in range(0, len(texts), _COUNTED):
            if time.monotonic() > deadline:
                raise TooLate
            found.append(self.encoder.count(texts[start : start + _COUNTED]))
        return np.concatenate(found)

    def _keep(self, key: tuple[str | None, bytes], vector: Vectors) -> None:
        if key[0] is not None and self._most_kept and np.isfinite(vector).all():
            self._kept[key] = vector.copy()
            if len(self._kept) > self._most_kept:
                self._kept.popitem(last=False)

    async def drained(self, seconds: float) -> bool:
        """Wait so long for what is being encoded; nothing may be asked any more. Returns whether all has ended."""
        return await self._batcher.close(seconds)

    def close(self) -> None:
        """Let go of the encoder, which nothing uses any more; the index is the pipeline's."""
        self._open.close()


class Spaces:
    """What is served now, looked up anew every few seconds. ``lost`` is why the index could not be asked, "" else.

    ``searches`` are places for calls of the index. ``ended`` says, after ``following``, whether no thread is left that
    is still in a call.
    """

    def __init__(self, pipeline: Pipeline, metrics: ServeMetrics, say: Callable[[str], None]) -> None:
        self.lost = ""
        self.live: Served | None = None
        self._former: Served | None = None
        self.ended = False
        self.searches = Places(pipeline.config.serve.searches, "search")
        self._counting = Places(1, "count")  # which has all cores by itself
        self._looking = Places(1, "follow")
        self._checking = Places(1, "check")
        self._leaving: list[Served] = []
        self._reason = ""  # that was told last
        self._looks = 0
        self._pipeline, self._metrics, self._say = pipeline, metrics, say

    def served(self) -> list[Served]:
        """What answers now, the live one first."""
        return [one for one in (self.live, self._former) if one is not None]

    @contextmanager
    def used(self, served: Served) -> Iterator[Served]:
        """Keep a version open for the block."""
        served.users += 1
        try:
            yield served
        finally:
            served.users -= 1

    async def refresh(self) -> None:
        """Follow the alias: open a new live version beside the one that answers, then take its place.

        What fails is told once and leaves things as they are. Raises nothing but what ends the process.
        """
        lost = missing = ""
        try:
            live, spaces = await self._looking.run(self._look)
            self._forget(spaces)
            await self._check_models()
            if live is None and self.served():
                lost = f"the index {self._pipeline.config.index.name!r} is gone; it cannot be searched until it is back"
            elif live is None:
                missing = f"there is no index {self._pipeline.config.index.name!r} yet; run `embedmill run` first"
            elif self.live is None or live != self.live.version:
                await self._take(live)
        except EmbedmillError as error:
            lost = str(error)
        except Exception as error:  # its message could quote anything
            lost = describe(error)
        if (reason := lost or missing) and reason != self._reason:
            self._say(reason)
        self.lost, self._reason = lost, reason
        self._leaving = [one for one in self._leaving if one.users or not await self._end(one)]
        self._metrics.served([(one.space_id, one.version) for one in self.served()])
        self._metrics.reached.set(not lost)

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Refresh now, and every ``serve.reload_seconds`` during the block; end all encoders after it."""
        with self._pipeline.progress.phase("opening what is live"):
            await self.refresh()
        following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            following.cancel()
            with suppress(asyncio.CancelledError):
                await following
            ended = await asyncio.gather(
                *(self._end(one) for one in [*self.served(), *self._leaving]),
                *(places.close(_END_SECONDS) for places in (self.searches, self._counting, self._checking)),
            )
            self.ended = all([*ended, await self._looking.close(_END_SECONDS)])

    async def _end(self, one: Served) -> bool:
        """Let go of a version. Returns whether that was done: what is still encoded is waited for a moment only."""
        if not await one.drained(_END_SECONDS):
            return False
        try:
            await self._looking.run(one.close, time.monotonic() + _END_SECONDS)
        except TooLate:
            return False
        return True

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._pipeline.config.serve.reload_seconds)
            await self.refresh()

    def _look(self) -> tuple[str | None, dict[str, str]]:
        """The live version, and the spaces of versions that are served. Makes no index, and holds none in vain."""
        if not self._pipeline.has_index():
            return None, {}
        index = self._pipeline.index()
        live, there = index.live(), index.versions()
        if live is None and not self.served():
            self._pipeline.close()  # the first run may need it for itself
        return live, {one.version: index.space_of(one.version) for one in self.served() if one.version in there}

    def _forget(self, spaces: Mapping[str, str]) -> None:
        """No longer serve a version that was made anew in another space, and no former one that was dropped."""
        if (live := self.live) is not None and spaces.get(live.version, live.space_id) != live.space_id:
            self._leaving.append(live)
            self.live = None
            self._say(f"{live.version} was made anew in another space than {live.space_id}")
        if (former := self._former) is not None and spaces.get(former.version) != former.space_id:
            self._leaving.append(former)
            self._former = None

    async def _check_models(self) -> None:
        """No longer serve a model that has seen what was purged longer ago than it may be used.

        One whose registry cannot be asked is served on.
        """
        self._looks += 1
        if self._looks % _CHECKED:
            return
        for one in self.served():
            try:
                await self._checking.run(one.encoder.check_allowed, time.monotonic() + _ASKED_SECONDS)
            except ConfigError as error:
                self._leaving.append(one)
                self.live, self._former = (None if one is kept else kept for kept in (self.live, self._former))
                self._say(str(error))
            except (EmbedmillError, TooLate):
                self._say(f"{one.model}: its registry does not say whether it may still be used")

    async def _take(self, version: str) -> None:
        before = self.live
        if self._former is not None and self._former.version == version:  # a rollback
            self.live, self._former = self._former, before
        else:
            self.live = await self._looking.run(partial(Served, self._pipeline, version, self._metrics, self._counting))
            if before is not None:
                if self._former is not None:
                    self._leaving.append(self._former)
                self._former = before
        if before is not None:
            self._metrics.cut_over()
        if before is not None or self._reason:
            self._say(f"{self.live.version} is live now (space {self.live.space_id})")
