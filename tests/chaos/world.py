"""What chaos happens to: one source, and two states over it of which only one suffers; and how they are compared."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from indexers.base import Index
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.state.store import State
from jobs.telemetry.progress import Progress
from tests.support.paths import BY_SPARK, ON_RAY
from tests.support.workspace import LARGE, Workspace, message

SHARD_ROWS = 40  # small, so that a fault meets every step half done
VERSION = "messages__v1"


@dataclass(frozen=True)
class Load:
    """How much a world holds at first, how much each change posts and deletes, and what encodes it."""

    messages: int = 400
    words: tuple[int, int] = (3, 20)
    posts: tuple[int, int] = (60, 160)
    deletes: int = 40  # of each channel, at most
    backend: str = "hash"
    shard_tokens: int = 700


SHORT = Load()
# What counts here is the encoder: five shards a change, of which each takes it a good part of a second.
ENCODING = Load(messages=300, words=(150, 200), posts=(480, 560), deletes=250, backend="auto", shard_tokens=20_000)


@dataclass
class Outcome:
    """What came of one kind of fault. ``repeated`` is the largest number of shards that one fault had encoded anew,
    those included that were not encoded to their end."""

    tried: int = 0
    missed: int = 0  # the run had ended before the fault came
    lost: int = 0
    doubled: int = 0
    ghosts: int = 0
    resurrected: int = 0
    wrong: int = 0  # the id is right, its hash or vector is not
    repeated: int = 0
    compared: int = 0

    @property
    def bad(self) -> int:
        """Everything that must be 0."""
        return self.lost + self.doubled + self.ghosts + self.resurrected + self.wrong


class World:
    """One source and the two states over it, which changes in the same random way for both."""

    def __init__(self, root: Path, seed: int, *, uri: str = "", load: Load = SHORT, engines: str = "") -> None:
        """``uri`` is the hit state's server; its runs start the ``engines`` that are named, small as they are."""
        self.random = random.Random(seed)
        self.load = load
        self.hit = Workspace(root / "hit", backend=load.backend)
        self.calm = Workspace(root / "calm", backend=load.backend)
        for space in (self.hit, self.calm):
            self._configure(space, uri if space is self.hit else "", engines if space is self.hit else "")
        (root / "calm" / "state").mkdir(mode=0o700)
        State(root / "hit" / "state", fence=1)
        shutil.copy(root / "hit" / "state" / "hash.key", root / "calm" / "state" / "hash.key")  # so that hashes compare
        self._said: dict[str, dict[int, str]] = {"general": {}, "random": {}}
        self._known: set[str] = set()  # every key that was ever in the index
        self._deleted: set[str] = set()
        self._clock = 0
        self.usual_seconds = 20.0
        self.orphans: list[tuple[float, psutil.Process]] = []  # of killed runs, and when they must be gone
        for _ in range(load.messages):
            self._post()
        self._write()

    def _configure(self, space: Workspace, uri: str, engines: str) -> None:
        text = space.config.read_text()
        if "Spark" in engines:
            text = text.replace("[spark]\n", BY_SPARK)
        if "Ray" in engines:
            text = text.replace("[model]\n", f"{ON_RAY}[model]\n")
        for name in ("export", "files"):
            text = text.replace(f'uri = "{name}"', f'uri = "{self.hit.root / name}"')
        text = text.replace("[model]\n", f"[model]\nshard_tokens = {self.load.shard_tokens}\n")
        text += f"[index]\nshard_rows = {SHARD_ROWS}\n" + (f'uri = "{uri}"\n' if uri else "")
        space.config.write_text(text + "[state]\nlease_seconds = 60\n")

    # -- the source ----------------------------------------------------------------------------------------------------

    def _post(self) -> None:
        self._clock += 1
        folder = self.random.choice(list(self._said))
        self._said[folder][self._clock] = self._text()

    def _text(self) -> str:
        words = ("parcel", "locker", "harbour", "key", "backup", "disk", "kitchen", "noon", "signing", "door")
        return (
            " ".join(self.random.choices(words, k=self.random.randint(*self.load.words)))
            + f" {self.random.randint(0, 10**9)}"
        )

    def change(self) -> None:
        """Post, edit and delete, enough for several shards."""
        for _ in range(self.random.randint(*self.load.posts)):
            self._post()
        for said in self._said.values():
            for ts in self.random.sample(sorted(said), k=min(len(said) - 1, 15)):
                said[ts] = self._text()
            for ts in self.random.sample(sorted(said), k=max(0, min(self.load.deletes, len(said) - 150))):
                del said[ts]
        self._write()

    def _write(self) -> None:
        for folder, said in self._said.items():
            self.hit.day(folder, [message(ts, text, **LARGE) for ts, text in sorted(said.items())])

    # -- runs ----------------------------------------------------------------------------------------------------------

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A run of the hit state as a process of its own."""
        command = [sys.executable, "-m", "jobs.cli", "run", "--allow-mass-delete", "--json", *arguments]
        return subprocess.Popen(
            [*command, "--config", str(self.hit.config)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=os.environ | (environment or {}),
        )

    def recover(self, outcome: Outcome) -> None:
        """Run again, let the calm state catch up, and compare."""
        outcome.compared += 1
        again = self.hit.run("--allow-mass-delete", "--wait", "90")
        assert again.code == 0, again
        calm = self.calm.run("--allow-mass-delete")
        assert calm.code == 0, calm
        assert again.body["chunks"]["total"] == calm.body["chunks"]["total"] > 0
        self.compare(outcome)
        verified = self.hit.verify()
        outcome.wrong += sum(verified.body["differences"].values()) + (verified.code != 0)
        self.orphans = [(due, process) for due, process in self.orphans if lives(process)]
        late = [process.name() for due, process in self.orphans if time.monotonic() > due]
        assert not late, f"outlive their killed run: {late}"

    def compare(self, outcome: Outcome) -> None:
        (held, hit), (wanted, calm) = _contents(self.hit), _contents(self.calm)
        outcome.lost += len(wanted.keys() - held.keys())
        ghosts = held.keys() - wanted.keys()
        outcome.ghosts += len(ghosts)
        outcome.resurrected += len(ghosts & self._deleted)
        outcome.wrong += sum(held[k] != wanted[k] for k in held.keys() & wanted.keys())
        outcome.wrong += sum(not np.allclose(hit[k], calm[k], atol=1e-6) for k in hit.keys() & calm.keys())
        outcome.doubled += _doubled(self.hit)
        self._known |= wanted.keys()
        self._deleted = self._known - wanted.keys()

    def encoding(self) -> bool:
        """Whether a run has begun to encode a shard."""
        return any((self.hit.root / "state").glob("work/*/attempts/shard=*"))

    def stored(self) -> set[str]:
        """The texts that have a vector."""
        return set(State(self.hit.root / "state").read("vectors", ["content_hash"])["content_hash"].to_pylist())

    def indexed(self) -> set[str]:
        """The texts that the index has a row of."""
        with _index(self.hit) as index:
            return {row["content_hash"] for row in _rows(index)}

    def repeated(self) -> int:
        """Shards that a run which died had begun to encode and not stored: what the next one does once more."""
        state, stored, count = State(self.hit.root / "state"), self.stored(), 0
        for diary in state.root.glob("work/*/attempts/shard=*"):
            folder = diary.parent.parent / "texts" / diary.name
            texts = pa.concat_tables([pq.read_table(f, partitioning=None) for f in folder.glob("*.parquet")] or [_NONE])
            count += not stored.issuperset(texts["content_hash"].to_pylist())
        return count


def lives(process: psutil.Process) -> bool:
    """Whether a process is there and not only waiting to be buried."""
    try:  # a container's first process may never bury the dead
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


_NONE = pa.table({"content_hash": pa.array([], pa.string())})


@contextmanager
def _index(space: Workspace) -> Iterator[Index]:
    pipeline = Pipeline(load_config(space.config), Progress())
    try:
        yield pipeline.index()
    finally:
        pipeline.close()


def _rows(index: Index) -> list[dict[str, str]]:
    return [row for batch in index.scan(VERSION) for row in batch.to_pylist()]


def _contents(space: Workspace) -> tuple[dict[str, tuple[str, str, str]], dict[str, np.ndarray]]:
    """What an index holds: by chunk id its team, content and metadata; and its vectors."""
    with _index(space) as index:
        rows = _rows(index)
        found = {r["chunk_id"]: (r["team_id"], r["content_hash"], r["meta_hash"]) for r in rows}
        assert index.count(VERSION) == len(rows)
        return found, index.fetch_vectors(VERSION, sorted(found))


def _doubled(space: Workspace) -> int:
    """Rows of index, ledger, texts and vectors beyond one for each key."""
    state = State(space.root / "state")
    count = 0
    for name, key in (("published", "chunk_id"), ("chunks", "chunk_id"), ("vectors", "content_hash")):
        rows = state.read(name, [key])[key]
        count += len(rows) - len(rows.unique())
    with _index(space) as index:
        ids = [row["chunk_id"] for row in _rows(index)]
    return count + len(ids) - len(set(ids))
