"""Chaos: runs that are killed, starved, cut off and raced at random moments, and then simply run again.

    make chaos                                        # 200 kills and every other fault ten times: about two hours
    make chaos ARGS="--kills 3 --others 1"            # a look at each

Two states over one source: the ``hit`` one suffers, the ``calm`` one is never disturbed. After each fault the hit one is
run again, and every id, hash and vector of its index, its ledger and its texts must be those of the calm one. A run that
goes on after a kill is itself killed, up to twice. The figures are kept in a file after each fault, and a series that
was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from jobs.config import load_config
from jobs.engines import quiet_engines
from jobs.mill import Mill
from jobs.progress import Progress
from jobs.state import State
from tests.milvus_server import MilvusServer
from tests.proxy import Proxy
from tests.workspace import Workspace, message

MESSAGES = 400
SHARD_TOKENS, SHARD_ROWS = 700, 40  # small, so that a fault meets every step half done
VERSION = "messages__v1"
_WAIT_SECONDS = 120.0

# What a process is called by its command line; the first that matches.
_PROCESSES = {
    "Spark's JVM": "org.apache.spark.deploy.SparkSubmit",
    "a Spark worker": "pyspark.daemon",
    "Ray's raylet": "/raylet/raylet",
    "Ray's GCS": "gcs_server",
    "an encode actor": "ray::MapWorker(MapBatches(EncodeShard",
    "a Ray worker": "ray::",
}
# Moves the clock of every Python process below a command.
_CLOCK = """
import os, time
_by = float(os.environ["CHAOS_CLOCK_SECONDS"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _by
time.time_ns = lambda: _time_ns() + int(_by * 1e9)
"""


@dataclass
class Outcome:
    """What came of one kind of fault. ``repeated`` is the largest number of shards that one fault had encoded anew."""

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

    def __init__(self, root: Path, seed: int, *, uri: str = "") -> None:
        self.random = random.Random(seed)
        self.hit = Workspace(root / "hit")
        self.calm = Workspace(root / "calm")
        for space in (self.hit, self.calm):
            self._configure(space, uri if space is self.hit else "")
        (root / "calm" / "state").mkdir(mode=0o700)
        State(root / "hit" / "state")
        shutil.copy(root / "hit" / "state" / "hash.key", root / "calm" / "state" / "hash.key")  # so that hashes compare
        self._said: dict[str, dict[int, str]] = {"general": {}, "random": {}}
        self._known: set[str] = set()  # every key that was ever in the index
        self._deleted: set[str] = set()
        self._clock = 0
        self.usual_seconds = 20.0
        self.orphans: list[tuple[float, psutil.Process]] = []  # of killed runs, and when they must be gone
        for _ in range(MESSAGES):
            self._post()
        self._write()

    def _configure(self, space: Workspace, uri: str) -> None:
        text = space.config.read_text()
        for name in ("export", "files"):
            text = text.replace(f'uri = "{name}"', f'uri = "{self.hit.root / name}"')
        text = text.replace("[model]\n", f"[model]\nshard_tokens = {SHARD_TOKENS}\n")
        text += f"[index]\nshard_rows = {SHARD_ROWS}\n" + (f'uri = "{uri}"\n' if uri else "")
        space.config.write_text(text + "[state]\nlease_seconds = 60\n")

    # -- the source ----------------------------------------------------------------------------------------------------

    def _post(self) -> None:
        self._clock += 1
        folder = self.random.choice(list(self._said))
        self._said[folder][self._clock] = self._text()

    def _text(self) -> str:
        words = ("parcel", "locker", "harbour", "key", "backup", "disk", "kitchen", "noon", "signing", "door")
        return " ".join(self.random.choices(words, k=self.random.randint(3, 20))) + f" {self.random.randint(0, 10**9)}"

    def change(self) -> None:
        """Post, edit and delete, enough for several shards."""
        for _ in range(self.random.randint(60, 160)):
            self._post()
        for said in self._said.values():
            for ts in self.random.sample(sorted(said), k=min(len(said) - 1, 15)):
                said[ts] = self._text()
            for ts in self.random.sample(sorted(said), k=max(0, min(40, len(said) - 150))):
                del said[ts]
        self._write()

    def _write(self) -> None:
        for folder, said in self._said.items():
            self.hit.day(folder, [message(ts, text) for ts, text in sorted(said.items())])

    # -- runs ----------------------------------------------------------------------------------------------------------

    def start(self, *arguments: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A run of the hit state as a process of its own."""
        command = [sys.executable, "-m", "jobs.cli", "run", "--allow-mass-delete", "--json", *arguments]
        return subprocess.Popen(
            [*command, "--config", str(self.hit.config)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env=os.environ | (environment or {}),
        )  # fmt: skip

    def settle(self, outcome: Outcome) -> None:
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

    def repeated(self) -> int:
        """Shards that a run which died had begun to encode and not stored: what the next one does once more."""
        state = State(self.hit.root / "state")
        stored = set(state.read("vectors", ["content_hash"])["content_hash"].to_pylist())
        count = 0
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


def _contents(space: Workspace) -> tuple[dict[str, tuple[str, str, str]], dict[str, np.ndarray]]:
    """What an index holds: by chunk id its team, content and metadata; and its vectors."""
    mill = Mill(load_config(space.config), Progress())
    try:
        rows = [row for batch in mill.index().scan(VERSION) for row in batch.to_pylist()]
        found = {r["chunk_id"]: (r["team_id"], r["content_hash"], r["meta_hash"]) for r in rows}
        assert mill.index().count(VERSION) == len(rows)
        return found, mill.index().fetch_vectors(VERSION, sorted(found))
    finally:
        mill.close()


def _doubled(space: Workspace) -> int:
    """Rows of index, ledger, texts and vectors beyond one for each key."""
    state = State(space.root / "state")
    count = 0
    for name, key in (("published", "chunk_id"), ("chunks", "chunk_id"), ("vectors", "content_hash")):
        rows = state.read(name, [key])[key]
        count += len(rows) - len(rows.unique())
    mill = Mill(load_config(space.config), Progress())
    try:
        ids = [i for batch in mill.index().scan(VERSION) for i in batch["chunk_id"].to_pylist()]
    finally:
        mill.close()
    return count + len(ids) - len(set(ids))


# -- faults: each lets a run begin, strikes once, and returns whether it met it --------------------------------------------


def kill_driver(world: World) -> bool:
    """SIGKILL to the command itself at a random moment of a usual run."""
    run = world.start()
    try:
        run.wait(world.random.uniform(0.3, world.usual_seconds))
    except subprocess.TimeoutExpired:
        _end(world, run)
        return True
    _end(world, run)
    return False


def kill_process(name: str) -> Callable[[World], bool]:
    """SIGKILL to one of the engines' processes at a random moment of its life, which is learnt by missing it."""
    life = 1 / 3  # of a usual run

    def strike(world: World) -> bool:
        nonlocal life
        run = world.start()
        deadline = time.monotonic() + _WAIT_SECONDS
        delay: float | None = None
        while run.poll() is None and time.monotonic() < deadline:
            found = _children(run.pid, name)
            if found and delay is None:
                delay = time.monotonic() + world.random.uniform(0, world.usual_seconds * life)
            if found and delay is not None and time.monotonic() >= delay:
                with suppress(psutil.NoSuchProcess):
                    world.random.choice(found).kill()
                    with suppress(subprocess.TimeoutExpired):
                        run.wait(_WAIT_SECONDS)
                    _end(world, run)
                    return True
            time.sleep(0.02)
        _end(world, run)
        life /= 2
        return False

    return strike


def _children(pid: int, name: str) -> list[psutil.Process]:
    found = []
    with suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with suppress(psutil.Error):
                line = " ".join(child.cmdline())
                if next((n for n, part in _PROCESSES.items() if part in line), "") == name:
                    found.append(child)
    return found


def _end(world: World, run: subprocess.Popen[bytes]) -> None:
    """End a run. What it had started goes without anybody's help, which ``settle`` looks after."""
    with suppress(psutil.NoSuchProcess):
        due = time.monotonic() + _WAIT_SECONDS
        world.orphans += [(due, child) for child in psutil.Process(run.pid).children(recursive=True)]
    run.kill()
    run.communicate()


def fill_disk(world: World) -> bool:
    """The state's disk has room for a random part of what a run writes."""
    root = world.hit.root / "state"
    used = sum(f.stat().st_size for f in root.rglob("*") if f.is_file()) // 1024
    _mount("-o", f"remount,size={used + world.random.randint(300, 20_000)}k", str(root))
    try:
        run = world.start()
        _, said = run.communicate(timeout=_WAIT_SECONDS * 2)
        assert b"Traceback" not in said, said
        return run.returncode != 0
    finally:
        _mount("-o", "remount,size=2g", str(root))


def move_clock(world: World) -> bool:
    """A run on a machine whose clock is hours or days off, either way, killed half of the times."""
    folder = world.hit.root / "clock"
    folder.mkdir(exist_ok=True)
    (folder / "sitecustomize.py").write_text(_CLOCK)
    seconds = world.random.choice([-86_400 * 400, -7_200, -90, 90, 7_200, 86_400 * 400])
    path = os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])
    run = world.start(environment={"CHAOS_CLOCK_SECONDS": str(seconds), "PYTHONPATH": path})
    with suppress(subprocess.TimeoutExpired):
        run.wait(world.random.uniform(1, world.usual_seconds * 2))
    _end(world, run)
    return True


def two_writers(world: World) -> bool:
    """Two runs at once: one waits for the other, or says that it will not."""
    first = world.start()
    time.sleep(world.random.uniform(0, world.usual_seconds / 2))
    waits = world.random.random() < 0.5
    second = world.start(*(["--wait", "120"] if waits else []))
    codes = [run.communicate(timeout=_WAIT_SECONDS * 3) and run.returncode for run in (first, second)]
    assert 0 in codes and set(codes) <= {0, 5}, codes
    assert not waits or codes == [0, 0], codes
    return True


def while_it_writes(strike: Callable[[World], None]) -> Callable[[World], bool]:
    """A fault of the index's server, in the second half of a usual run; the run is left to end as it can."""

    def struck(world: World) -> bool:
        run = world.start()
        with suppress(subprocess.TimeoutExpired):
            run.wait(world.random.uniform(world.usual_seconds / 2, world.usual_seconds))
        met = run.poll() is None
        strike(world)
        run.communicate(timeout=_WAIT_SECONDS * 3)
        return met

    return struck


def kill_server(world: World, server: MilvusServer) -> None:
    """SIGKILL to the server, which is back a little later."""
    server.kill()
    time.sleep(world.random.uniform(0, 3))
    server.start()


def cut_connection(world: World, proxy: Proxy) -> None:
    """Every connection to the index is reset, and new ones are refused for a while."""
    proxy.cut(world.random.uniform(0, 5))


# -- the series ------------------------------------------------------------------------------------------------------------


def _mount(*arguments: str) -> bool:
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@contextmanager
def _own_disk(world: World) -> Iterator[bool]:
    """The hit state on a file system of its own; False where that cannot be had (only root may mount, not everywhere)."""
    state = world.hit.root / "state"
    mounted = shutil.which("mount") is not None and _mount("-t", "tmpfs", "-o", "size=2g,mode=700", "tmpfs", str(state))
    if mounted:
        State(state)
        shutil.copy(world.calm.root / "state" / "hash.key", state / "hash.key")
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(state)], capture_output=True, check=False)


