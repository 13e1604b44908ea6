"""Embed: encode the plan's texts on Ray and store the vectors, shard by shard.

Three operators, joined by Ray's object store, whose size bounds what waits between them:

    cut texts into token ids (tasks) -> encode (actors, which write their attempt log alone) -> write vectors (tasks)

A shard travels as one row, whose value is its table: Ray cuts what an operator returns at the size of a block, which
vectors of a wide model pass, and never inside a row.

A shard is committed to ``vectors`` as soon as it is written, and then yielded while the next ones are encoded: a killed
run loses the shards under way and no other, and so does a node that is lost. A text that raises or kills its actor is
left out and reported, and costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from embedding.encoders.backends import takes_ids
from embedding.encoders.choose import choose, open_encoder
from embedding.encoders.spec import EncoderSpec
from embedding.errors import BudgetError, EmbedmillError, ResourceError
from jobs.embed.actor_pool import TASK_CPUS, ActorPool, actor_pool, gpus_per_actor, room_for, warm_up
from jobs.embed.encoder_process import EncoderProcess, ShardRequest
from jobs.embed.lost_nodes import PATIENCE_SECONDS, NodesLostError, NodeWatch
from jobs.embed.shard_trace import trace_shard
from jobs.embed.stored_shard import StoredShard
from jobs.embed.workers import EncodeShard, cut_shard, write_shard
from jobs.engines.agreement import check_ray
from jobs.engines.compat import at_each_step
from jobs.engines.ray import gpu_node, nodes, start_ray
from jobs.state.staging import Staged, staged
from jobs.state.store import State
from jobs.telemetry.error_reporting import fault_from_bytes

if TYPE_CHECKING:
    from jobs.config import Config
    from jobs.config_sections import Model

TEXTS, ATTEMPTS = "texts", "attempts"  # folders of a run's work


def ready(config: Config, state: State, spec: EncoderSpec) -> EncoderSpec:
    """Start Ray and choose what encodes: ``spec`` with backend and precision, for ``embed``."""
    started = start_ray(config, state.engines)
    if config.ray.address != "local":
        check_ray(state.root, None if spec.stored or spec.remote else spec.model)
    chosen = _chosen(spec, gpus_per_actor(config.model, nodes()))
    if started and config.ray.address == "local":
        warm_up()
    return chosen


def embed(
    config: Config,
    state: State,
    spec: EncoderSpec,
    *,
    run_id: str,
    space_id: str,
    before_commit: Callable[[], None],
) -> Iterator[StoredShard]:
    """Encode every shard of the run's plan with what ``ready`` returned; yield each when its vectors are committed.

    ``before_commit`` is called ahead of each commit and may raise. The next shard is encoded meanwhile; leaving the
    loop early leaves the rest for another run. Where the cluster loses nodes, those that are left encode the rest.
    Raises the EmbedmillError of a worker as it was raised there.
    """
    texts = staged(state.work(run_id) / TEXTS)
    left = _shards(texts)
    model, over = config.model, None
    while left and over is None:
        pool = actor_pool(model, len(left), nodes())
        work = _ShardWork(texts, replace(spec, threads=pool.threads), state, run_id, space_id)
        try:
            for row in _rows(work, left, pool):
                left.remove(row["shard"])
                try:
                    shard = _store(state, row, before_commit, spec.told)
                except BudgetError as error:  # the shards that were begun before are finished, paid, and stored
                    over = error
                    continue
                yield shard
        except NodesLostError:
            model = _fewer_actors(model, room_for(pool, nodes()))
        else:
            break
    if over is not None:
        raise over
    if left:
        raise EmbedmillError(
            f"{len(left)} of {len(texts.folders)} shards of texts did not come back from the encoder; run again"
        )


@dataclass(frozen=True, slots=True)
class _ShardWork:
    """What turns shards of texts into stored vectors."""

    texts: Staged
    spec: EncoderSpec
    state: State
    run_id: str
    space_id: str


def _rows(work: _ShardWork, shards: Sequence[str], pool: ActorPool) -> Iterator[Mapping[str, Any]]:
    """Encode and write shards; yields the row of ``write_shard`` of each. Raises NodesLostError (``NodeWatch``)."""
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    texts, spec, state = work.texts, work.spec, work.state
    tasks = TaskPoolStrategy(size=pool.tasks)
    # Ray's types let a function take a batch and nothing by fn_kwargs.
    with at_each_step(NodeWatch(pool, nodes, PATIENCE_SECONDS).look):
        encoded = (
            ray.data.from_items([{"shard": name} for name in shards], override_num_blocks=len(shards))
            .map_batches(
                cast(Any, cut_shard),
                fn_kwargs={"texts": texts, "spec": spec},
                batch_format="pyarrow",
                compute=tasks,
                num_cpus=TASK_CPUS,
            )
            .map_batches(
                cast(Any, EncodeShard),
                fn_constructor_args=(spec,),
                fn_kwargs={"attempts": state.work(work.run_id) / ATTEMPTS},
                batch_format="pyarrow",
                batch_size=1,  # a shard; with GPUs Ray refuses to choose
                compute=ActorPoolStrategy(min_size=pool.least, max_size=pool.most),
                num_cpus=pool.cpus,
                num_gpus=pool.gpus or None,
                **_sight(pool.gpus),
            )
            .map_batches(
                cast(Any, write_shard),
                fn_kwargs={"root": state.root, "space_id": work.space_id, "run_id": work.run_id},
                batch_format="pyarrow",
                compute=tasks,
                num_cpus=TASK_CPUS,
            )
        )
        # No prefetch: Ray would hand out a shard only when it has the next one.
        batches = encoded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        for batch in cast(Iterable[pa.Table], batches):
            yield from batch.to_pylist()


def _fewer_actors(model: Model, room: int) -> Model:
    """The model's settings with as many actors as the nodes that are left have room for."""
    if not room:
        raise ResourceError("ray.address: the cluster has lost all nodes that encode; run again when they are back")
    return model.model_copy(update={"actors": min(model.actors, room), "max_actors": min(model.max_actors, room)})


