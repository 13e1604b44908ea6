"""Airflow over a cluster of hosts: nightly, backfill and reindex as jobs of Ray, and a host lost in the middle of each.

Airflow runs on the driver's host, its jobs on the head of Ray, beside it; Spark's workers and Ray's nodes that work are
hosts of their own. A host is lost with Spark's worker and Ray's node, without a word to anyone, and stays away until the
run has ended. An undisturbed index of the same sources, made on one machine, says what is right.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree

import numpy as np
import pyarrow as pa
import pytest

from indexers.base import Index
from jobs.config import load_config
from jobs.state.object_path import ObjectPath
from jobs.state.storage import sizes_below
from jobs.state.store import State
from tests.support.airflow_server import Airflow, embedmill
from tests.support.cluster import Cluster
from tests.support.hosts import Host, why_not
from tests.support.milvus_server import MISSING, PYTHON, MilvusServer
from tests.support.object_store import NO_WEED, Asked, Proxy, has_weed
from tests.support.workspace import Workspace, message

pytestmark = pytest.mark.long

MESSAGES = 800  # of the first night
DAYS, OF_A_DAY = 40, 15  # of the month that is filled in later
SHARD_TOKENS = 200
SECONDS = 900  # that a run may take
HASH_KEY = "0" * 64
HERE = {  # of commands in this process, which use no cluster
    "EMBEDMILL__SPARK__MASTER": "local[1]",
    "EMBEDMILL__SPARK__IN_PROCESS_MB": "512",
    "EMBEDMILL__RAY__ADDRESS": "local",
    "EMBEDMILL__MODEL__SHARD_TOKENS": "100000",
    "EMBEDMILL__STATE__HASH_KEY": HASH_KEY,
}


def slowly(asked: Asked) -> str:
    """What makes a step last: what hosts write arrives late at the store."""
    if asked.method == "PUT" and "/extract/part-" in asked.path:
        return "2.0"
    return "1.0" if asked.method == "PUT" and "/vectors/" in asked.path and asked.path.endswith(".parquet") else ""


class OnAirflow(Workspace):
    """A workspace whose commands are tasks of Airflow, and a second configuration that is run undisturbed, here."""

    def __init__(self, cluster: Cluster, store: str, milvus: str) -> None:
        super().__init__(cluster.folder / "space", files=False)
        self.day("general", [message(n, f"report {n} of {n % 7} lines from desk {n % 13}") for n in range(MESSAGES)])
        self.state: ObjectPath = cluster.store.path("states/on-airflow")
        text = self.config.read_text().replace("[model]\n", f"[model]\nactors = 2\nshard_tokens = {SHARD_TOKENS}\n")
        index = f'[index]\nuri = "{milvus}"\nname = '
        on_cluster = text.replace('[spark]\nmaster = "local[2]"\n', cluster.config())
        state = cluster.store.config("states/on-airflow").replace(cluster.store.uri, store)
        self.config.write_text(f'{on_cluster}{state}{index}"messages"\n')
        self.undisturbed = self.root / "undisturbed.toml"
        alone = self.config.read_text().replace(cluster.config(), '[spark]\nmaster = "local[1]"\n')
        alone = alone.replace(state, f'[state]\nuri = "{self.root / "undisturbed"}"\n')
        self.undisturbed.write_text(alone.replace('name = "messages"', 'name = "undisturbed"'))

    def month(self) -> None:
        """Messages of earlier days appear."""
        for day in range(DAYS):
            start = -86_400 * (day + 1)
            said = [message(start + n, f"note {n} of day {day} by desk {n % 5}") for n in range(OF_A_DAY)]
            self.day("general", said, day=time.strftime("%Y-%m-%d", time.gmtime(float(said[0]["ts"]))))

    def change_model(self) -> None:
        """Texts are cut with another overlap from now on: another space, in which nothing is encoded yet."""
        for file in (self.config, self.undisturbed):
            file.write_text(file.read_text().replace("[model]\n", "[model]\noverlap_tokens = 20\n"))

    def tables(self) -> State:
        """The state as it is now."""
        return State(self.state, hash_key=HASH_KEY)

    def vectors(self) -> int:
        """Vectors that are committed."""
        return self.tables().count("vectors")

    def equal(self) -> None:
        """Make the index, and the undisturbed one, equal to the source, where an earlier test has not."""
        for file in (self.config, self.undisturbed):
            code, body = embedmill(file, "run", "--wait", "60", **HERE)
            assert code == 0, body

    def verified(self) -> None:
        """Compare the whole index with tables and sources."""
        code, body = embedmill(self.config, "verify", "--wait", "60", **HERE)
        assert (code, body["status"]) == (0, "ok"), body


def opened(config: Path) -> Index:
    """The index of a configuration."""
    return load_config(config).index_address().open()


def rows_of(config: Path) -> tuple[pa.Table, np.ndarray]:
    """What the live version holds, by its keys: hashes and vectors."""
    index = opened(config)
    try:
        version = index.live()
        assert version is not None
        table = pa.Table.from_batches(index.scan(version)).sort_by("chunk_id")
        found = index.fetch_vectors(version, keys := table["chunk_id"].to_pylist())
        return table, np.stack([found[key] for key in keys])
    finally:
        index.close()


@dataclass(frozen=True)
class World:
    """What the tests share."""

    cluster: Cluster
    airflow: Airflow
    space: OnAirflow

    def compare(self) -> None:
        """The index is that of an undisturbed run, row by row; the ledger has each row once."""
        (ours, vectors), (theirs, right) = rows_of(self.space.config), rows_of(self.space.undisturbed)
        assert ours.equals(theirs), (len(ours), len(theirs))
        assert np.array_equal(vectors, right)
        index = opened(self.space.config)
        live = index.live()
        index.close()
        ledger = self.space.tables().read("published", ["index", "chunk_id"]).to_pylist()
        keys = [row["chunk_id"] for row in ledger if row["index"] == live]
        assert sorted(keys) == ours["chunk_id"].to_pylist()

    def encoded_twice(self) -> int:
        """Vectors that are stored more than once."""
        keys = self.space.tables().read("vectors", ["space_id", "content_hash"]).to_pylist()
        return len(keys) - len({tuple(key.values()) for key in keys})


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if reason := why_not() or ("" if has_weed() else NO_WEED) or ("" if PYTHON.exists() else MISSING):
        pytest.skip(reason)
    folder = Path("/var/tmp") / f"embedmill-{uuid.uuid4().hex[:8]}"  # of /tmp each host has its own
    folder.mkdir()
    with ExitStack() as stack:
        stack.callback(rmtree, folder, ignore_errors=True)
        own = {"EMBEDMILL__STATE__LEASE_SECONDS": "20", "EMBEDMILL__STATE__HASH_KEY": HASH_KEY}
        cluster = Cluster(folder, with_jobs=True, environment=own)
        stack.callback(cluster.stop)
        address = cluster.network.address
        milvus = MilvusServer(tmp_path_factory.mktemp("milvus"), address, session_seconds=300)
        stack.callback(milvus.stop)
        for host in cluster.hosts:
            cluster.reaches(host, milvus.uri)
        store = stack.enter_context(Proxy(cluster.store, slowly, address=address))
        space = OnAirflow(cluster, store.uri, milvus.uri)
        token = {name: cluster.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        airflow = Airflow(
            tmp_path_factory.mktemp("airflow"),
            {
                **token,
                "EMBEDMILL_CONFIG": str(space.config),
                "EMBEDMILL_LAUNCHER": "ray-jobs",
                "EMBEDMILL_RAY_JOBS_ADDRESS": cluster.jobs,
                "EMBEDMILL_RAY_JOBS_COMMAND": cluster.entrypoint,
                "EMBEDMILL_RETRY_SECONDS": "30",
                # Airflow's defaults, or more: a machine of few cores that runs all of a cluster is late with heartbeats.
                "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "300",
                "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "300",
                "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "300",
            },
        )
        stack.callback(airflow.stop)
        for dag in ("nightly", "backfill", "reindex"):
            airflow.unpause(f"embedmill_{dag}", 300)
        yield World(cluster, airflow, space)


Works = Callable[[Host], int]  # grows where a host takes part in a step


def encodes(host: Host) -> int:
    """How many logs of Ray's on a host are of an actor that encodes: their processes have that name now and then only."""
    return len(host.holds(b"EncodeShard"))


