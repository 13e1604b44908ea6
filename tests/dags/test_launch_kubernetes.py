"""The Kubernetes launcher: resources against the published schemas, and its calls against a protocol double.

No Kubernetes cluster was run. What imports Airflow runs in a Python of its own: the import sets up logging anew.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import crd
from tests.support.forked_python import ForkedPython
from tests.support.kubernetes_double import Kubernetes, Play, ending, mark
from tests.support.paths import ROOT

DAGS = ROOT / "dags"
KINDS = ["SparkApplication", "RayJob"]
FULL = {
    "EMBEDMILL_KUBERNETES_IMAGE": "registry/embedmill:1",
    "EMBEDMILL_KUBERNETES_SECRET": "embedmill-secrets",
    "EMBEDMILL_KUBERNETES_CONFIG_MAP": "embedmill-config",
    "EMBEDMILL_KUBERNETES_CLAIM": "embedmill-state",
    "EMBEDMILL_KUBERNETES_WORKER_GPUS": "1",
    "EMBEDMILL_KUBERNETES_WORKERS": "3",
}
IN_STORE = {name: value for name, value in FULL.items() if not name.endswith("_CLAIM")}
SMALL = {"EMBEDMILL_KUBERNETES_IMAGE": "embedmill", "EMBEDMILL_KUBERNETES_WORKERS": "0"}


@pytest.fixture(autouse=True)
def _dags(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DAGS))


def job(kind: str, name: str = "embedmill-a-step-0123456789ab") -> Any:
    from embedmill_airflow.launchers import Job

    engine = "ray" if kind == "RayJob" else "spark"
    arguments = ("step", "plan", "--run-id", "a run's id", "--json")
    return Job(name, arguments, engine, {"EMBEDMILL_CONFIG": "/app/embedmill.toml"})


def rendered(kind: str, environment: dict[str, str] = FULL) -> dict[str, Any]:
    from embedmill_airflow.launchers.manifests import Settings, render
    from embedmill_airflow.launchers.shapes import shapes

    settings = Settings.read(environment)
    made = render(job(kind), shapes(settings)[kind], settings.namespace, "a-mark")
    assert made["kind"] == kind
    return made


# -- resources --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [FULL, IN_STORE, SMALL], ids=["full", "state in a store", "small"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_resource_is_valid_against_the_published_schema(kind: str, environment: dict[str, str]) -> None:
    resource = rendered(kind, environment)
    assert crd.errors(resource) == []
    assert ("persistentVolumeClaim" in json.dumps(resource)) == (environment is FULL)


@pytest.mark.parametrize(
    ("kind", "path", "key", "value", "said"),
    [
        ("SparkApplication", ("spec", "driver"), "envFroms", [], "spec.driver"),
        ("SparkApplication", ("spec",), "sparkVersions", "4", "spec"),
        ("SparkApplication", ("spec", "executor"), "instances", "2", "spec.executor.instances"),
        ("SparkApplication", ("spec", "restartPolicy"), "type", "Sometimes", "spec.restartPolicy.type"),
        ("SparkApplication", ("spec", "volumes", 1, "configMap"), "nam", "x", "spec.volumes.1.configMap"),
        ("RayJob", ("spec",), "entryPoint", "true", "spec"),
        ("RayJob", ("spec", "rayClusterSpec", "workerGroupSpecs", 0), "replica", 1, "workerGroupSpecs.0"),
        (
            "RayJob",
            ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0),
            "envfrom",
            [],
            "containers.0",
        ),
        ("RayJob", ("spec",), "backoffLimit", "0", "spec.backoffLimit"),
        ("RayJob", (), "specs", {}, ""),
    ],
)
def test_a_misspelt_or_wrong_field_is_found_out(
    kind: str, path: tuple[Any, ...], key: str, value: Any, said: str
) -> None:
    resource = rendered(kind)
    place: Any = resource
    for part in path:
        place = place[part]
    place[key] = value
    found = crd.errors(resource)
    assert len(found) == 1 and said in found[0] and key.split(".")[-1] in found[0], found


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("SparkApplication", ("spec", "mainApplicationFile")),
        ("SparkApplication", ("spec", "driver")),
        ("RayJob", ("spec", "rayClusterSpec", "headGroupSpec")),
        ("RayJob", ("spec", "rayClusterSpec", "workerGroupSpecs", 0, "groupName")),
    ],
)
def test_a_missing_field_is_found_out(kind: str, path: tuple[Any, ...]) -> None:
    resource = rendered(kind)
    place: Any = resource
    for part in path[:-1]:
        place = place[part]
    del place[path[-1]]
    assert [error for error in crd.errors(resource) if f"'{path[-1]}' is a required property" in error]


def test_a_variable_given_twice_is_found_out() -> None:
    resource = rendered("RayJob")
    resource["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["env"] *= 2
    assert "is there twice" in crd.errors(resource)[0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_resource_holds_the_command_and_the_mark_and_names_the_secret_alone(kind: str) -> None:
    resource = rendered(kind)
    text = json.dumps(resource)
    assert mark(resource) == "a-mark" and resource["metadata"]["annotations"] == {"embedmill/outcome-mark": "a-mark"}
    assert '{"secretRef": {"name": "embedmill-secrets"}}' in text
    assert '"value": "/etc/embedmill/embedmill.toml"' in text and "/app/" not in text  # the config map's
    if kind == "SparkApplication":
        assert resource["spec"]["arguments"] == ["step", "plan", "--run-id", "a run's id", "--json"]
    else:
        import shlex

        words = shlex.split(resource["spec"]["entrypoint"])
        assert words == [
            "python",
            "-m",
            "jobs.cli.cluster_entrypoint",
            "step",
            "plan",
            "--run-id",
            "a run's id",
            "--json",
        ]


def test_a_name_that_kuberay_refuses_is_refused_here() -> None:
    from embedmill_airflow.launchers.manifests import render

    with pytest.raises(ValueError, match="more than 47"):
        render(job("RayJob", "e" * 48), {}, "default", "a-mark")


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({}, "EMBEDMILL_KUBERNETES_IMAGE: give"),
        ({"EMBEDMILL_KUBERNETES_WORKERS": "two"}, "EMBEDMILL_KUBERNETES_WORKERS: give a number, not 'two'"),
        ({"EMBEDMILL_KUBERNETES_NAMESPCE": "x"}, "EMBEDMILL_KUBERNETES_NAMESPCE: no such setting"),
        (
            {"EMBEDMILL_KUBERNETES_SHAPES": "/shapes", "EMBEDMILL_KUBERNETES_WORKERS": "2"},
            "EMBEDMILL_KUBERNETES_WORKERS: the shapes in /shapes say that",
        ),
    ],
)
def test_a_wrong_setting_is_named(environment: dict[str, str], said: str) -> None:
    from embedmill_airflow.launchers.manifests import Settings

    with pytest.raises(ValueError, match=said):
        Settings.read(environment)


def test_the_shape_of_a_folder_is_filled_in_and_what_it_says_of_the_cluster_stands(tmp_path: Path) -> None:
    from embedmill_airflow.launchers.manifests import Settings, render
    from embedmill_airflow.launchers.shapes import shapes

    for kind, shape in shapes(Settings.read(FULL)).items():
        shape["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "a-queue"
        (tmp_path / f"{kind}.json").write_text(json.dumps(shape))
    given = {"EMBEDMILL_KUBERNETES_SHAPES": str(tmp_path), "EMBEDMILL_KUBERNETES_NAMESPACE": "search"}
    for kind in KINDS:
        expected = render(job(kind), shapes(Settings.read(FULL))[kind], "search", "a-mark")
        expected["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "a-queue"
        assert rendered(kind, given) == expected
        assert "/app/embedmill.toml" not in json.dumps(expected)  # Airflow's own: the shape names the config map's


@pytest.mark.parametrize("text", [None, "{", "[]", '{"kind": "Pod"}'])
def test_a_folder_that_holds_no_shapes_is_refused_by_its_variable(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "SparkApplication.json").write_text(text)
    with pytest.raises(ValueError, match=r"EMBEDMILL_KUBERNETES_SHAPES: .*SparkApplication\.json is no shape"):
        rendered("SparkApplication", {"EMBEDMILL_KUBERNETES_SHAPES": str(tmp_path)})


@pytest.mark.parametrize("kind", KINDS)
def test_a_pod_has_no_rights_and_writes_to_its_volumes_alone(kind: str) -> None:
    from tests.support.helm import pods

    for pod in pods(rendered(kind)):
        [container] = pod.spec["containers"]
        assert pod.spec["securityContext"]["runAsNonRoot"] and pod.spec["securityContext"]["runAsUser"] == 10001
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert {"name": "HOME", "value": "/tmp"} in container["env"]
        assert {"name": "scratch", "mountPath": "/tmp"} in container["volumeMounts"]
        assert pod.spec["automountServiceAccountToken"] == (pod.part == "spark-driver")


def test_the_docs_name_every_setting_with_its_default() -> None:
    from embedmill_airflow.launchers.manifests import Settings

    page = (ROOT / "docs" / "kubernetes.md").read_text()
    for one in dataclasses.fields(Settings):
        default = "" if one.default in ("", dataclasses.MISSING) else f"`{one.default}`"
        assert f"| `{one.name.upper()}` | {default} |".replace("|  |", "| |") in page, one.name
    assert "No Kubernetes cluster was run" in page


def test_the_versions_are_those_that_are_installed() -> None:
    from embedmill_airflow.launchers.manifests import Settings

    settings = Settings("embedmill")
    assert settings.spark_version == importlib.metadata.version("pyspark")
    assert settings.ray_version == importlib.metadata.version("ray")


def test_a_status_is_read_as_what_it_means() -> None:
    from embedmill_airflow.launchers.manifests import state

    def spark(word: str | None) -> str:
        status = {} if word is None else {"status": {"applicationState": {"state": word}}}
        return str(state({"kind": "SparkApplication", "metadata": {}, **status}))

    def ray(deployment: str, of_job: str = "") -> str:
        status = {"jobDeploymentStatus": deployment, "jobStatus": of_job}
        return str(state({"kind": "RayJob", "metadata": {}, "status": status}))

    words = (
        None,
        "",
        "SUBMITTED",
        "RUNNING",
        "SUCCEEDING",
        "FAILING",
        "SUBMISSION_FAILED",
        "PENDING_RERUN",
        "INVALIDATING",
        "SUSPENDED",
    )
    assert {spark(word) for word in words} == {"running"}
    assert [spark(word) for word in ("COMPLETED", "FAILED", "UNKNOWN")] == ["succeeded", "failed", "unknown"]
    deployments = ("", "Initializing", "Running", "Retrying", "Suspending", "Suspended", "Waiting", "Scheduled")
    assert {ray(one) for one in deployments} == {"running"}
    assert ray("Running", "SUCCEEDED") == "running"  # its submitter still writes the log
    assert [ray("Complete", one) for one in ("SUCCEEDED", "FAILED", "STOPPED")] == ["succeeded", "failed", "failed"]
    assert [ray(one) for one in ("Failed", "ValidationFailed", "Complete")] == ["failed"] * 3
    assert state(None) == "lost" and state({"kind": "RayJob", "metadata": {"deletionTimestamp": "now"}}) == "lost"


# -- the API ----------------------------------------------------------------------------------------------------------

PRELUDE = """
import asyncio, importlib, json, logging, sys, time
sys.path.insert(0, {dags!r})
from embedmill_airflow.launchers import Job, JobLost, Outcome
from embedmill_airflow.launchers.kubernetes import Kubernetes
from embedmill_airflow.launchers.manifests import Settings
log = logging.getLogger("task")
log.setLevel(logging.INFO)
log.propagate = False
log.addHandler(logging.StreamHandler(sys.stderr))
start = Kubernetes(Settings("embedmill:1"), patience_seconds=3, poll_seconds=0.1)
job = Job("embedmill-a-step-0123456789ab", ("status", "--json"), {engine!r}, {{}})
def again(trigger):  # as a triggerer gets it
    path, options = trigger.serialize()
    module, name = path.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)(**json.loads(json.dumps(options)))
