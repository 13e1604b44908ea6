"""When a cluster that has lost nodes is given up as it was, and with how many actors it goes on."""

from __future__ import annotations

import pytest

from embedding.errors import ResourceError
from jobs.config_sections import Model
from jobs.embed.actor_pool import Node, actor_pool, room_for
from jobs.embed.embed import _fewer_actors
from jobs.embed.lost_nodes import NodesLostError, NodeWatch

CORE: Node = {"CPU": 1.0}
GPU: Node = {"CPU": 8.0, "GPU": 1.0}


class Cluster:
    """Nodes that come and go, and a clock that is set."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes, self.now = list(nodes), 0.0

    def watch(self, actors: int = 2, max_actors: int = 0) -> NodeWatch:
        pool = actor_pool(Model(actors=actors, max_actors=max_actors), 9, self.nodes)
        return NodeWatch(pool, lambda: self.nodes, 60, lambda: self.now)

    def lost(self, watch: NodeWatch, seconds: int) -> bool:
        """Whether the watch has given up within so many seconds of looking at it."""
        for _ in range(seconds):
            self.now += 1
            try:
                watch.look()
            except NodesLostError:
                return True
        return False


def test_a_node_without_which_there_is_too_little_room_is_waited_for_and_then_given_up() -> None:
    cluster = Cluster(CORE, CORE)
    watch = cluster.watch()
    assert not cluster.lost(watch, 600)
    cluster.nodes.pop()
    assert not cluster.lost(watch, 60)
    assert cluster.lost(watch, 10)


def test_a_node_that_comes_back_in_time_is_as_if_it_had_stayed() -> None:
    cluster = Cluster(CORE, CORE)
    watch = cluster.watch()
    for _ in range(3):
        node = cluster.nodes.pop()
        assert not cluster.lost(watch, 50)
        cluster.nodes.append(node)
        assert not cluster.lost(watch, 10)


def test_a_node_that_the_others_can_stand_in_for_is_not_missed() -> None:
    cluster = Cluster(CORE, CORE, CORE)
    watch = cluster.watch(actors=2)
    cluster.nodes.pop()
    assert not cluster.lost(watch, 600)


def test_a_pool_that_may_have_grown_misses_each_node() -> None:
    cluster = Cluster(CORE, CORE, CORE)
    watch = cluster.watch(actors=1, max_actors=3)
    cluster.nodes.pop()
    assert cluster.lost(watch, 70)


def test_nodes_that_may_still_come_are_not_missed() -> None:
    assert not Cluster({"CPU": 0.0}).lost(Cluster({"CPU": 0.0}).watch(), 600)


@pytest.mark.parametrize("node", [CORE, GPU])
def test_those_that_are_left_go_on_with_as_many_actors_as_they_have_room_for(node: Node) -> None:
    model = Model(actors=2, max_actors=3)
    pool = actor_pool(model, 9, [node] * 3)
    fewer = _fewer_actors(model, room_for(pool, [node]))
    assert (fewer.actors, fewer.max_actors) == (1, 1)
    left = actor_pool(fewer, 9, [node])
    assert (left.most, left.cpus, left.gpus) == (1, pool.cpus, pool.gpus)
    with pytest.raises(ResourceError, match="lost all nodes"):
        _fewer_actors(model, room_for(pool, []))