def series(
    world: World, strike: Callable[[World], bool], times: int, outcome: Outcome, tell: Callable[[str], None]
) -> None:
    """Strike until a fault has met a run so many times, and compare after each, or after some in a row that killed."""
    while outcome.tried < times:
        world.change()
        for _ in range(world.random.randint(1, 3) if strike is kill_driver else 1):
            met = strike(world)
            outcome.tried += met
            outcome.missed += not met
            outcome.repeated = max(outcome.repeated, world.repeated())
            if not met:
                break
        world.settle(outcome)
        tell(f"{outcome.tried}/{times}, {outcome.missed} missed, {outcome.bad} bad, {outcome.repeated} shards repeated")
        assert outcome.missed <= 2 * times + 3, "the fault never meets a run"


def learn_usual(world: World) -> None:
    """How long a run takes that nobody disturbs, from the second on; moments are drawn from that."""
    world.settle(Outcome())
    world.change()
    began = time.monotonic()
    run = world.start()
    run.communicate()
    assert run.returncode == 0
    world.usual_seconds = time.monotonic() - began
    world.settle(Outcome())


def chaos(
    root: Path, seed: int, kills: int, others: int, only: str, found: dict[str, Outcome], tell: Callable[[str], None]
) -> None:
    """Every fault in turn, each in a world of its own, until ``found`` has met it as often as it was asked for."""
    plain = {"driver killed": kill_driver, "clock moved": move_clock, "two writers": two_writers}
    plain |= {f"{name} killed": kill_process(name) for name in _PROCESSES}
    served = ("connection cut", "index server killed")
    for number, name in enumerate([*plain, "disk full", *served]):
        times = kills if name == "driver killed" else others
        outcome = found.setdefault(name, Outcome())
        if only not in name or outcome.tried >= times:
            continue
        folder, tell_of = root / str(number), lambda line, name=name: tell(f"{name}: {line}")
        if name in plain:
            world = World(folder, seed + number)
            learn_usual(world)
            series(world, plain[name], times, outcome, tell_of)
        elif name in served:
            with _served(folder) as (server, proxy):
                world = World(folder, seed + number, uri=proxy.uri)
                strikes = {
                    "connection cut": lambda world, proxy=proxy: cut_connection(world, proxy),
                    "index server killed": lambda world, server=server: kill_server(world, server),
                }
                learn_usual(world)
                series(world, while_it_writes(strikes[name]), times, outcome, tell_of)
        else:
            world = World(folder, seed + number)
            with _own_disk(world) as mounted:
                if mounted:
                    learn_usual(world)
                    series(world, fill_disk, times, outcome, tell_of)
                else:
                    tell_of("not tried, a disk of our own cannot be mounted here")