def embed_alone(
    state: State, process: EncoderProcess, *, run_id: str, space_id: str, before_commit: Callable[[], None]
) -> Iterator[StoredShard]:
    """``embed`` of few texts, in one process and without Ray, shard after shard."""
    work = state.work(run_id)
    texts = staged(work / TEXTS)
    asked = [
        ShardRequest(name, texts.within(name), work / ATTEMPTS, state.root, space_id, run_id) for name in _shards(texts)
    ]
    with closing(process.encode(asked)) as rows:
        for row in rows:
            yield _store(state, row, before_commit, process.told)


def _shards(texts: Staged) -> list[str]:
    """Names of the shards, in their order."""
    return sorted(texts.folders, key=lambda name: int(name.removeprefix("shard=")))


def _store(
    state: State, row: Mapping[str, Any], before_commit: Callable[[], None], told: tuple[str, int]
) -> StoredShard:
    """Commit the vectors of a row of ``write_shard``, ``told`` as of a model and a dimension.

    Raises the fault that it carries.
    """
    if row["fault"]:
        raise fault_from_bytes(row["fault"])
    before_commit()
    shard = StoredShard.of_row(row)
    state.append("vectors", shard.parts)
    trace_shard(shard, *told)
    return shard


def _sight(gpus: float) -> dict[str, Any]:
    """What keeps an actor or a task without ``gpus`` from the GPUs of its node: of itself Ray shows it all of them."""
    return {} if gpus or gpu_node() is None else {"runtime_env": {"env_vars": {"CUDA_VISIBLE_DEVICES": ""}}}


def _chosen(spec: EncoderSpec, gpus: float) -> EncoderSpec:
    """``choose`` in a process that ends with it: the gate loads two encoders, and this one should stay small.

    Where actors have ``gpus`` it runs on a node that has some: what is the fastest on another is not what they should
    run. It asks Ray for none, so that it need not wait for a job that holds them.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    if not takes_ids(spec.backend):
        spec = choose(spec)
        open_encoder(spec).close()  # what is wrong with a service's settings is said here and not by every actor
        return spec
    options = _sight(gpus)
    if gpus and (node := gpu_node()) is not None:
        options["scheduling_strategy"] = NodeAffinitySchedulingStrategy(node, soft=True)
    try:
        return ray.get(ray.remote(num_cpus=0, max_calls=1)(choose).options(**options).remote(spec))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EmbedmillError):
            raise error.cause from None
        raise