def fire(trigger):
    async def first():
        async for event in again(trigger).run():
            return event.payload
    return asyncio.run(asyncio.wait_for(first(), 60))
def whole(seconds=60.0):
    try:
        outcome = start.end(job, fire(start.begin(job, log=log, seconds=seconds)), log=log)
        return [outcome.code, outcome.body]
    except JobLost as error:
        return str(error)
def found(*said):
    print("FOUND " + json.dumps(said))
"""


# What a launcher imports when it is used.
HOOKS = """
from airflow.providers.cncf.kubernetes.hooks.kubernetes import AsyncKubernetesHook, KubernetesHook
from embedmill_airflow.launchers import trigger
"""


@pytest.fixture
def double() -> Iterator[Kubernetes]:
    made = Kubernetes()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkedPython]:
    """A Python of its own for each script; Airflow is imported once for all."""
    home = {"AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow")), "AIRFLOW__WORKERS__API_RETRIES": "1"}
    imported = PRELUDE.partition("log = ")[0].format(dags=str(DAGS)) + HOOKS
    made = ForkedPython(imported, home)
    yield made
    made.stop()


@dataclasses.dataclass(frozen=True)
class Drive:
    """The double, and the Python that calls it from a folder."""

    double: Kubernetes
    python: ForkedPython
    folder: Path

    def __call__(self, script: str, *, kind: str = "SparkApplication") -> tuple[Any, str]:
        """Run a script after the prelude; what it found, and said.

        The provider's default connection leads to the double.
        """
        config = self.double.kubeconfig(self.folder / "config")
        connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(config)}}
        engine = "ray" if kind == "RayJob" else "spark"
        ran = self.python.run(
            PRELUDE.format(dags=str(DAGS), engine=engine) + script,
            self.folder,
            {"AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(connection)},
        )
        assert "FOUND " in ran.stdout, ran.stdout[-2000:] + ran.stderr[-3000:]
        return json.loads(ran.stdout.split("FOUND ", 1)[1]), ran.stderr


@pytest.fixture
def drive(double: Kubernetes, python: ForkedPython, tmp_path: Path) -> Drive:
    return Drive(double, python, tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_a_job_s_outcome_and_log_come_back_and_clearing_runs_it_again(
    double: Kubernetes, drive: Drive, kind: str
) -> None:
    double.operator = ending(0, {"rows": 7})
    found, said = drive("found(whole(), whole())", kind=kind)
    assert found == [[0, {"rows": 7}], [0, {"rows": 7}]]
    assert double.count("POST") == 2 and not double.objects  # what ended well is gone once it was read
    assert said.count("on the way") == 2 and "embedmill-outcome" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_failed_job_stays_to_be_looked_at_and_a_retry_replaces_it(
    double: Kubernetes, drive: Drive, kind: str
) -> None:
    double.operator, double.linger = ending(3), 0.5
    found, said = drive("found(whole(), whole())", kind=kind)
    assert found == [[3, {"done": 1}], [3, {"done": 1}]]
    assert double.count("POST") == 2 and len(double.objects) == 1 and "of an earlier try is failed" in said


def test_a_retry_attaches_to_what_runs_and_takes_what_nobody_read(double: Kubernetes, drive: Drive) -> None:
    double.operator = ending(0, after=3)
    script = (
        "first = start.begin(job, log=log, seconds=60)\n"
        "second = start.begin(job, log=log, seconds=60)\n"
        "fire(first)\n"  # it has ended, and the try that waited for it is dead
        "found(first.uid == second.uid, whole())"
    )
    found, said = drive(script)
    assert found == [True, [0, {"done": 1}]] and double.count("POST") == 1
    assert "which is running" in said and "which is succeeded" in said


@pytest.mark.parametrize(
    ("play", "said"),
    [
        ({"killed": 137, "code": None}, "failed, OOMKilled, exit 137"),
        ({"killed": 1, "code": 0}, "failed"),  # it said that all is well, and then did not end well
        ({"code": None}, "succeeded"),
    ],
)
def test_a_job_that_ends_without_its_report_is_lost(
    double: Kubernetes, drive: Drive, play: dict[str, Any], said: str
) -> None:
    double.operator = ending(**play)
    found, _ = drive("found(whole())")
    assert f"ended without its report ({said}" in found[0]


def test_what_vanishes_or_is_late_is_lost_and_late_ones_are_stopped(double: Kubernetes, drive: Drive) -> None:
    def vanish(resource: dict[str, Any], reads: int) -> Play | None:
        if reads > 2:
            double.objects.clear()
        return ending(0, after=99)(resource, reads)

    double.operator = vanish
    [gone], _ = drive("found(whole())")
    double.operator = ending(0, after=10_000)
    [late], _ = drive("found(whole(seconds=0.5))")
    assert "lost" in gone and "late" in late and not double.objects


def test_an_api_that_is_away_for_a_moment_loses_nothing_and_for_long_the_job(double: Kubernetes, drive: Drive) -> None:
    def away(seconds: float) -> Any:
        def operator(resource: dict[str, Any], reads: int) -> Play | None:
            if reads == 2 and not double.down:
                double.down = True
                threading.Timer(seconds, lambda: setattr(double, "down", False)).start()
            return ending(0, after=4)(resource, reads)

        return operator

    double.operator = away(1.0)
    [found], _ = drive("found(whole())")
    assert found == [0, {"done": 1}]
    double.operator = away(8.0)
    script = "trigger = start.begin(job, log=log, seconds=60); found(fire(trigger))"
    [event], _ = drive(script)
    assert event == {"state": "lost"}


def test_a_person_s_act_on_the_waiting_task_deletes_its_resource_and_no_other(double: Kubernetes, drive: Drive) -> None:
    double.operator = ending(0, after=10_000)
    script = """
