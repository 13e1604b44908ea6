"""Chaos: runs that are killed, starved, cut off and raced at random moments, and then simply run again.

    make chaos                                        # 200 kills and every other fault ten times: about four hours
    make chaos ARGS="--kills 3 --others 1"            # a look at each

Two states over one source: the ``hit`` one suffers, the ``calm`` one is never disturbed. After each fault the hit one is
run again, and every id, hash and vector of its index, its ledger and its texts must be those of the calm one. A run that
goes on after a kill is itself killed, up to twice. The figures are kept in a file after each fault, and a series that
was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.engines.environment import quiet_engines
from jobs.state.store import State
from tests.chaos.faults import (
    PROCESSES,
    cut_connection,
    damage_state,
    fill_disk,
    kill_driver,
    kill_encoding,
    kill_process,
    kill_server,
    mount,
    move_clock,
    two_writers,
    while_it_writes,
)
from tests.chaos.world import ENCODING, SHORT, Outcome, World
from tests.support.milvus_server import MilvusServer
from tests.support.proxy import Proxy

_WHILE_ENCODING = "killed while encoding"


@contextmanager
def _own_disk(world: World) -> Iterator[bool]:
    """The hit state on a file system of its own; False where that cannot be had (only root may mount, not everywhere)."""
    state = world.hit.root / "state"
    mounted = shutil.which("mount") is not None and mount("-t", "tmpfs", "-o", "size=2g,mode=700", "tmpfs", str(state))
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
        world.recover(outcome)
        tell(f"{outcome.tried}/{times}, {outcome.missed} missed, {outcome.bad} bad, {outcome.repeated} shards repeated")
        assert outcome.missed <= 2 * times + 3, "the fault never meets a run"


def learn_usual(world: World) -> None:
    """How long an undisturbed run takes, from the second on; moments are drawn from that."""
    world.recover(Outcome())
    world.change()
    began = time.monotonic()
    run = world.start()
    run.communicate()
    assert run.returncode == 0
    world.usual_seconds = time.monotonic() - began
    world.recover(Outcome())


def _telling(tell: Callable[[str], None], name: str) -> Callable[[str], None]:
    return lambda line: tell(f"{name}: {line}")


def _engines(fault: str) -> str:
    """Engines that the runs of a fault start; else what is small is done without them."""
    if "Spark" in fault:
        return "Spark, Ray"
    return "Ray" if "Ray" in fault or "actor" in fault else ""


def chaos(
    root: Path, seed: int, kills: int, others: int, only: str, found: dict[str, Outcome], tell: Callable[[str], None]
) -> None:
    """Every fault in turn, each in a world of its own, until ``found`` has met it as often as it was asked for."""
    plain: dict[str, Callable[[World], bool]] = {
        "driver killed": kill_driver,
        "clock moved": move_clock,
        "two writers": two_writers,
    }
    plain["a state file damaged"] = damage_state
    plain["driver with Spark killed"] = kill_driver
    plain[_WHILE_ENCODING] = kill_encoding()
    plain |= {f"{name} killed": kill_process(name) for name in PROCESSES}
    served = ("connection cut", "index server killed")
    for number, name in enumerate([*plain, "disk full", *served]):
        times = kills if name == "driver killed" else others
        outcome = found.setdefault(name, Outcome())
        if only not in name or outcome.tried >= times:
            continue
        folder, tell_of = root / str(number), _telling(tell, name)
        if name in plain:
            load = ENCODING if name == _WHILE_ENCODING else SHORT
            world = World(folder, seed + number, load=load, engines=_engines(name))
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
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
