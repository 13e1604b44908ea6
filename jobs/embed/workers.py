"""What runs in Ray workers: token ids, the encoding actor, and the writing of vectors."""

from __future__ import annotations

import json
import os
import resource
import socket
import time
from collections.abc import Container
from dataclasses import asdict
from functools import lru_cache
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding.encoders.backends import takes_ids
from embedding.encoders.bisection import encode_with_bisection
from embedding.encoders.remote.batch import BatchJobs
from embedding.encoders.remote.cost import Cost
from embedding.encoders.remote.encoder import RemoteEncoder
from embedding.encoders.spec import EncoderSpec
from embedding.errors import EmbedmillError, EncoderError
from embedding.models.packaged import OWN_ENGINES
from embedding.tokens.token_ids import TokenIds
from jobs.embed.attempt_log import Attempts
from jobs.embed.spending import SPENT, Spending
from jobs.embed.table_transport import in_a_row, one_by_one, out_of_a_row
from jobs.engines.memory import give_back_memory
from jobs.state.parts import write_part
from jobs.state.vector_column import pack
from jobs.telemetry.error_reporting import fault_to_bytes, without_messages

if TYPE_CHECKING:
    from embedding.encoders.base import IdEncoder
    from embedding.tokens.tokenizer import Tokens
    from jobs.state.staging import Staged
    from jobs.state.storage import StatePath


_STRANGE = r"[^\x00-\x7f]|\S{100}"  # texts of other words than these are read by every tokenizer


@lru_cache(maxsize=1)
def _tokens(spec: EncoderSpec) -> Tokens:
    from embedding.tokens.tokenizer import Tokens

    spec.fetch()
    purpose = spec.purpose if takes_ids(spec.backend) else None
    return Tokens(spec.model, spec.max_tokens, purpose, spec.prompts)


