"""A node of a Ray cluster that is lost for good while it encodes: those that are left encode its shards."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from jobs.embed import embed
from tests.end_to_end.test_embed_faults import break_the_encoder
from tests.support.paths import ROOT
from tests.support.workspace import Workspace, message

MESSAGES = 400


@pytest.fixture
def nodes() -> Iterator[tuple[Cluster, Any]]:
    """A cluster of a head that encodes nothing and two nodes of a core each, and one of them; encoders are slow."""
    ray.shutdown()
    subprocess.run(
        [Path(sys.executable).with_name("ray"), "get-auth-token", "--generate"], check=True, capture_output=True
    )
    small = {"object_store_memory": 100_000_000, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    try:
        lost = [cluster.add_node(num_cpus=1, object_store_memory=100_000_000) for _ in range(2)][-1]
        ray.init(
            address=cluster.address,
            log_to_driver=False,
            runtime_env={"worker_process_setup_hook": break_the_encoder, "env_vars": {"PYTHONPATH": str(ROOT)}},
        )
        yield cluster, lost
    finally:
        ray.shutdown()
        cluster.shutdown()


@pytest.mark.long
def test_the_shards_of_a_lost_node_are_encoded_by_those_that_are_left(
    workspace: Workspace, nodes: tuple[Cluster, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embed, "PATIENCE_SECONDS", 3.0)
    cluster, lost = nodes
    workspace.day("general", [message(n, f"report {n} from desk {n % 13}") for n in range(MESSAGES)])
    text = workspace.config.read_text().replace("[model]\n", "[model]\nactors = 2\nshard_tokens = 300\n")
    workspace.config.write_text(f'{text}[ray]\naddress = "{cluster.address}"\n')
    log = workspace.root / "state" / "vectors" / "_delta_log"
    seen: list[int] = []

    def lose_one() -> None:
        while not any(log.glob("*2.json")):
            time.sleep(0.05)
        seen.append(len(list(log.glob("*.json"))))
        cluster.remove_node(lost, allow_graceful=False)

    thread = threading.Thread(target=lose_one, daemon=True)
    thread.start()
    ran = workspace.run()
    assert ran.code == 0, ran
    assert seen and seen[0] < len(list(log.glob("*.json"))), "it was lost when all was encoded"
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    assert ran.body["chunks"]["embedded"] == ran.body["chunks"]["total"] == ran.body["index_rows"]["after"] > MESSAGES
    assert workspace.verify().code == 0
