"""The pool of actors that encode: how many a cluster has room for, and its first processes started ahead of time."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa

from embedding.encoders.backends import is_remote
from embedding.errors import ResourceError
from embedding.models.packaged import OWN_ENGINES

if TYPE_CHECKING:
    from jobs.config_sections import Model

Node: TypeAlias = Mapping[str, float]  # what a node of the cluster has, by Ray's name for it
# Share of the cluster's cores that is kept for tasks beside the actors, and what one task takes of a core.
TASK_SHARE = 0.125
TASK_CPUS = 0.25
WARM_WORKERS = 3  # processes: for an actor of Ray Data's own, the first that encodes, and the tasks


@dataclass(frozen=True, slots=True)
class ActorPool:
    """How many actors, what each takes of the cluster (logical CPUs and GPUs), and its threads; tasks beside them."""

    least: int
    most: int
    cpus: float
    gpus: float
    threads: int
    tasks: int


def actor_pool(model: Model, shards: int, nodes: Sequence[Node]) -> ActorPool:
    """Size the pool for the nodes of a cluster: an actor runs on one of them, and takes no more than that has.

    An actor beyond the number of shards would only load the model. Raises ResourceError where the nodes have no room
    for ``model.actors``.
    """
    most = max(1, min(max(model.actors, model.max_actors), shards))
    least = min(model.actors, most)
    gpus, remote = gpus_per_actor(model, nodes), is_remote(model.backend)
    if gpus and (room := _room([node.get("GPU", 0.0) for node in nodes], gpus)) < least:
        have = ", ".join(f"{node.get('GPU', 0.0):g}" for node in nodes)
        raise ResourceError(
            f"model.gpus_per_actor: {least} actors of {gpus:g} GPUs each are asked for, and the nodes of the Ray "
            f"cluster have room for {room} (GPUs by node: {have}); lower it, or model.actors, or add nodes"
        )
    cores = _cores(nodes) or [1.0]
    free = [count - _share(count) for count in cores]
    each = _largest(free, most)
    cpus = TASK_CPUS if gpus or remote else math.floor(each * 100) / 100
    threads = model.threads or max(1, int(each / (1 - TASK_SHARE) + 1e-9))
    return ActorPool(least, most, cpus, gpus, threads, int(sum(map(_share, cores)) / TASK_CPUS))


def room_for(pool: ActorPool, nodes: Sequence[Node]) -> int:
    """How many actors of a pool nodes have room for."""
    if pool.gpus:
        return _room([node.get("GPU", 0.0) for node in nodes], pool.gpus)
    return _room([count - _share(count) for count in _cores(nodes)], pool.cpus)


def _cores(nodes: Sequence[Node]) -> list[float]:
    """Cores of each node that has enough of them for an actor beside a task."""
    return [count for node in nodes if (count := node.get("CPU", 0.0)) > TASK_CPUS]


def _share(cores: float) -> float:
    """What is kept of a node's cores for tasks: Ray counts what is asked for, and tasks would wait for the actors."""
    return max(TASK_CPUS, cores * TASK_SHARE)


def gpus_per_actor(model: Model, nodes: Sequence[Node]) -> float:
    """What an actor takes: as configured, else one where there are enough for all actors that may be, or none.

    It does not depend on the shards of a run: what encodes is chosen by it before they are known.
    """
    if model.gpus_per_actor is not None:
        return model.gpus_per_actor
    if is_remote(model.backend) or model.name in OWN_ENGINES:
        return 0.0
    enough = _room([node.get("GPU", 0.0) for node in nodes], 1.0) >= max(1, model.actors, model.max_actors)
    return 1.0 if enough else 0.0


def _room(have: Sequence[float], each: float) -> int:
    """How many of a size fit into nodes that have so much."""
    return sum(int(one / each + 1e-9) for one in have)


def _largest(have: Sequence[float], count: int) -> float:
    """The largest size of which so many fit, each into one node: it divides what one of them has."""
    sizes = sorted({one / share for one in have for share in range(1, count + 1)}, reverse=True)
    return next(size for size in sizes if _room(have, size) >= count)


def warm_up() -> None:
    """Start what each dataset needs in a Ray of our own, and import what ours needs, ahead of the first dataset."""
    import ray

    empty = ray.data.from_items([{"path": ""}])
    empty.map_batches(_nothing, batch_format="pyarrow", num_cpus=TASK_CPUS).materialize()
    # By another share of a core each, so that none waits for the process of another.
    begun = [ray.remote(num_cpus=n / 100)(_import_operators).remote() for n in range(1, WARM_WORKERS + 1)]
    ray.get(begun)


def _nothing(batch: pa.Table) -> pa.Table:
    return batch


def _import_operators() -> None:
    import ray.data  # noqa: F401

    import embedding.tokens.tokenizer  # noqa: F401
