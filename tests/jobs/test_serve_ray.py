"""The query service on a real Ray Serve, as a RayService runs it: by its import path and its arguments."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.search.query_encoder import QueryEncoder
from jobs.telemetry.progress import Progress
from tests.support.paths import ROOT
from tests.support.ports import free_ports
from tests.support.serving import SECRET, token
from tests.support.workspace import TEAM, Workspace

pytest.importorskip("grpc_reflection", reason='Ray Serve is not whole here; `pip install "ray[serve]"`')

# In a process of its own: Ray Serve's proxies and controller end with it.
_SERVE = """
import importlib, json, sys, urllib.request
import ray
from ray import serve

path, config, bearer, port = sys.argv[1:]
module, name = path.split(":")
ray.init(num_cpus=2, include_dashboard=False, logging_level="error", log_to_driver=False)
serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
serve.run(getattr(importlib.import_module(module), name)({"config": config}))
found = {}
for route, body in (("/embed", {"inputs": ["lockers"]}), ("/search", {"query": "lockers", "k": 2}), ("/readyz", None)):
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}{route}", data, {"authorization": f"Bearer {bearer}"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        found[route] = [answer.status, answer.headers["x-embedmill-space"], json.load(answer)]
print("FOUND", json.dumps(found))
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.usefixtures("encoder_here")
def test_ray_serve_answers_as_the_one_process_does(ran: Workspace) -> None:
    expected = ran.call("search", "lockers", "--team", TEAM, "--k", "2").body
    with QueryEncoder(Pipeline(load_config(ran.config), Progress())) as encoder:
        vector = encoder.encode(["lockers"])
    command = [sys.executable, "-c", _SERVE, "jobs.serve.ray_app:build", str(ran.config), token(TEAM)]
    done = subprocess.run(
        [*command, str(free_ports(1)[0])],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=ran.root,
        env={
            **os.environ,
            "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
            "EMBEDMILL__SERVE__JWT_KEY": SECRET,
        },
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("FOUND ")] or [done.stderr[-3000:]]
    found = json.loads(line.removeprefix("FOUND "))
    np.testing.assert_allclose(found["/embed"][2], vector, atol=1e-6)
    assert found["/search"][2]["hits"] == expected["hits"]
    assert found["/embed"][:2] == found["/search"][:2] == [200, expected["space_id"]]
    assert found["/readyz"][2]["status"] == "ok"


def test_a_service_that_does_not_check_who_asks_is_not_built(workspace: Workspace) -> None:
    from embedding.errors import ConfigError
    from jobs.serve.ray_app import build

    with pytest.raises(ConfigError, match="serve.jwt_public_key"):
        build({"config": str(Path(workspace.config))})
