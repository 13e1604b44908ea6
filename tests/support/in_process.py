"""A pipeline whose whole work is done in this process, and which can be told to die at any of its writes.

Everything is real but for two parts: vectors are served by the exact index, and the functions that Ray runs on its
workers are called one after the other here. A run of a few documents then costs what Spark costs.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.encoders.spec import EncoderSpec
from indexers import exact
from indexers.exact import ExactIndex
from jobs.cli.app import script
from jobs.config import load_config
from jobs.embed.embed import ATTEMPTS, TEXTS, embed
from jobs.embed.stored_shard import StoredShard
from jobs.embed.workers import EncodeShard, cut_shard, write_shard
from jobs.maintenance import erase
from jobs.pipeline import Pipeline
from jobs.state.parts import Part
from jobs.state.staging import staged
from jobs.state.store import State
from jobs.telemetry.error_reporting import fault_from_bytes
from jobs.telemetry.progress import Progress
from tests.support.workspace import Workspace, copied

_ON_RAY, _START_ENCODING, _ENCODING = embed, Pipeline.start_encoding, Pipeline.encoding
_ENCODES_ALONE = Pipeline.encodes_alone


class Killed(BaseException):
    """The process has died. Nothing but its caller may catch it."""


@dataclass(frozen=True)
class Write:
    """One write: where to, of which index version, and the keys that it put there and ``removed``.

    Keys are chunk ids; of vectors (team, content hash), of dropped ledger rows (version, chunk id). ``rows`` are those
    of the other tables. ``done`` is false of the write that the process died ahead of; ``purging`` says for what it was.
    """

    where: str
    version: str = ""
    keys: frozenset[Any] = frozenset()
    removed: frozenset[Any] = frozenset()
    rows: tuple[dict[str, Any], ...] = ()
    done: bool = True
    purging: bool = False


@dataclass
class Death:
    """At which write the process dies, from 1, and whether that write still happens; 0 is never. ``writes`` so far.

    ``ahead_of`` names a place: it dies ahead of its first write there, or the first after one to ``once``.
    """

    at: int = 0
    after: bool = True
    ahead_of: str = ""
    once: str = ""
    writes: list[Write] = field(default_factory=list)
    purging: bool = False
    dead: bool = False

    @contextmanager
    def around(self, write: Callable[[], Write]) -> Iterator[None]:
        if self.dead:  # what a dying process still tries
            raise Killed
        begun = not self.once or any(done.where == self.once for done in self.writes)
        ahead = bool(self.ahead_of) and begun and write().where == self.ahead_of
        self.dead = fatal = ahead or len(self.writes) + 1 == self.at
        if ahead or fatal and not self.after:
            self.writes.append(replace(write(), done=False, purging=self.purging))
            raise Killed
        yield
        self.writes.append(replace(write(), purging=self.purging))
        if fatal:
            raise Killed


GROWING = {"chunks", "published", "removals", "vectors"}  # tables with a row a chunk or document


def tables_loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the tables that the product loads whole from now on; the list grows."""
    whole: list[str] = []
    real = State.read

    def watched(state: State, name: str, *given: Any, **named: Any) -> Any:
        if sys._getframe(1).f_globals["__name__"].startswith("jobs."):  # not the double's own look at the keys
            whole.append(name)
        return real(state, name, *given, **named)

    monkeypatch.setattr(State, "read", watched)
    return whole


class WatchedIndex(ExactIndex):
    """The exact index, whose writes may be fatal."""

    death = Death()

    def upsert(self, version: str, rows: pa.RecordBatch | pa.Table) -> list[str]:
        keys = frozenset(rows["chunk_id"].to_pylist())
        with self.death.around(lambda: Write("index", version, keys)):
            return super().upsert(version, rows)

    def delete(self, version: str, chunk_ids: Sequence[str]) -> None:
        with self.death.around(lambda: Write("index", version, removed=frozenset(chunk_ids))):
            super().delete(version, chunk_ids)

    def point_alias(self, version: str) -> None:
        with self.death.around(lambda: Write("alias", version)):
            super().point_alias(version)


class WatchedState(State):
    """The state, whose commits may be fatal."""

    death = Death()

    def append(self, name: str, parts: Sequence[Part]) -> None:
        with self.death.around(lambda: _added(self, name, parts)):
            super().append(name, parts)

    def merge(self, name: str, rows: pa.Table | pa.RecordBatchReader, *, only: Sequence[str] = ()) -> None:
        table = rows if isinstance(rows, pa.Table) else rows.read_all()
        with self.death.around(lambda: _merged(name, table, only)):
            super().merge(name, table, only=only)

    def drop(self, name: str, where: str) -> int:
        return self._dropped(name, lambda: super(WatchedState, self).drop(name, where))

    def drop_rows(self, name: str, team: str, column: str, values: Collection[str]) -> int:
        if not values:
            return 0
        return self._dropped(name, lambda: super(WatchedState, self).drop_rows(name, team, column, values))

    def _dropped(self, name: str, drop: Callable[[], int]) -> int:
        before = _keys(self, name)
        gone: frozenset[Any] = frozenset()

        def write() -> Write:
            return Write(name, removed=gone)

        with self.death.around(write):
            count = drop()
            gone = before - _keys(self, name)
        return count


