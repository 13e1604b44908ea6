"""What dies or stumbles on a cluster while a run works: nothing is lost, doubled, left behind or brought back.

Each round changes the source, runs twice with a fault at a random moment of each, mends, runs to the end and compares.
As many faults as EMBEDMILL_TEST_FAULTS says.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import psutil
import pytest

from jobs.state.storage import sizes_below
from jobs.state.store import State
from tests.end_to_end.test_cluster import OnCluster, cluster
from tests.support.cluster import Cluster, Driver
from tests.support.hosts import Host
from tests.support.object_store import Asked, Proxy
from tests.support.workspace import Ran, message

__all__ = ["cluster"]
pytestmark = pytest.mark.long

COUNT = int(os.environ.get("EMBEDMILL_TEST_FAULTS") or 9)
STRIKES = 2  # of a round
LEASE_SECONDS = 10
SHARD = 40  # texts of a shard, at most


@dataclass
class World:
    """A cluster with a workspace, its driver, and what its source shows."""

    cluster: Cluster
    space: OnCluster
    driver: Driver
    chance: random.Random
    held: dict[int, str] = field(default_factory=dict)
    removed: set[str] = field(default_factory=set)
    network: str = ""  # what happens to requests now
    twice: int = 0  # vectors that are stored twice

    def change(self, turn: int) -> None:
        """New messages, edits and deletions."""
        for n in self.chance.sample(sorted(self.held), min(len(self.held), 6)):
            self.removed.add(self.held.pop(n))
        for n in self.chance.sample(sorted(self.held), min(len(self.held), 6)):
            self.removed.add(self.held[n])
            self.held[n] = f"edited in round {turn} at {n}"
        for n in range(40 * turn, 40 * turn + 40):
            self.held[n] = f"report {n} of round {turn} from desk {n % 13}"
        self.space.day("general", [message(n, text) for n, text in sorted(self.held.items())])

    def answer(self, asked: Asked) -> str:
        """What the network does to a request."""
        if not self.network or self.chance.random() > 0.3:
            return ""
        return "0.15" if self.network == "slow" else self.network


def _kill(host: Host | None, name: str) -> int:
    """Kill processes of a name: of a host, or of this one. Returns how many."""
    roots = [p.pid for p in host.started] if host is not None else [os.getpid()]
    found = [one for root in roots if psutil.pid_exists(root) for one in psutil.Process(root).children(recursive=True)]
    killed = 0
    for one in found:
        try:
            if name in " ".join(one.cmdline()):
                one.kill()
                killed += 1
        except psutil.NoSuchProcess:
            continue
    return killed


def an_executor(world: World) -> None:
    """Kill Spark's executor on a host: its worker starts another."""
    _kill(world.chance.choice(world.cluster.hosts), "CoarseGrainedExecutorBackend")


def a_spark_worker(world: World) -> None:
    """Kill Spark's worker with its executor, and start one again."""
    host = world.chance.choice(world.cluster.hosts)
    _kill(host, "CoarseGrainedExecutorBackend")
    for process in [p for p in host.started if "spark-class" in str(p.args)]:
        process.kill()
        host.started.remove(process)
    world.cluster.start_spark(host)


def a_ray_node(world: World) -> None:
    """Kill a node of Ray with all its workers, and start one again."""
    host = world.chance.choice(world.cluster.hosts)
    for process in [p for p in host.started if "/ray" in str(p.args)]:
        for one in psutil.Process(process.pid).children(recursive=True):
            one.kill()
        process.kill()
        process.wait()
        host.started.remove(process)
    world.cluster.start_ray(host)


def a_host(world: World) -> None:
    """All of a host loses power, and comes back."""
    host = world.chance.choice(world.cluster.hosts)
    host.kill()
    world.cluster.start_spark(host)
    world.cluster.start_ray(host)


def the_driver(world: World) -> None:
    """Kill the driver, and start another."""
    world.driver.process.kill()


