"""Actors that die and texts that no encoder can take, with real Ray: the rest is published, and nothing is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import numpy.typing as npt
import psutil
import pytest
import ray

from embedding.encoders.spec import EncoderSpec
from jobs.config import Config
from jobs.config_sections import Model, Ray
from jobs.embed import embed
from jobs.engines.compat import minimal_ray
from jobs.engines.ray import gpu_node
from jobs.state.store import State
from tests.support.paths import ON_RAY, ROOT
from tests.support.workspace import Workspace, counts, message

RAISES = "this one raises"
KILLS = "this one kills"
MESSAGES = 400


def break_the_encoder() -> None:
    """Runs in every worker as it starts: the stand-in encoder gets slow, and dies of two texts."""
    from embedding.encoders.local.hashed import HashEncoder

    encode = HashEncoder.encode

    def fragile(self: HashEncoder, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        time.sleep(0.002 * len(texts))
        if any(KILLS in text for text in texts):
            os._exit(1)
        if any(RAISES in text for text in texts):
            raise ValueError(f"cannot encode {texts}")
        return encode(self, texts, tokens)

    setattr(HashEncoder, "encode", fragile)  # noqa: B010 - an assignment has no type


@pytest.fixture(scope="module")
def fragile() -> Iterator[None]:
    """A Ray of our own whose encoders are fragile; the run finds it started and uses it."""
    ray.shutdown()
    environment = {"PYTHONPATH": str(ROOT)}
    with minimal_ray():
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=200_000_000,
            num_gpus=1,  # that Ray may hand out; nothing computes on it
            log_to_driver=False,
            runtime_env={"worker_process_setup_hook": break_the_encoder, "env_vars": environment},
        )
    yield
    ray.shutdown()


@pytest.fixture
def busy(workspace: Workspace) -> Workspace:
    """Several shards of messages."""
    workspace.day("general", [message(n, f"report {n} from desk {n % 13}") for n in range(MESSAGES)])
    text = workspace.config.read_text()
    workspace.config.write_text(text.replace("[model]\n", ON_RAY + "[model]\nshard_tokens = 400\n"))
    return workspace


def _quarantined(workspace: Workspace) -> dict[str, str]:
    rows = State(workspace.root / "state").read("quarantine", ["key", "reason", "step"]).to_pylist()
    assert all(row["step"] == "embed" for row in rows)
    return {row["key"]: row["reason"] for row in rows}


@pytest.mark.slow
def test_texts_that_no_encoder_takes_are_found_and_the_rest_is_published(busy: Workspace, fragile: None) -> None:
    said = [*busy.messages("general"), message(500, f"{RAISES} alone"), message(501, f"{KILLS} alone")]
    busy.day("general", said)
    ran = busy.run()
    assert ran.code == 3, ran
    bad = {"T01/m/C1/1740960500.000100#0": "encoder_fails", "T01/m/C1/1740960501.000100#0": "kills_encoder"}
    assert _quarantined(busy) == bad
    assert ran.body["documents"]["quarantined"] == 2
    assert ran.body["chunks"]["embedded"] == ran.body["chunks"]["total"] - 2 == ran.body["index_rows"]["after"]
    verified = busy.verify()
    assert verified.code == 0, verified

    said[-2] = message(500, "an edit that helps") | {"edited": {"user": "U1", "ts": "1750000000.000000"}}
    busy.day("general", said[:-1])
    mended = busy.run()
    assert mended.code == 0, "what was edited or deleted has left the quarantine"
    assert counts(mended) == {"embedded": 1}
    assert _quarantined(busy) == {}
    assert busy.verify().code == 0


@pytest.mark.slow
def test_an_actor_that_has_a_gpu_encodes_every_shard(busy: Workspace, fragile: None) -> None:
    text = busy.config.read_text()
    busy.config.write_text(text.replace("[model]\n", "[model]\ngpus_per_actor = 1\n"))
    ran = busy.run()
    assert ran.code == 0, ran
    assert ran.body["chunks"]["embedded"] == ran.body["chunks"]["total"] == ran.body["index_rows"]["after"] > MESSAGES
    assert busy.verify().code == 0


@pytest.mark.slow
def test_what_encodes_is_chosen_where_actors_run(
    fragile: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def seen(spec: EncoderSpec) -> EncoderSpec:
        import ray

        context = ray.get_runtime_context()
        taken = context.get_assigned_resources().get("GPU", 0.0)
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") == ""
        return replace(spec, precision=f"{context.get_node_id() == node} {taken} {'hidden' if hidden else 'seen'}")

    monkeypatch.setattr(embed, "choose", seen)
    node, spec = gpu_node(), EncoderSpec("torch", ROOT, ROOT, 64, 8)
    assert node
    holder = ray.remote(num_gpus=1)(
        lambda: time.sleep(600)
    ).remote()  # another job's: what encodes is chosen all the same
    while ray.available_resources().get("GPU"):
        time.sleep(0.1)
    for model, told in ((Model(), "seen"), (Model(gpus_per_actor=0.5), "seen"), (Model(gpus_per_actor=0), "hidden")):
        config = cast(Config, SimpleNamespace(model=model, ray=Ray()))
        assert embed.ready(config, State(tmp_path / "state"), spec).precision == f"True 0.0 {told}"
    ray.cancel(holder, force=True)


def _arguments(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # it has ended, or is ending
        return []


@pytest.mark.slow
def test_the_work_of_a_killed_actor_is_taken_up_by_another(busy: Workspace, fragile: None) -> None:
    killed: list[int] = []
    done = threading.Event()

    def kill_one() -> None:
        while not done.is_set() and not killed:
            stored = any((busy.root / "state" / "vectors" / "_delta_log").glob("*1.json"))
            for process in psutil.Process().children(recursive=True) if stored else ():
                if "EncodeShard" in " ".join(_arguments(process)):
                    process.kill()
                    killed.append(process.pid)
                    return
            time.sleep(0.01)

    killer = threading.Thread(target=kill_one)
    killer.start()
    ran = busy.run()
    done.set()
    killer.join()
    assert killed, "the actor was not seen"
    assert ran.code == 0, ran
    assert ran.body["chunks"]["embedded"] == ran.body["chunks"]["total"] == ran.body["index_rows"]["after"]
    assert busy.verify().code == 0
