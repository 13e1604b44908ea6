"""The chart's commands and configuration against the product's own command line and reader."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from jobs.cli.app import app
from jobs.config import load_config
from tests.support.helm import CHART, MISSING, SIZES, of_kind, pods, render, values
from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(bool(MISSING), reason=MISSING)

SCRIPT = (CHART / "files" / "job.sh").read_text()


def cron_jobs(size: str = "1m") -> dict[str, dict[str, Any]]:
    return {one["metadata"]["name"]: one["spec"] for one in of_kind(render((values(size),)), "CronJob")}


def container(job: dict[str, Any]) -> dict[str, Any]:
    [found] = job["jobTemplate"]["spec"]["template"]["spec"]["containers"]
    return dict(found)


def config_map(size: str) -> str:
    [found] = [one for one in of_kind(render((values(size),)), "ConfigMap") if "embedmill.toml" in one["data"]]
    return str(found["data"]["embedmill.toml"])


# -- commands ---------------------------------------------------------------------------------------------------------


def test_the_command_line_knows_every_command_with_its_options() -> None:
    commands = getattr(typer.main.get_command(app), "commands", {})
    jobs = cron_jobs()
    assert set(jobs) == {"embedmill-run", "embedmill-verify", "embedmill-gc"}
    for name, job in jobs.items():
        command, *options = container(job)["args"]
        assert name == f"embedmill-{command}"
        assert options == ["--json", "--wait", "3600"]
        assert commands[command].make_context(command, options).params["wait"] == 3600


def test_where_airflow_runs_only_gc_is_left_to_cron() -> None:
    assert set(cron_jobs("100m")) == set(cron_jobs("1b")) == {"embedmill-gc"}


def test_one_run_at_a_time_and_no_retry_of_what_would_be_the_same() -> None:
    for job in cron_jobs().values():
        assert job["concurrencyPolicy"] == "Forbid" and job["timeZone"] == "Etc/UTC"
        spec = job["jobTemplate"]["spec"]
        actions = {one["action"]: one for one in spec["podFailurePolicy"]["rules"]}
        assert actions["FailJob"]["onExitCodes"]["values"] == [2, 4, 5]
        assert actions["FailJob"]["onExitCodes"]["containerName"] == container(job)["name"]
        assert actions["Ignore"]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
        assert spec["backoffLimit"] == 2 and spec["template"]["spec"]["restartPolicy"] == "Never"


def test_the_script_of_a_job_is_the_file_and_gets_the_arguments() -> None:
    for job in cron_jobs().values():
        shell, flag, script, name = container(job)["command"]
        assert (shell, flag, script, name) == ("sh", "-c", SCRIPT, "embedmill")


def fake(folder: Path, text: str) -> dict[str, str]:
    """An `embedmill` on the path that does so."""
    program = folder / "embedmill"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}


@pytest.mark.parametrize(("code", "ends"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 4), (5, 5), (143, 143)])
def test_a_job_ends_as_its_command_but_quarantine_is_no_failure(tmp_path: Path, code: int, ends: int) -> None:
    env = fake(tmp_path, f'echo "$@"; exit {code}')
    said = subprocess.run(["sh", "-c", SCRIPT, "embedmill", "run", "--wait", "a b"], env=env, capture_output=True)
    assert said.returncode == ends and said.stdout == b"run --wait a b\n"


def test_a_pod_that_is_told_to_end_tells_its_command_and_waits_for_it(tmp_path: Path) -> None:
    env = fake(tmp_path, 'trap "sleep 0.3; echo gave the lease back; exit 143" TERM; echo up; sleep 30 & wait $!')
    command = ["sh", "-c", SCRIPT, "embedmill", "run"]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, start_new_session=True) as job:
        assert job.stdout is not None and job.stdout.readline() == b"up\n"
        begun = time.monotonic()
        job.send_signal(signal.SIGTERM)  # to the shell alone, as a container's first process gets it
        assert job.wait(20) == 143 and time.monotonic() - begun < 10
        os.killpg(job.pid, signal.SIGKILL)  # the fake's own sleep
        assert job.stdout.read() == b"gave the lease back\n"


# -- configuration ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_the_product_reads_the_configuration_of_each_size(tmp_path: Path, size: str) -> None:
    file = tmp_path / "embedmill.toml"
    file.write_text(config_map(size))
    config = load_config(file)
    assert str(config.state.uri).startswith("s3://") and config.index.uri == "http://milvus.milvus.svc:19530"
    if size != "1m":
        resources = render((values(size),))
        shape = next(one for one in of_kind(resources, "ConfigMap") if one["metadata"]["name"] == "embedmill-shapes")
        [group] = yaml.safe_load(shape["data"]["RayJob.json"])["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        assert config.model.actors == group["replicas"]


def test_the_object_store_s_settings_are_variables_that_the_product_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ("objectStore.uri=s3://other/place", "objectStore.endpoint=http://minio:9000")
    sets = (*store, "objectStore.region=eu-central-1", "objectStore.allowHttp=true")
    more = tmp_path / "more.yaml"
    more.write_text('env: {EMBEDMILL__MODEL__ACTORS: "3"}\n')
    [job, *_] = of_kind(render((values("1m"), more), sets), "CronJob")
    [pod] = pods(job)
    given = {one["name"]: one["value"] for one in pod.spec["containers"][0]["env"]}
    assert given["EMBEDMILL_CONFIG"] == "/etc/embedmill/embedmill.toml"
    for name, value in given.items():
        if name.startswith("EMBEDMILL__"):
            monkeypatch.setenv(name, value)
    file = tmp_path / "embedmill.toml"
    file.write_text(config_map("1m"))
    config = load_config(file)
    assert (config.state.uri, config.state.storage.endpoint) == ("s3://other/place", "http://minio:9000")
    assert config.state.storage.region == "eu-central-1" and config.state.storage.allow_http
    assert config.model.actors == 3


def test_shared_memory_holds_ray_s_object_store() -> None:
    config = tomllib.loads(config_map("1m"))
    [memory] = [
        one["emptyDir"]
        for pod in pods(of_kind(render((values("1m"),)), "CronJob")[0])
        for one in pod.spec["volumes"]
        if one["name"] == "shared-memory"
    ]
    assert memory == {"medium": "Memory", "sizeLimit": "1Gi"} and config["ray"]["object_store_mb"] < 1024


def test_the_sizes_are_derived_from_figures_that_were_measured() -> None:
    page, measured = ((ROOT / "docs" / name).read_text() for name in ("helm.md", "performance.md"))
    table = page.partition("Measured (")[2].partition("**Assumed**")[0]
    figures = re.findall(r"\| ([\d,.]+\d) (?:for|tokens/s|rows/s)|in ([\d.]+) s", table)
    found = [one or other for one, other in figures if one != "40.6"]  # of a command that the page names
    assert len(found) == 6 + 1 and all(figure in measured for figure in found), found
    tokens, rows = 899_231 / 20_000, 25_667 / 20_000
    encoding = {1e6: 4 * 31_193 / 2, 1e8: 56 * 31_193 / 2, 1e9: 8 * 1_394_345}
    hours = [tokens * messages / speed / 3600 for messages, speed in encoding.items()]
    assert [f"{hours[0] * 60:.0f} min", f"{hours[1]:.1f} h", f"{hours[2]:.1f} h"] == ["12 min", "1.4 h", "1.1 h"]
    assert "| encode = tokens / that | 12 min (56 without bf16) | 1.4 h (6.7) | 1.1 h |" in page
    memory = [rows * 1e6 * (1536 + 128) * 1.5, rows * 1e8 * (768 + 128) * 1.5, rows * 1e9 * (768 + 128) * 1.5]
    assert [round(one / 1e9, 1) for one in memory] == [3.2, 172.5, 1724.8]
    assert "x 1.5 | 3.2 GB | 173 GB: 3 x 64 GB | 1.7 TB: 14 x 128 GB |" in page


# -- the query service ------------------------------------------------------------------------------------------------


def service(*sets: str, size: str = "1m") -> dict[str, Any]:
    [found] = of_kind(render((values(size),), ("serve.enabled=true", *sets)), "RayService")
    return dict(found["spec"])


def test_the_query_service_grows_from_no_worker_beside_a_head_that_stays() -> None:
    cluster = service()["rayClusterConfig"]
    [workers] = cluster["workerGroupSpecs"]
    assert cluster["enableInTreeAutoscaling"]
    assert (workers["minReplicas"], workers["replicas"], workers["maxReplicas"]) == (0, 0, 4)
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"  # else queries would run there
    [spread] = workers["template"]["spec"]["topologySpreadConstraints"]
    assert spread["labelSelector"] == {"matchLabels": {"embedmill/part": "serve"}}


def test_nodes_of_ray_are_asked_over_http_how_they_are() -> None:
    """KubeRay would ask by a `wget` in the container, which the image has not."""
    [found] = of_kind(render((values("100m"),)), "RayService")
    probes = {
        pod.part: [pod.spec["containers"][0][name]["httpGet"] for name in ("livenessProbe", "readinessProbe")]
        for pod in pods(found)
    }
    node = {"path": "/api/healthz", "port": 52365}
    assert probes == {"serve-head": [node, node], "serve": [node, {"path": "/-/healthz", "port": 8000}]}


def test_ray_serve_takes_its_configuration() -> None:
    schema = pytest.importorskip("ray.serve.schema", reason="ray[serve] is not installed")
    sets = ("serve.args.max_batch=8", "serve.deployments[0].name=Encoder", "serve.deployments[0].num_replicas=2")
    found = schema.ServeDeploySchema.model_validate(yaml.safe_load(service(*sets)["serveConfigV2"]))
    [application] = found.applications
    assert (application.import_path, application.route_prefix) == ("jobs.serve.ray_app:build", "/")
    assert application.args == {"max_batch": 8} and found.http_options.port == 8000
    assert application.deployments[0].num_replicas == 2


@pytest.mark.parametrize(("least", "budgets"), [(0, []), (1, []), (3, [1])])
def test_a_drain_leaves_a_worker_and_is_never_held_up_for_ever(least: int, budgets: list[int]) -> None:
    sets = ("serve.enabled=true", f"serve.worker.minReplicas={least}")
    found = of_kind(render((values("1m"),), sets), "PodDisruptionBudget")
    assert [one["spec"]["minAvailable"] for one in found] == budgets
    assert all(one["spec"]["selector"]["matchLabels"]["embedmill/part"] == "serve" for one in found)