def reads(host: Host) -> int:
    """Whether an executor of Spark runs on a host."""
    return int(host.runs("CoarseGrainedExecutorBackend"))


def run_and_lose(
    world: World, dag: str, task: str, half_done: Callable[[], bool], works: Works, **conf: object
) -> None:
    """Run a DAG, lose a host that works while a task of it is half done, and see the run end well without it."""
    before = {host.name: works(host) for host in world.cluster.hosts}

    def working() -> list[Host]:
        return [host for host in world.cluster.hosts if works(host) > before[host.name]]

    airflow, began = world.airflow, time.monotonic()
    run = airflow.trigger(dag, **conf)
    airflow.wait(f"{task} half done", lambda: (half_done() and bool(working())) or over(world, dag, run), SECONDS)
    assert airflow.tasks(dag, run)[task]["state"] == "running", "it has ended before it was half done"
    host = working()[-1]
    host.lose()
    assert half_done(), "it was not in the middle"
    lost = time.monotonic()
    state = airflow.ended(dag, run, SECONDS)
    tasks = airflow.tasks(dag, run)
    tries = {name: one["try_number"] for name, one in tasks.items()}
    print(
        f"{dag}: lost after {lost - began:.0f} s, {state} {time.monotonic() - lost:.0f} s later; tries {tries}",
        flush=True,
    )
    assert state == "success", airflow.log(dag, run, task)[-6000:]
    world.cluster.bring_back(host)


