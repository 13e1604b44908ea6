"""Notices that a cluster has lost nodes that encode: Ray starts an actor anew only where it finds room for it.

Until then Ray Data (2.60) keeps the shards that the actor had, and hands out few others: with one of two nodes lost it
stood still for three minutes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from jobs.embed.actor_pool import ActorPool, Node, room_for

PATIENCE_SECONDS = 60.0  # in which a node may come back; Ray itself takes half a minute to see that one is gone
_LOOK_SECONDS = 5.0


class NodesLostError(Exception):
    """Nodes are gone, and those that are left have room for fewer actors than may be at work."""


class NodeWatch:
    """Looks whether the ``nodes()`` of now have room for as many actors of a ``pool`` as those of its start."""

    def __init__(
        self,
        pool: ActorPool,
        nodes: Callable[[], Sequence[Node]],
        patience_seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pool, self._nodes, self._patience, self._clock = pool, nodes, patience_seconds, clock
        self._wanted = min(pool.most, room_for(pool, nodes()))
        self._looked = self._enough = clock()

    def look(self) -> None:
        """Raise NodesLostError where there was too little room for longer than the patience. May be called often."""
        now = self._clock()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        if room_for(self._pool, self._nodes()) >= self._wanted:
            self._enough = now
        elif now - self._enough > self._patience:
            raise NodesLostError
