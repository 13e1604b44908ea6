"""Embed: encode the plan's texts on Ray and store the vectors, shard by shard.

Three operators, joined by Ray's object store, whose size bounds what waits between them:

    cut texts into token ids (tasks) -> encode (actors, which touch no disk) -> write vectors (tasks)

A shard is committed to ``vectors`` as soon as it is written: a killed run loses the shards under way and no other, and
what waits for its vectors is told of it while the next ones are encoded. A text that raises or kills its actor is left
out and reported, and costs the others nothing.
"""

from __future__ import annotations

import ctypes
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedding import errors
from embedding.encoders import EncoderSpec, TokenIds, choose, open_encoder
from embedding.encoders.isolate import encode_apart
from embedding.encoders.remote import Cost, RemoteEncoder
from embedding.encoders.spec import REMOTE
from embedding.errors import EmbedmillError
from embedding.space import OWN_ENGINES
from jobs.attempts import Attempts
from jobs.engines import start_ray
from jobs.faults import without_messages
from jobs.state import Part, State, write_part
from jobs.vectors import pack

if TYPE_CHECKING:
    from embedding.encoders import IdEncoder
    from embedding.encoders.tokens import Tokens
    from jobs.config import Config, Model

# Share of the cluster's cores that is kept for tasks beside the actors, and what one task takes of a core.
TASK_SHARE = 0.125
TASK_CPUS = 0.25
WARM_WORKERS = 3  # processes: for an actor of Ray Data's own, the first that encodes, and the tasks


@dataclass(slots=True)
class Embedded:
    """What the stage did: texts encoded, and those left out with their reason, by (team_id, content_hash).

    ``tokens`` are those of the texts; ``stopped`` where it left off before the last shard. ``cost`` is what a managed
    model was asked for; None where the model is our own.
    """

    texts: int = 0
    tokens: int = 0
    stopped: bool = False
    cost: Cost | None = None
    failed: dict[tuple[str, str], str] = field(default_factory=dict)


# -- on the workers ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _tokens(spec: EncoderSpec) -> Tokens:
    from embedding.encoders.tokens import Tokens

    return Tokens(spec.model, spec.max_tokens)


@without_messages()
def cut_shard(batch: pa.Table, spec: EncoderSpec) -> pa.Table:
    """``path`` of one shard to its rows: shard, team_id, content_hash, tokens, and text, or ids where they do."""
    [path] = batch["path"].to_pylist()
    # partitioning=None: "shard=3" in the path is not a column of the texts
    shard = pq.read_table(path, partitioning=None)
    shard = shard.append_column("shard", pa.array([path] * len(shard), pa.string()))
    if not spec.takes_ids:
        return shard
    ids = _tokens(spec).ids(shard["text"].to_pylist())
    return shard.drop_columns(["text"]).append_column("ids", ids.to_arrow())


class EncodeShard:
    """Loads the encoder once, then turns shards into vectors."""

    def __init__(self, spec: EncoderSpec) -> None:
        from embedding.encoders import open_encoder

        self._encoder = open_encoder(spec)

    @without_messages()
    def __call__(self, shard: pa.Table) -> pa.Table:
        """Rows of ``cut_shard`` to shard, team_id, content_hash, tokens, vector, reason ("" with one), cost, fault."""
        fault = ""
        try:
            vectors, reasons = self._encode(shard)
        except EmbedmillError as error:
            # Ray hands on an exception as text, so this one travels as a row and is raised again on the driver.
            fault = json.dumps([type(error).__name__, str(error)])
            shard, reasons = shard.slice(0, 1), ["fault"]
            vectors = np.zeros((1, self._encoder.dim), np.float32)
        cost = json.dumps(asdict(self._encoder.take_cost())) if isinstance(self._encoder, RemoteEncoder) else ""
        _give_back_memory()
        return (
            shard.select(["shard", "team_id", "content_hash", "tokens"])
            .append_column("vector", pack(vectors))
            .append_column("reason", pa.array(reasons, pa.string()))
            .append_column("cost", pa.array([cost] * len(shard), pa.string()))
            .append_column("fault", pa.array([fault] * len(shard), pa.string()))
        )

    def _encode(self, shard: pa.Table) -> tuple[npt.NDArray[np.float32], list[str]]:
        path = Path(shard["shard"][0].as_py())
        attempts = Attempts(path.parent.parent / "attempts" / path.name)
        reasons = ["kills_encoder" if row in attempts.deadly else "" for row in range(len(shard))]
        alive = [row for row, reason in enumerate(reasons) if not reason]
        one_by_one = attempts.one_by_one
        if not one_by_one:
            attempts.begin()
        out = np.zeros((len(shard), self._encoder.dim), np.float32)
        for group in [[row] for row in alive] if one_by_one else [alive]:
            if one_by_one:
                attempts.begin_one(group[0])
            out[group], good = self._encode_apart(shard if len(group) == len(shard) else shard.take(group))
            for row in np.array(group)[~good]:
                reasons[row] = "encoder_fails"
        return out, reasons

    def _encode_apart(self, rows: pa.Table) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        if "ids" in rows.column_names:
            local = cast("IdEncoder", self._encoder)
            ids = TokenIds.from_arrow(rows["ids"].combine_chunks())
            return encode_apart(lambda start, stop: local.encode_ids(ids.part(start, stop)), len(rows), local.dim)
        texts, tokens = rows["text"].to_pylist(), rows["tokens"].to_numpy()
        encoder = self._encoder
        return encode_apart(
            lambda start, stop: encoder.encode(texts[start:stop], tokens[start:stop]), len(rows), encoder.dim
        )