def over(world: World, dag: str, run: str) -> bool:
    """Whether a run has ended."""
    return world.airflow.api("GET", f"dags/{dag}/dagRuns/{run}").json()["state"] in ("success", "failed")


def test_a_host_is_lost_while_a_nightly_run_encodes(world: World) -> None:
    space = world.space

    def half_done() -> bool:
        return MESSAGES / 10 < space.vectors() < MESSAGES

    run_and_lose(world, "embedmill_nightly", "embed", half_done, encodes)
    space.verified()
    assert embedmill(space.undisturbed, "run", **HERE)[0] == 0
    world.compare()
    print(f"encoded twice: {world.encoded_twice()}")


def test_a_host_is_lost_while_a_backfill_reads(world: World) -> None:
    space = world.space
    space.equal()
    space.month()

    def half_done() -> bool:
        below = sizes_below(space.state / "work")
        read = [key for key in below if "/extract/part-" in key]
        return len(read) > 1 and not any(key.endswith("/extract/_files.json") for key in below)

    window = {"since": "2025-01-01", "until": "2025-03-03"}
    run_and_lose(world, "embedmill_backfill", "extract", half_done, reads, **window)
    space.verified()
    assert embedmill(space.undisturbed, "run", **HERE)[0] == 0
    world.compare()


def test_a_host_is_lost_while_a_reindex_encodes_for_another_space(world: World) -> None:
    space = world.space
    space.month()
    space.equal()
    space.change_model()
    before, all_of_it = space.vectors(), MESSAGES + DAYS * OF_A_DAY

    def half_done() -> bool:
        return all_of_it / 10 < space.vectors() - before < all_of_it

    run_and_lose(world, "embedmill_reindex", "embed", half_done, encodes, reason="another overlap")
    space.verified()
    assert embedmill(space.undisturbed, "reindex", "--activate", **HERE)[0] == 0
    world.compare()
    print(f"encoded twice: {world.encoded_twice()}")
