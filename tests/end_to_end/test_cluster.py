"""A cluster of hosts that share nothing but the store: every command does there what it does on one machine."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.state.object_path import ObjectPath
from jobs.state.storage import sizes_below
from jobs.state.store import State
from tests.support.cluster import Cluster, Driver, ended
from tests.support.hosts import why_not
from tests.support.milvus_server import MilvusServer
from tests.support.object_store import NO_WEED, has_weed
from tests.support.workspace import TEAM, Workspace, counts, message

MESSAGES = 60


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if (reason := why_not()) or not has_weed():
        pytest.skip(reason or NO_WEED)
    # Not below /tmp, of which each host has its own.
    folder = Path("/var/tmp") / f"embedmill-{uuid.uuid4().hex[:8]}"
    folder.mkdir()
    try:
        made = Cluster(folder)
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def driver(cluster: Cluster) -> Iterator[Driver]:
    started = cluster.driver()
    yield started
    started.stop()


class OnCluster(Workspace):
    """A workspace that is run by a cluster, with a state in its store."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster.folder / uuid.uuid4().hex[:8])
        said = [message(n, f"report {n} of {n % 7} lines from desk {n % 13}") for n in range(MESSAGES)]
        self.day("general", said)
        prefix = f"states/{uuid.uuid4().hex}"
        self.state: ObjectPath = cluster.store.path(prefix)
        text = self.config.read_text().replace('[spark]\nmaster = "local[2]"\n', cluster.config())
        text = text.replace("[model]\n", "[model]\nactors = 2\nshard_tokens = 200\n")
        self.config.write_text(text + cluster.store.config(prefix))


@pytest.fixture
def space(cluster: Cluster) -> OnCluster:
    return OnCluster(cluster)


def test_two_hosts_make_an_index_and_leave_no_text_of_what_is_purged(
    space: OnCluster, driver: Driver, cluster: Cluster
) -> None:
    space.day("random", [message(5, "canary4711 sits in the harbour")])
    first = driver.call(space.config, "run")
    assert (first.code, counts(first)) == (0, {"embedded": MESSAGES + 3}), first
    again = driver.call(space.config, "run")
    assert (again.code, counts(again), again.body["chunks"]["unchanged"]) == (0, {}, MESSAGES + 3), again
    workers = [(cluster.folder / f"{host.name}-spark.log").read_text() for host in cluster.hosts]
    assert all("Asked to launch executor" in log for log in workers), "both hosts have worked"
    texts = State(space.state).read("chunks", ["text"])["text"].to_pylist()
    assert len(texts) == len(set(texts)) == MESSAGES + 3
    ended(driver.call(space.config, "purge", "--team", TEAM, "--channel", "C2"))
    for key in sizes_below(space.state):
        assert b"canary4711" not in (space.state / key).read_bytes(), key
    for host in cluster.hosts:
        assert host.holds(b"canary4711") == [], "what executors have on their disks is encrypted"


@pytest.mark.long
def test_a_life_on_a_cluster(space: OnCluster, driver: Driver, milvus_server: MilvusServer) -> None:
    space.config.write_text(f'{space.config.read_text()}[index]\nuri = "{milvus_server.uri}"\nname = "on_cluster"\n')
    ended(driver.call(space.config, "run"))
    ended(driver.call(space.config, "verify"))
    said = space.messages("general")
    space.day("general", [message(0, "The lockers are open"), *said[2:]])
    changed = driver.call(space.config, "run")
    assert (changed.code, counts(changed)) == (0, {"embedded": 1, "deleted": 1}), changed
    ended(driver.call(space.config, "reindex", "--activate"))
    ended(driver.call(space.config, "rollback"))
    ended(driver.call(space.config, "verify"))
    purged = ended(driver.call(space.config, "purge", "--team", TEAM, "--channel", "C2"))
    assert purged["removed"]["chunks"] == 2
    ended(driver.call(space.config, "verify"))
    last = driver.call(space.config, "run")
    assert (last.code, counts(last), last.body["chunks"]["total"]) == (0, {}, MESSAGES + 1), last


@pytest.mark.long
def test_a_host_that_does_not_see_the_state_is_named(space: OnCluster, driver: Driver, cluster: Cluster) -> None:
    """It ended well, with 0 documents read."""
    text = space.config.read_text()
    start = text.index("[state]")
    hidden = Path("/tmp") / f"embedmill-state-{uuid.uuid4().hex[:8]}"
    space.config.write_text(text[:start] + f'[state]\nuri = "{hidden}"\n')
    refused = driver.call(space.config, "run")
    assert refused.code == 1 and "does not see the state" in refused.err, refused
    assert any(f"host {host.name} " in refused.err for host in cluster.hosts), refused
    shutil.rmtree(hidden, ignore_errors=True)