def _give_back_memory() -> None:
    """Return what a shard took and has freed. Left alone, it stays with each thread's own heap and grows for hours."""
    pa.default_memory_pool().release_unused()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


@without_messages()
def write_shard(rows: pa.Table, root: str, space_id: str, run_id: str) -> pa.Table:
    """Store a shard's vectors as files that the driver commits.

    Returns one row: shard, parts (lines), texts, tokens; failed, cost and fault as JSON.
    """
    good = pc.equal(rows["reason"], "")
    kept = rows.filter(good).select(["team_id", "content_hash", "vector"])
    for name, value in (("space_id", space_id), ("run_id", run_id)):
        kept = kept.append_column(name, pa.array([value] * len(kept), pa.string()))
    parts = write_part(root, "vectors", kept) if len(kept) else []
    left_out = rows.filter(pc.invert(good)).select(["team_id", "content_hash", "reason"]).to_pylist()
    return pa.table(
        {
            "shard": [rows["shard"][0].as_py()],
            "parts": ["\n".join(part.to_json() for part in parts)],
            "texts": [len(kept)],
            "tokens": [pc.sum(rows["tokens"]).as_py()],
            "failed": [json.dumps([list(row.values()) for row in left_out])],
            "cost": [rows["cost"][0].as_py()],
            "fault": [rows["fault"][0].as_py()],
        }
    )


# -- on the driver -----------------------------------------------------------------------------------------------------


def ready(config: Config, state: State, spec: EncoderSpec) -> EncoderSpec:
    """Start Ray and settle what encodes: ``spec`` with backend and precision, for ``embed``."""
    start_ray(config, state.engines)
    chosen = _chosen(spec)
    if config.ray.address == "local":
        _warm_up()
    return chosen


def embed(
    config: Config, state: State, spec: EncoderSpec, *, run_id: str, space_id: str,
    before_commit: Callable[[], None], stored: Callable[[str, list[Part]], None], stop: Callable[[], bool],
    progress: Callable[[int], None],
) -> Embedded:  # fmt: skip
    """Encode every shard of the run's plan with what ``ready`` returned.

    ``before_commit`` is called ahead of each commit and may raise. After it ``stored`` is told the shard's name and
    the files of its vectors, ``progress`` its tokens, and ``stop`` is asked whether to leave off.
    """
    import ray
    from ray.data import ActorPoolStrategy, TaskPoolStrategy

    folder = state.work(run_id) / "texts"
    shards = sorted(folder.glob("shard=*"), key=lambda p: int(p.name.removeprefix("shard=")))
    pool = actor_pool(config.model, len(shards), ray.cluster_resources())
    spec = replace(spec, threads=pool.threads)
    tasks = TaskPoolStrategy(size=pool.tasks)
    encoded = (
        ray.data.from_items([{"path": str(s)} for s in shards], override_num_blocks=len(shards))
        .map_batches(
            cut_shard, fn_kwargs={"spec": spec}, batch_format="pyarrow", compute=tasks, num_cpus=TASK_CPUS
        )
        .map_batches(
            EncodeShard, fn_constructor_args=(spec,), batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=pool.least, max_size=pool.most),
            num_cpus=pool.cpus, num_gpus=pool.gpus or None,
        )
        .map_batches(
            write_shard, fn_kwargs={"root": str(state.root), "space_id": space_id, "run_id": run_id},
            batch_format="pyarrow", compute=tasks, num_cpus=TASK_CPUS,
        )
    )  # fmt: skip
    done = Embedded()
    # No prefetch: Ray would hand out a shard only when it has the next one.
    for batch in encoded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        [row] = batch.to_pylist()
        if row["fault"]:
            name, message = json.loads(row["fault"])
            raise getattr(errors, name)(message)
        before_commit()
        parts = [Part.from_json(line) for line in row["parts"].splitlines()]
        state.append("vectors", parts)
        done.texts += int(row["texts"])
        done.tokens += int(row["tokens"])
        done.failed |= {(team, content): reason for team, content, reason in json.loads(row["failed"])}
        if row["cost"]:
            done.cost = (done.cost or Cost()) + Cost(**json.loads(row["cost"]))
        progress(int(row["tokens"]))
        stored(Path(row["shard"]).name, parts)
        if stop():
            done.stopped = True
            break
    return done


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
    gpus = model.gpus_per_actor
    if gpus is None:
        uses_gpu = model.backend not in REMOTE and model.name not in OWN_ENGINES
        gpus = 1.0 if uses_gpu and cluster.get("GPU", 0.0) >= most else 0.0
    # Ray counts cores by what is asked for: without a share of their own, tasks would wait for ever for the actors.
    share = max(TASK_CPUS, cores * TASK_SHARE)
    cpus = TASK_CPUS if gpus or model.backend in REMOTE else math.floor((cores - share) / most * 100) / 100
    return ActorPool(least, most, cpus, gpus, model.threads or max(1, int(cores // most)), int(share / TASK_CPUS))


def _warm_up() -> None:
    """Have a Ray of our own start what each dataset needs, and import what ours does, while nobody waits for it."""
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

    import embedding.encoders.tokens  # noqa: F401


def _chosen(spec: EncoderSpec) -> EncoderSpec:
    """``choose`` in a process that ends with it: the gate loads two encoders, and this one should stay small."""
    import ray

    if not spec.takes_ids:
        open_encoder(spec)  # what is wrong with a service's settings is said here and not by every actor
        return spec
    try:
        return ray.get(ray.remote(num_cpus=0, max_calls=1)(choose).remote(spec))
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, EmbedmillError):
            raise error.cause from None
        raise