trigger = again(start.begin(job, log=log, seconds=60))
async def cancelled():  # as a triggerer that stops does: the trigger is only cancelled
    async def run():
        async for event in trigger.run():
            pass
    task = asyncio.create_task(run())
    await asyncio.sleep(0.5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await trigger.cleanup()
asyncio.run(cancelled())
after_shutdown = start._get(job) is not None
later = again(trigger)
later.uid = "of-another-try"
asyncio.run(later.on_kill())
after_another_s = start._get(job) is not None
asyncio.run(trigger.on_kill())
asyncio.run(trigger.on_kill())  # it is gone: nothing to do
found(after_shutdown, after_another_s, start._get(job) is None)
"""
    found, _ = drive(script)
    assert found == [True, True, True]


def test_stop_waits_for_nothing_and_deletes_with_the_pods(double: Kubernetes, drive: Drive) -> None:
    double.operator, double.linger = ending(0, after=10_000), 30
    script = (
        "start.begin(job, log=log, seconds=60); start.stop(job)\n"
        "held = start._get(job)\n"
        "try:\n    start.begin(job, log=log, seconds=60)\n"
        "except JobLost as error:\n    found('deletionTimestamp' in held['metadata'], str(error))"
    )
    [marked, said], _ = drive(script)
    assert marked and "does not go away" in said and double.count("POST") == 1


# -- the operator -----------------------------------------------------------------------------------------------------

LAUNCH = """
import json, os, sys
sys.path.insert(0, {dags!r})
from airflow.sdk.exceptions import AirflowFailException
from embedmill_airflow.launchers.choose import launcher
said = []
for environment in json.loads(sys.argv[1]):
    for name in [name for name in os.environ if name.startswith("EMBEDMILL_")]:
        del os.environ[name]
    os.environ.update(environment)
    try:
        said.append(type(launcher()).__name__)
    except AirflowFailException as error:
        said.append(str(error))
print("FOUND " + json.dumps(said))
"""


def test_the_launcher_is_the_one_that_is_named_and_a_wrong_setting_is_not_retried(tmp_path: Path) -> None:
    asked = [
        {},
        {"EMBEDMILL_LAUNCHER": "ray-jobs", "EMBEDMILL_RAY_JOBS_ADDRESS": "http://ray:8265"},
        {"EMBEDMILL_LAUNCHER": "kubernetes", "EMBEDMILL_KUBERNETES_IMAGE": "embedmill"},
        {"EMBEDMILL_LAUNCHER": "yarn"},
        {"EMBEDMILL_LAUNCHER": "ray-jobs"},
        {
            "EMBEDMILL_LAUNCHER": "ray-jobs",
            "EMBEDMILL_RAY_JOBS_ADDRESS": "http://ray:8265",
            "EMBEDMILL_RAY_JOBS_SECRETS": "somewhere",
        },
        {"EMBEDMILL_LAUNCHER": "kubernetes"},
    ]
    ran = subprocess.run(
        [sys.executable, "-c", LAUNCH.format(dags=str(DAGS)), json.dumps(asked)],
        capture_output=True,
        text=True,
        env=os.environ | {"AIRFLOW_HOME": str(tmp_path)},
    )
    assert "FOUND " in ran.stdout, ran.stderr[-3000:]
    local, ray, kubernetes, *wrong = json.loads(ran.stdout.split("FOUND ", 1)[1])
    assert (local, ray, kubernetes) == ("Local", "RayJobs", "Kubernetes")
    assert wrong[0] == "EMBEDMILL_LAUNCHER: 'yarn' is no launcher; use local, ray-jobs, kubernetes"
    assert [one.split(":")[0] for one in wrong[1:]] == [
        "EMBEDMILL_RAY_JOBS_ADDRESS",
        "EMBEDMILL_RAY_JOBS_SECRETS",
        "EMBEDMILL_KUBERNETES_IMAGE",
    ]


def environment(double: Kubernetes, folder: Path) -> dict[str, str]:
    """What the processes of an Airflow need for the double."""
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": str(double.kubeconfig(folder / "config"))}}
    return {
        "EMBEDMILL_LAUNCHER": "kubernetes",
        "EMBEDMILL_KUBERNETES_IMAGE": "embedmill:1",
        "PYTHONPATH": str(DAGS),
        "AIRFLOW_CONN_KUBERNETES_DEFAULT": json.dumps(connection),
    }


@pytest.mark.slow
def test_a_dag_s_tasks_defer_and_end_with_their_jobs(double: Kubernetes, tmp_path: Path) -> None:
    from tests.support.airflow_server import Airflow

    double.operator = ending(0, {"status": "ok"}, after=0)
    airflow = Airflow(tmp_path / "airflow", environment(double, tmp_path), serve=False)
    conf = json.dumps({"team": "T1", "before": "2025-03-11"})
    printed = airflow.command("dags", "test", "embedmill_purge", "--conf", conf)
    assert "successful" in printed and double.count("POST") == 2 and not double.objects, printed[-3000:]


@pytest.mark.long
def test_a_deferred_task_s_job_outlives_the_triggerer_and_ends_with_the_task(
    double: Kubernetes, tmp_path: Path
) -> None:
    from tests.support.airflow_server import Airflow

    def until(met: Any, what: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        while not met():
            assert time.monotonic() < end, what
            time.sleep(0.5)

    double.operator = ending(0, after=10_000)
    airflow = Airflow(tmp_path / "airflow", environment(double, tmp_path))
    try:
        airflow.unpause("embedmill_purge")
        run = airflow.trigger("embedmill_purge", team="T1", before="2025-03-11")
        task = f"dags/embedmill_purge/dagRuns/{run}/taskInstances/purge"
        until(lambda: airflow.api("GET", task).json().get("state") == "deferred", "not deferred")
        until(lambda: any(double.reads.values()), "the trigger does not ask")
        airflow.kill("triggerer")
        [uid] = {held["metadata"]["uid"] for held in double.objects.values()}
        airflow.start("triggerer")
        before = double.reads[uid]
        until(lambda: double.reads[uid] > before + 1, "the other triggerer does not go on")
        assert airflow.api("PATCH", task, {"new_state": "failed"}).status_code == 200
        until(lambda: not double.objects, "the resource is still there")
        assert double.count("POST") == 1
    finally:
        airflow.stop()