def _added(state: State, name: str, parts: Sequence[Part]) -> Write:
    rows = [
        part.partition | row
        for part in parts
        for row in pq.read_table(state.root / name / part.path, partitioning=None).to_pylist()
    ]
    if name == "vectors":
        return Write(name, keys=frozenset((r["team_id"], r["content_hash"]) for r in rows))
    return Write(name, rows[0].get("index", ""), frozenset(r["chunk_id"] for r in rows)) if rows else Write(name)


def _merged(name: str, rows: pa.Table, only: Sequence[str]) -> Write:
    listed = rows.to_pylist()
    if only:
        return Write("doubt", listed[0]["index"], frozenset(r["chunk_id"] for r in listed))
    if name not in ("chunks", "published"):
        return Write(name, rows=tuple(listed))
    version = listed[0].get("index", "") if listed else ""
    kept = frozenset(r["chunk_id"] for r in listed if not r["_delete"])
    return Write(name, version, kept, frozenset(r["chunk_id"] for r in listed if r["_delete"]))


def _keys(state: State, name: str) -> frozenset[Any]:
    columns = {"chunks": ["chunk_id"], "vectors": ["team_id", "content_hash"], "published": ["index", "chunk_id"]}
    if name not in columns:
        return frozenset()
    rows = state.read(name, columns[name]).to_pylist()
    return frozenset(r["chunk_id"] if name == "chunks" else tuple(r.values()) for r in rows)


def embed_here(
    config: Any,
    state: State,
    spec: EncoderSpec,
    *,
    run_id: str,
    space_id: str,
    before_commit: Callable[[], None],
) -> Iterator[StoredShard]:
    """``jobs.embed.embed.embed`` without Ray: the same functions, shard after shard. Raises the fault of a shard."""
    encode = EncodeShard(spec)
    texts, attempts = staged(state.work(run_id) / TEXTS), state.work(run_id) / ATTEMPTS
    for name in texts.folders:
        rows = cut_shard(pa.table({"shard": [name]}), texts, spec)
        [written] = write_shard(encode(rows, attempts), state.root, space_id, run_id).to_pylist()
        if written["fault"]:
            raise fault_from_bytes(written["fault"])
        before_commit()
        shard = StoredShard.of_row(written)
        state.append("vectors", shard.parts)
        yield shard


class Here(ThreadPoolExecutor):
    """Does at once what it is given, in the thread that gives it: the order of all writes is then the same each time."""

    def submit(self, work: Callable[..., Any], /, *given: Any, **named: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(work(*given, **named))
        return done


@contextmanager
def encoding_here() -> Iterator[None]:
    """Have ``jobs.steps`` embed in this process; all else, the index among it, stays as it is."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jobs.embed.embed.embed", embed_here)
        patched.setattr(Pipeline, "start_encoding", lambda pipeline, reading: None)
        patched.setattr(Pipeline, "encodes_alone", lambda pipeline, shards, tokens: False)
        patched.setattr(Pipeline, "encoding", Pipeline.encoder)
        yield


@contextmanager
def encoding_on_ray() -> Iterator[None]:
    """Within ``encoding_here``, as it is in the program."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("jobs.embed.embed.embed", _ON_RAY)
        patched.setattr(Pipeline, "start_encoding", _START_ENCODING)
        patched.setattr(Pipeline, "encodes_alone", _ENCODES_ALONE)
        patched.setattr(Pipeline, "encoding", _ENCODING)
        yield


@contextmanager
def without_ray() -> Iterator[None]:
    """``encoding_here``, with all writes in one order; purges say that a write is theirs."""
    real = erase.carry_out

    def carry_out(pipeline: Pipeline, *given: Any) -> Any:
        death = cast(WatchedState, pipeline.state).death
        death.purging = True
        found = real(pipeline, *given)
        death.purging = False
        return found

    with encoding_here(), pytest.MonkeyPatch.context() as patched:
        patched.setattr(erase, "carry_out", carry_out)
        patched.setattr("jobs.publish.shard_queue.ThreadPoolExecutor", Here)
        yield


def open_pipeline(config: Path, death: Death | None = None) -> Pipeline:
    """A pipeline as a new process would open it. Its exact index is found again by the path of the configuration."""
    pipeline = Pipeline(load_config(config), Progress())
    index = WatchedIndex(pipeline.config.index_uri, pipeline.config.index.name)
    state = WatchedState(
        pipeline.state.root, cut=pipeline.state.cut, hash_key=pipeline.config.state.hash_key.get_secret_value()
    )
    index.death = state.death = death or Death()
    pipeline._index, pipeline.state = index, state
    pipeline.close = lambda: None  # type: ignore[method-assign]  # replaced, for this pipeline alone
    pipeline.has_index = lambda: True  # type: ignore[method-assign]  # the same
    return pipeline


def copy_index(old: Path, new: Path) -> None:
    """What a copy of a workspace needs beside its files."""
    uris = [str(load_config(config).index_uri) for config in (old, new)]
    exact._STORES[uris[1]] = copy.deepcopy(exact._STORES[uris[0]])


def copied_with_index(space: Workspace, root: Path) -> Workspace:
    """A copy of a workspace and of its index in this process."""
    new = copied(space, root)
    copy_index(space.config, new.config)
    return new


if __name__ == "__main__":  # the command line, for a process of its own that starts no Ray
    with encoding_here():
        script()
