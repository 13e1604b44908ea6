"""Embed: encode the plan's texts on Ray and store the vectors, shard by shard.

Three operators, joined by Ray's object store, whose size bounds what waits between them:

    cut texts into token ids (tasks) -> encode (actors, which touch no disk) -> write vectors (tasks)

A shard travels as one row, whose value is its table: Ray cuts what an operator returns at the size of a block, which
vectors of a wide model pass, and never inside a row.

A shard is committed to ``vectors`` as soon as it is written: a killed run loses the shards under way and no other, and
what waits for its vectors is told of it while the next ones are encoded. A text that raises or kills its actor is left
out and reported, and costs the others nothing.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Callable
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
from embedding.errors import EmbedmillError, EncoderError
from embedding.space import OWN_ENGINES
from jobs.attempts import Attempts
from jobs.engines import start_ray
from jobs.faults import without_messages
from jobs.pool import TASK_CPUS, actor_pool, warm_up
from jobs.shipping import in_a_row, one_by_one, out_of_a_row
from jobs.state import Part, State, write_part
from jobs.vectors import pack

if TYPE_CHECKING:
    from embedding.encoders import IdEncoder
    from embedding.encoders.tokens import Tokens
    from jobs.config import Config

_STRANGE = r"[^\x00-\x7f]|\S{100}"  # texts of other words than these are read by every tokenizer


@dataclass(slots=True)
class Embedded:
    """What the stage did: texts encoded, and those left out with their reason, by (team_id, content_hash).

    ``tokens`` are those of the texts, ``unreadable`` are texts that the model's tokenizer knows next to nothing of;
    ``stopped`` where it left off before the last shard. ``cost`` is what a managed model was asked for; None where the
    model is our own.
    """

    texts: int = 0
    tokens: int = 0
    unreadable: int = 0
    stopped: bool = False
    cost: Cost | None = None
    failed: dict[tuple[str, str], str] = field(default_factory=dict)


# -- on the workers ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _tokens(spec: EncoderSpec) -> Tokens:
    from embedding.encoders.tokens import Tokens

    return Tokens(spec.model, spec.max_tokens, spec.purpose if spec.takes_ids else None)


@without_messages()
def cut_shard(batch: pa.Table, spec: EncoderSpec) -> pa.Table:
    """``path`` of a shard to its rows (team_id, content_hash, tokens, and text, or ids where they do) in one.

    Beside them shard, which is the path, and unreadable: texts of which the tokenizer knows next to nothing.
    """

    def cut(row: pa.Table) -> pa.Table:
        path = row["path"][0].as_py()
        # partitioning=None: "shard=3" in the path is not a column of the texts
        shard = pq.read_table(path, partitioning=None)
        if not spec.takes_ids:
            return in_a_row(shard, shard=path, unreadable=_unreadable(shard["text"], spec))
        ids = _tokens(spec).ids(shard["text"].to_pylist())
        shard = shard.drop_columns(["text"]).append_column("ids", ids.to_arrow())
        return in_a_row(shard, shard=path, unreadable=_tokens(spec).unreadable(ids))

    return one_by_one(batch, cut)


def _unreadable(texts: pa.ChunkedArray, spec: EncoderSpec) -> int:
    """The same where texts are cut elsewhere: by the tokenizer that counts, of texts that may be meant."""
    if spec.backend in OWN_ENGINES or not (spec.model / "modules.json").is_file():
        return 0  # they know every byte
    meant = texts.filter(pc.match_substring_regex(texts, _STRANGE))
    tokens = _tokens(spec) if len(meant) else None
    return tokens.unreadable(tokens.ids(meant.to_pylist())) if tokens else 0


class EncodeShard:
    """Loads the encoder once, then turns shards into vectors."""

    def __init__(self, spec: EncoderSpec) -> None:
        from embedding.encoders import open_encoder

        self._encoder = open_encoder(spec)

    @without_messages()
    def __call__(self, batch: pa.Table) -> pa.Table:
        """Rows of ``cut_shard`` to shard, unreadable, rows, cost and fault.

        ``rows`` are team_id, content_hash, tokens, vector and reason ("" with a vector).
        """
        done = one_by_one(batch, self._shard)
        _give_back_memory()
        return done

    def _shard(self, row: pa.Table) -> pa.Table:
        name, fault = row["shard"][0].as_py(), ""
        shard = out_of_a_row(row)
        try:
            vectors, reasons = self._encode(shard, Path(name))
        except EmbedmillError as error:
            # Ray hands on an exception as text, so this one travels as a row and is raised again on the driver.
            fault = json.dumps([type(error).__name__, str(error)])
            shard, reasons = shard.slice(0, 0), []
            vectors = np.zeros((0, self._encoder.dim), np.float32)
        cost = json.dumps(asdict(self._encoder.take_cost())) if isinstance(self._encoder, RemoteEncoder) else ""
        rows = (
            shard.select(["team_id", "content_hash", "tokens"])
            .append_column("vector", pack(vectors))
            .append_column("reason", pa.array(reasons, pa.string()))
        )
        return in_a_row(rows, shard=name, unreadable=row["unreadable"][0].as_py(), cost=cost, fault=fault)

    def _encode(self, shard: pa.Table, path: Path) -> tuple[npt.NDArray[np.float32], list[str]]:
        attempts = Attempts(path.parent.parent / "attempts" / path.name)
        reasons = ["kills_encoder" if row in attempts.deadly else "" for row in range(len(shard))]
        alive = [row for row, reason in enumerate(reasons) if not reason]
        alone = attempts.one_by_one
        if not alone:
            attempts.begin()
        out = np.zeros((len(shard), self._encoder.dim), np.float32)
        for group in [[row] for row in alive] if alone else [alive]:
            if alone:
                attempts.begin_one(group[0])
            out[group], good = self._encode_apart(shard if len(group) == len(shard) else shard.take(group))
            for row in np.array(group)[~good]:
                reasons[row] = "encoder_fails"
        if reasons and all(reasons) and "encoder_fails" in reasons:
            self._check_alive(len(reasons))
        return out, reasons

    def _check_alive(self, count: int) -> None:
        """Raise EncoderError where not even a plain text is encoded: then no text is to blame."""
        if isinstance(self._encoder, RemoteEncoder):
            return  # it has asked before it blamed one
        encoder = self._encoder
        _, good = encode_apart(lambda start, stop: encoder.encode(["ok"], np.array([3])), 1, encoder.dim)
        if not good.all():
            raise EncoderError(f"the encoder fails on all of {count} texts, and on a plain one")

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
def write_shard(batch: pa.Table, root: str, space_id: str, run_id: str) -> pa.Table:
    """Store shards' vectors as files that the driver commits.

    Returns a row for each: shard, parts (lines), texts, tokens, unreadable; failed, cost and fault as JSON.
    """

    def write(row: pa.Table) -> pa.Table:
        rows = out_of_a_row(row)
        good = pc.equal(rows["reason"], "")
        kept = rows.filter(good).select(["team_id", "content_hash", "vector"])
        for name, value in (("space_id", space_id), ("run_id", run_id)):
            kept = kept.append_column(name, pa.array([value] * len(kept), pa.string()))
        parts = write_part(root, "vectors", kept) if len(kept) else []
        left_out = rows.filter(pc.invert(good)).select(["team_id", "content_hash", "reason"]).to_pylist()
        return (
            row.drop_columns(["rows"])
            .append_column("parts", [["\n".join(part.to_json() for part in parts)]])
            .append_column("texts", [[len(kept)]])
            .append_column("tokens", [[pc.sum(rows["tokens"]).as_py() or 0]])
            .append_column("failed", [[json.dumps([list(one.values()) for one in left_out])]])
        )

    return one_by_one(batch, write)


# -- on the driver -----------------------------------------------------------------------------------------------------


def ready(config: Config, state: State, spec: EncoderSpec) -> EncoderSpec:
    """Start Ray and settle what encodes: ``spec`` with backend and precision, for ``embed``."""
    start_ray(config, state.engines)
    chosen = _chosen(spec)
    if config.ray.address == "local":
        warm_up()
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
    done, seen = Embedded(), 0
    # No prefetch: Ray would hand out a shard only when it has the next one.
    batches = encoded.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for row in (row for batch in batches for row in batch.to_pylist()):
        if row["fault"]:
            name, message = json.loads(row["fault"])
            raise getattr(errors, name)(message)
        before_commit()
        parts = [Part.from_json(line) for line in row["parts"].splitlines()]
        state.append("vectors", parts)
        done.texts += int(row["texts"])
        done.tokens += int(row["tokens"])
        done.unreadable += int(row["unreadable"])
        seen += 1
        done.failed |= {(team, content): reason for team, content, reason in json.loads(row["failed"])}
        if row["cost"]:
            done.cost = (done.cost or Cost()) + Cost(**json.loads(row["cost"]))
        progress(int(row["tokens"]))
        stored(Path(row["shard"]).name, parts)
        if stop():
            done.stopped = True
            break
    if not done.stopped and seen != len(shards):
        raise EmbedmillError(f"{seen} of {len(shards)} shards of texts came back from the encoder; run again")
    return done


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
