"""Publishes a shard as soon as its vectors are stored, beside the encoding of the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from jobs.publish.publisher import Publisher
from jobs.state.parts import Part


class ShardQueue:
    """Publishes shards of texts as their vectors are committed, in a thread of its own: encoding does not wait for it.

    Within the block ``enqueue`` is given each of ``shards`` and ``stopped`` says whether ``stop`` asked to leave off.
    Both raise what publishing raised, as does ``wait``, which returns when all is published.
    """

    def __init__(self, publisher: Publisher, stop: Callable[[], bool], shards: int) -> None:
        self._publisher, self._stop, self._left = publisher, stop, shards
        self._flush_at = shards // 2  # shards that are left
        self._thread = ThreadPoolExecutor(1, "publish")
        self._last: Future[bool] = Future()  # each waits for the one before: it is done when all are
        self._last.set_result(True)

    def __enter__(self) -> ShardQueue:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def enqueue(self, shard: str, parts: Sequence[Part]) -> None:
        """Publish the rows that waited for a shard, after those before it."""
        if not self.stopped():
            self._last = self._thread.submit(self._publish, self._last, shard, parts)

    def stopped(self) -> bool:
        """Whether to leave off, as far as is known now."""
        return self._last.done() and not self._last.result()

    def wait(self) -> bool:
        """Wait for all shards; False where ``stop`` asked to leave off."""
        return self._last.result()

    def _publish(self, before: Future[bool], shard: str, parts: Sequence[Part]) -> bool:
        # Nothing is published after a shard that failed or stopped.
        going = before.result() and self._publisher.publish_shard(shard, parts, self._stop)
        self._left -= 1
        if going and 0 < self._left <= self._flush_at:
            # While the others are encoded: each time half of what was left, so that little is left for the end.
            self._flush_at = self._left // 2
            self._publisher.flush_ahead()
        return going