def the_store(world: World) -> None:
    """The store dies and is started again on what it has."""
    world.cluster.store.stop()
    time.sleep(world.chance.uniform(0.2, 2.0))
    world.cluster.store.start()
    world.cluster.store.make_bucket()


def _network(what: str) -> Callable[[World], None]:
    def fault(world: World) -> None:
        world.network = what

    fault.__name__ = {"lose": "lost answers", "503": "throttling", "slow": "slow answers"}[what]
    return fault


FAULTS: list[Callable[[World], None]] = [an_executor, a_spark_worker, a_ray_node, a_host, the_driver, the_store]
FAULTS += [_network(what) for what in ("lose", "503", "slow")]


@pytest.fixture
def world(cluster: Cluster) -> Iterator[World]:
    cluster.environment["EMBEDMILL__STATE__LEASE_SECONDS"] = str(LEASE_SECONDS)
    chance = random.Random(int(os.environ.get("EMBEDMILL_TEST_SEED") or 1))
    space = OnCluster(cluster)
    made = World(cluster, space, cluster.driver(), chance)
    with Proxy(cluster.store, made.answer, address=cluster.network.address) as store:
        space.config.write_text(space.config.read_text().replace(cluster.store.uri, store.uri))
        yield made
    made.driver.stop()


def test_whatever_dies_the_next_run_makes_it_right(world: World) -> None:
    for first in range(0, COUNT, STRIKES):
        world.change(first // STRIKES)
        told = []
        for number in range(first, min(first + STRIKES, COUNT)):
            fault = FAULTS[(number + number // len(FAULTS)) % len(FAULTS)]  # each is first and second by turns
            told.append(f"{fault.__name__}: the run {struck(world, fault)}")
            world.network = ""
            if world.driver.process.poll() is not None:
                world.driver.stop()
                world.driver = world.cluster.driver()
                time.sleep(LEASE_SECONDS)  # so that the next fault meets a run that works
        said = f"faults {first}-{number}: {'; '.join(told)}"
        for _ in range(3):  # what was killed may not be back yet
            ran = world.driver.call(world.space.config, "run", "--wait", "120")
            if ran.code == 0:
                break
        assert ran.code == 0, (said, ran)
        checked = world.driver.call(world.space.config, "verify")
        assert checked.code == 0, (said, checked)
        print(said, flush=True)
        compare(world, said)


def struck(world: World, fault: Callable[[World], None]) -> str:
    """Run, with the fault at a random moment; how the run ended."""
    answers: list[Ran | None] = []

    def run() -> None:
        try:
            answers.append(world.driver.call(world.space.config, "run", "--wait", "60"))
        except RuntimeError:
            answers.append(None)

    thread = threading.Thread(target=run)
    thread.start()
    time.sleep(world.chance.uniform(0.3, 8.0))
    fault(world)
    thread.join(300)
    assert not thread.is_alive(), f"{fault.__name__}: the run hangs"
    return "died" if answers[0] is None else f"ended with {answers[0].code}"


def compare(world: World, fault: str) -> None:
    """What tables and index hold is what the source shows, each once."""
    state = State(world.space.state)
    texts = state.read("chunks", ["text"])["text"].to_pylist()
    assert len(texts) == len(set(texts)), (fault, "doubled")
    ours = {text for text in texts if text.startswith(("report", "edited"))}
    assert ours == set(world.held.values()), (fault, "lost or resurrected")
    ledger = state.read("published", ["chunk_id"])["chunk_id"].to_pylist()
    assert len(ledger) == len(set(ledger)) == len(texts), (fault, "ledger")
    vectors = state.read("vectors", ["content_hash"])["content_hash"].to_pylist()
    before, world.twice = world.twice, len(vectors) - len(set(vectors))
    assert world.twice - before <= STRIKES * 2 * SHARD, (fault, "more than a shard of each worker encoded again")
    assert not [key for key in sizes_below(world.space.state / "work") if not key.endswith(".inflight")], fault
