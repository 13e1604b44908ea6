"""The pool of actors that encode: how many a cluster has room for, and its first processes started ahead of time."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from embedding.encoders.backends import is_remote
from embedding.models.packaged import OWN_ENGINES

if TYPE_CHECKING:
    from jobs.config_sections import Model

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


def actor_pool(model: Model, shards: int, cluster: Mapping[str, float]) -> ActorPool:
    """Size the pool for a cluster. An actor beyond the number of shards would only load the model."""
    cores = max(1.0, cluster.get("CPU", 1.0))
    most = max(1, min(max(model.actors, model.max_actors), shards))
    least = min(model.actors, most)
    gpus, remote = model.gpus_per_actor, is_remote(model.backend)
    if gpus is None:
        uses_gpu = not remote and model.name not in OWN_ENGINES
        gpus = 1.0 if uses_gpu and cluster.get("GPU", 0.0) >= most else 0.0
    # Ray counts cores by what is asked for: without a share of their own, tasks would wait for ever for the actors.
    share = max(TASK_CPUS, cores * TASK_SHARE)
    cpus = TASK_CPUS if gpus or remote else math.floor((cores - share) / most * 100) / 100
    return ActorPool(least, most, cpus, gpus, model.threads or max(1, int(cores // most)), int(share / TASK_CPUS))


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
