"""Hosts of a cluster that run another release, or see another state, are named before they are given work."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from embedding.errors import ResourceError
from jobs.config import load_config
from jobs.engines import agreement
from jobs.engines.ray import start_ray
from jobs.engines.spark import start_spark
from jobs.state.state_folder import MARKER
from jobs.state.store import State
from tests.support.workspace import Workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    State(tmp_path / "state", fence=1).note_space("space", "model")
    return tmp_path / "state"


def test_hosts_that_are_as_this_one_agree(root: Path) -> None:
    agreement.check("spark.master", agreement.look(root), root, [agreement.look(root), agreement.look(root)])
    seen = agreement.look(root)
    assert seen["host"] == socket.gethostname() and seen["embedmill"] != "none" and " " not in seen["state"]


@pytest.mark.parametrize("name", ["python", "embedmill", "pyarrow"])
def test_another_version_is_named_with_its_host(root: Path, name: str) -> None:
    other = agreement.look(root) | {"host": "worker-7", name: "0.0.1"}
    with pytest.raises(ResourceError, match=f"spark.master: host worker-7 has {name} 0.0.1, here "):
        agreement.check("spark.master", agreement.look(root), root, [agreement.look(root), other])


def test_a_state_that_a_host_does_not_see_is_named_with_it(root: Path, tmp_path: Path) -> None:
    elsewhere = agreement.look(tmp_path / "elsewhere") | {"host": "worker-7"}
    with pytest.raises(ResourceError, match="host worker-7 does not see the state at .* on that host it is not there"):
        agreement.check("ray.address", agreement.look(root), root, [elsewhere])
    State(tmp_path / "another", fence=1).note_space("another", "model")
    another = agreement.look(tmp_path / "another") | {"host": "worker-8"}
    with pytest.raises(ResourceError, match="host worker-8 does not see .* it is another one"):
        agreement.check("ray.address", agreement.look(root), root, [another])


@pytest.fixture(scope="module")
def ray_of_ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("ray")
    start_ray(load_config(Workspace(folder / "ws").config), folder / "scratch")
    yield


def test_a_node_of_ray_is_asked_itself(root: Path, ray_of_ours: None) -> None:
    agreement.check_ray(root)
    (root / MARKER).unlink()
    agreement.check_ray(root)  # nothing to see, here and there alike


def test_executors_of_spark_are_asked_themselves(root: Path, tmp_path: Path) -> None:
    config = load_config(Workspace(tmp_path / "ws").config)
    agreement.check_spark(start_spark(config, tmp_path / "scratch", tmp_path / "log", reads=True), root)