@contextmanager
def _served(folder: Path) -> Iterator[tuple[MilvusServer, Proxy]]:
    """A Milvus server, and what stands between it and its clients."""
    server = MilvusServer(folder.with_name(f"{folder.name}-server"))
    proxy = Proxy(server.uri)
    try:
        yield server, proxy
    finally:
        proxy.close()
        server.stop()


def table(found: dict[str, Outcome]) -> Table:
    """One row a fault."""
    columns = ("tried", "missed", "compared", "lost", "doubled", "ghosts", "resurrected", "wrong", "repeated")
    shown = Table(title="after each fault: run again, then compare with a state that was never disturbed")
    shown.add_column("fault")
    for column in (*columns[:-1], "shards repeated, at most"):
        shown.add_column(column, justify="right")
    for name, outcome in found.items():
        if outcome.tried:
            shown.add_row(name, *(str(getattr(outcome, column)) for column in columns))
    return shown


def main() -> int:
    """Run the series, print the table; 1 where anything is lost, doubled, wrong or back."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="random kills of the command itself")
    parser.add_argument("--others", type=int, default=10, help="how often each other fault is tried")
    parser.add_argument("--only", default="", metavar="WORDS", help="faults with these words in their name")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="printed, so that a series can be repeated")
    parser.add_argument("--json", type=Path, default=Path("build/chaos.json"), metavar="FILE", help="go on from here")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    console.print(f"seed {options.seed}")
    quiet_engines()
    kept: dict[str, Any] = (
        json.loads(options.json.read_text()) if options.json.exists() else {"seeds": [], "faults": {}}
    )
    kept["seeds"].append(options.seed)
    found = {name: Outcome(**figures) for name, figures in kept["faults"].items()}
    options.json.parent.mkdir(parents=True, exist_ok=True)

    def tell(line: str) -> None:
        console.print(line, highlight=False)
        kept["faults"] = {name: asdict(outcome) for name, outcome in found.items() if outcome.tried}
        options.json.write_text(json.dumps(kept, indent=1) + "\n")

    try:
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
            chaos(Path(folder), options.seed, options.kills, options.others, options.only, found, tell)
    finally:
        console.print(table(found))
    return int(any(outcome.bad for outcome in found.values()))


if __name__ == "__main__":
    sys.exit(main())