@without_messages()
def cut_shard(batch: pa.Table, texts: Staged, spec: EncoderSpec) -> pa.Table:
    """Cut a ``shard`` of texts into rows (team_id, content_hash, tokens, and text, or ids where they do) in one row.

    Beside them are shard, its name ("shard=3"), and unreadable: texts of which the tokenizer knows next to nothing.
    """

    def cut(row: pa.Table) -> pa.Table:
        name = row["shard"][0].as_py()
        shard = texts.within(name).table()
        if not takes_ids(spec.backend):
            return in_a_row(shard, shard=name, unreadable=_unreadable(shard["text"], spec))
        ids = _tokens(spec).ids(shard["text"].to_pylist())
        shard = shard.drop_columns(["text"]).append_column("ids", ids.to_arrow())
        return in_a_row(shard, shard=name, unreadable=_tokens(spec).unreadable(ids))

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
        from embedding.encoders.choose import open_encoder

        self._encoder = open_encoder(spec)
        remote = spec.remote
        self._max_usd = remote.max_usd if remote else None
        self._batch = BatchJobs(remote, spec.owner) if remote and remote.batch else None

    @without_messages()
    def __call__(self, batch: pa.Table, attempts: StatePath) -> pa.Table:
        """Rows of ``cut_shard`` to shard, unreadable, rows, cost, timing, fault. Attempt logs are below ``attempts``.

        ``rows`` are team_id, content_hash, tokens, vector and reason ("" with a vector).
        """
        done = one_by_one(batch, lambda row: self._shard(row, attempts))
        give_back_memory()
        return done

    def _shard(self, row: pa.Table, attempts: StatePath) -> pa.Table:
        name, fault, began = row["shard"][0].as_py(), b"", time.time_ns()
        shard = out_of_a_row(row)
        spending = Spending(attempts.parent / SPENT, self._max_usd)
        try:
            spending.check()
            vectors, reasons = self._encode(shard, Attempts(attempts / name))
        except EmbedmillError as error:
            # Ray hands on an exception as text. This one travels in the row, and the driver raises it as it is.
            fault = fault_to_bytes(error)
            shard, reasons = shard.slice(0, 0), []
            vectors = np.zeros((0, self._encoder.dim), np.float32)
        remote = self._encoder if isinstance(self._encoder, RemoteEncoder) else None
        rows = (
            shard.select(["team_id", "content_hash", "tokens"])
            .append_column("vector", pack(vectors))
            .append_column("reason", pa.array(reasons, pa.string()))
        )
        spent = remote.take_cost() if remote else None
        if spent is not None:
            spent += self._batch.take_cost() if self._batch else Cost()
            spending.note(name, spent.usd)
        cost = json.dumps(asdict(spent)) if spent else ""
        timing = json.dumps(
            {
                "began": began,
                "ended": time.time_ns(),
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "cpu": round(time.process_time(), 3),
                "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "lengths": _lengths(rows["tokens"]),
                "encoder": self._encoder.name,
                "requests": remote.take_requests() if remote else [],
                "batch_jobs": self._batch.take_done() if self._batch else [],
            }
        )
        return in_a_row(
            rows, shard=name, unreadable=row["unreadable"][0].as_py(), cost=cost, timing=timing, fault=fault
        )

    def _encode(self, shard: pa.Table, attempts: Attempts) -> tuple[npt.NDArray[np.float32], list[str]]:
        reasons = ["kills_encoder" if row in attempts.poisonous else "" for row in range(len(shard))]
        alive = [row for row, reason in enumerate(reasons) if not reason]
        alone = attempts.one_by_one
        if not alone:
            attempts.begin()
        out = np.zeros((len(shard), self._encoder.dim), np.float32)
        if self._batch is not None:
            done = self._from_batch(self._batch, shard, alive, out)
            alive = [row for row in alive if row not in done]
        groups = [[row] for row in alive] if alone else [alive]
        for group in groups if alive else ():
            if alone:
                attempts.begin_one(group[0])
            out[group], good = self._encode_with_bisection(shard if len(group) == len(shard) else shard.take(group))
            for row in np.array(group)[~good]:
                reasons[row] = "encoder_fails"
        if reasons and all(reasons) and "encoder_fails" in reasons:
            self._check_alive(len(reasons))
        return out, reasons

    @staticmethod
    def _from_batch(batch: BatchJobs, shard: pa.Table, rows: list[int], out: npt.NDArray[np.float32]) -> Container[int]:
        """Fill the rows that batch jobs encode, and return them; the others are asked online."""
        some = shard.select(["team_id", "content_hash", "text"]).take(rows).to_pylist()
        keys = [f"{one['team_id']} {one['content_hash']}" for one in some]
        found = batch.encode(keys, [one["text"] for one in some])
        for place, vector in found.items():
            out[rows[place]] = vector
        return {rows[place] for place in found}

    def _check_alive(self, count: int) -> None:
        """Raise EncoderError where not even a plain text is encoded: then no text is to blame."""
        if isinstance(self._encoder, RemoteEncoder):
            return  # it has asked before it blamed one
        encoder = self._encoder
        _, good = encode_with_bisection(lambda start, stop: encoder.encode(["ok"], np.array([3])), 1, encoder.dim)
        if not good.all():
            raise EncoderError(f"the encoder fails on all of {count} texts, and on a plain one")

    def _encode_with_bisection(self, rows: pa.Table) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        if "ids" in rows.column_names:
            local = cast("IdEncoder", self._encoder)
            ids = TokenIds.from_arrow(rows["ids"].combine_chunks())
            return encode_with_bisection(
                lambda start, stop: local.encode_ids(ids.part(start, stop)), len(rows), local.dim
            )
        texts, tokens = rows["text"].to_pylist(), rows["tokens"].to_numpy()
        encoder = self._encoder
        return encode_with_bisection(
            lambda start, stop: encoder.encode(texts[start:stop], tokens[start:stop]), len(rows), encoder.dim
        )


def _lengths(tokens: pa.ChunkedArray) -> dict[str, int]:
    """Texts by the power of two of their tokens."""
    powers = np.log2(np.maximum(tokens.to_numpy(), 1)).astype(int)
    found, counts = np.unique(powers, return_counts=True)
    return {str(power): int(count) for power, count in zip(found, counts, strict=True)}


@without_messages()
def write_shard(batch: pa.Table, root: StatePath, space_id: str, run_id: str) -> pa.Table:
    """Store shards' vectors as files that the driver commits.

    Returns a row for each: shard, parts (lines), texts, tokens, unreadable; failed, cost and timing as JSON, fault as a
    pickled EmbedmillError or empty.
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
