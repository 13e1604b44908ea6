"""The versions that are served: the live one, and the one before it for as long as the index has it.

A version is asked in its own space and with its own encoder: a request has both from one object, so that a cutover
between the two steps of a search mixes nothing.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np

from embedding.errors import EmbedmillError
from jobs.search.searcher import open_searcher
from jobs.serve.batcher import Batcher, Counts, Vectors
from jobs.telemetry.error_reporting import describe

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline
    from jobs.search.searcher import Searcher
    from jobs.serve.metrics import ServeMetrics

_LARGE = 20_000  # characters, from which counting tokens would hold up other requests
_WARM_UP = "how long"  # of no customer: makes the encoder ready before the first request


class Served:
    """One version with its encoder. ``users`` are requests that have it in hand."""

    def __init__(self, pipeline: Pipeline, version: str, metrics: ServeMetrics) -> None:
        """Open a version and encode a first query. Raises EmbedmillError where the configuration cannot give it."""
        settings = pipeline.config.serve
        self._open = ExitStack()
        try:
            self.searcher: Searcher = self._open.enter_context(open_searcher(pipeline, version))
            self.encoder = self.searcher.encoder
            self.dim = self.encoder.encode([_WARM_UP]).shape[1]
        except BaseException:
            self._open.close()
            raise
        self.version, self.space_id = version, self.searcher.space_id
        self.users = 0
        self._metrics = metrics
        self._batcher = Batcher(
            self.encoder.encode,
            batch_tokens=settings.batch_tokens,
            most_tokens=settings.queue_tokens,
            told=metrics.batch,
        )
        self._kept: OrderedDict[tuple[str, bytes], Vectors] = OrderedDict()  # the newest last
        self._most_kept = settings.cached_queries

    @property
    def waiting_tokens(self) -> int:
        """Tokens that wait for the encoder."""
        return self._batcher.waiting_tokens

    def wait_seconds(self) -> float:
        """About how long what waits now will take to be encoded."""
        return self._batcher.wait_seconds()

    async def vectors(self, texts: Sequence[str], who: str, deadline: float) -> tuple[Vectors, int]:
        """Vectors of queries, float32 (len(texts), dim), and their tokens. What one asked before is remembered.

        ``who`` has a memory of its own: how fast an answer is tells nobody what others have asked. Raises Overloaded,
        TooLate, and what the encoder raises.
        """
        large = sum(map(len, texts)) > _LARGE
        tokens: Counts = await asyncio.to_thread(self.encoder.count, texts) if large else self.encoder.count(texts)
        keys = [(who, blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()) for text in texts]
        found = {row: self._kept[key] for row, key in enumerate(keys) if key in self._kept}
        for row in found:
            self._kept.move_to_end(keys[row])
        self._metrics.cached(len(found))
        out = np.empty((len(texts), self.dim), np.float32)
        for row, vector in found.items():
            out[row] = vector
        if left := [row for row in range(len(texts)) if row not in found]:
            out[left] = await self._batcher.vectors([texts[row] for row in left], tokens[left], deadline)
            for row in left:
                self._keep(keys[row], out[row])
        return out, int(tokens.sum())

    def _keep(self, key: tuple[str, bytes], vector: Vectors) -> None:
        if self._most_kept and np.isfinite(vector).all():
            self._kept[key] = vector.copy()
            if len(self._kept) > self._most_kept:
                self._kept.popitem(last=False)

    async def close(self) -> None:
        """End the encoder; the index is the pipeline's."""
        await self._batcher.close()
        await asyncio.to_thread(self._open.close)


class Spaces:
    """What is served now, looked up anew every few seconds. ``lost`` is why the index could not be asked, "" else."""

    def __init__(self, pipeline: Pipeline, metrics: ServeMetrics, say: Callable[[str], None]) -> None:
        self.lost = ""
        self.live: Served | None = None
        self._former: Served | None = None
        self._leaving: list[Served] = []
        self._pipeline, self._metrics, self._say = pipeline, metrics, say

    def served(self) -> list[Served]:
        """What answers now, the live one first."""
        return [one for one in (self.live, self._former) if one is not None]

    def of_space(self, space_id: str) -> Served | None:
        """What answers in a space."""
        return next((one for one in self.served() if one.space_id == space_id), None)

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
        try:
            live, versions = await asyncio.to_thread(self._look)
            if live is not None and (self.live is None or live != self.live.version):
                await self._take(live)
            if self._former is not None and self._former.version not in versions:
                self._leaving.append(self._former)
                self._former = None
            lost = ""
        except EmbedmillError as error:
            lost = str(error)
        except Exception as error:  # its message could quote anything
            lost = describe(error)
        if lost and lost != self.lost:
            self._say(lost)
        self.lost = lost
        idle = [one for one in self._leaving if not one.users]
        self._leaving = [one for one in self._leaving if one.users]
        for one in idle:
            await one.close()
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
            for one in [*self.served(), *self._leaving]:
                await one.close()

    async def _follow(self) -> None:
        while True:
            await asyncio.sleep(self._pipeline.config.serve.reload_seconds)
            await self.refresh()

    def _look(self) -> tuple[str | None, list[str]]:
        index = self._pipeline.index()
        return index.live(), list(index.versions())

    async def _take(self, version: str) -> None:
        if self._former is not None and self._former.version == version:  # a rollback
            self.live, self._former = self._former, self.live
        else:
            opened = await asyncio.to_thread(Served, self._pipeline, version, self._metrics)
            if self._former is not None:
                self._leaving.append(self._former)
            self.live, self._former = opened, self.live
        assert self.live is not None
        if self._former is not None:
            self._metrics.cut_over()
            self._say(f"{self.live.version} is live now (space {self.live.space_id})")
