"""A job as a Kubernetes resource, and what a resource's status says. Pure: no client, no environment, no secret.

A resource is a shape (``shapes``) with one job's name, command, variables and mark filled in. Secrets reach the pods
from a Kubernetes Secret by its name; a resource holds none.
"""

from __future__ import annotations

import copy
import enum
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from embedmill_airflow.launchers import Job
from embedmill_airflow.launchers.outcome import MARK

PREFIX = "EMBEDMILL_KUBERNETES_"
ANNOTATION = "embedmill/outcome-mark"
MAX_NAME = 47  # KubeRay's, which makes longer names of it


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how large jobs run. Each field is a variable, EMBEDMILL_KUBERNETES_ and its name in capitals."""

    image: str = ""  # must be given where no shapes are
    shapes: str = ""  # a folder with the shapes that the Helm chart renders; all below but the next two are theirs then
    namespace: str = "default"
    connection: str = "kubernetes_default"  # Airflow's
    ray_image: str = ""  # "" is the image
    service_account: str = "embedmill"  # of drivers: it may make, list and delete pods, services and config maps
    ray_service_account: str = ""  # of Ray's pods, which need no right; "" is the drivers'
    secret: str = ""  # a Secret whose keys are variables of embedmill
    config_map: str = ""  # a ConfigMap with the key embedmill.toml; "" takes EMBEDMILL_CONFIG, a file in the image
    claim: str = ""  # a PersistentVolumeClaim that many pods may write, for the state
    claim_path: str = "/state"
    python: str = "python"  # of the image, with embedmill
    # jobs/cli/cluster_entrypoint.py where docker/install/python.sh puts it
    main_file: str = "local:///opt/embedmill/lib/python3.11/site-packages/jobs/cli/cluster_entrypoint.py"
    spark_version: str = "4.3.0"
    driver_cores: int = 1
    driver_memory: str = "4g"
    executors: int = 2
    executor_cores: int = 2
    executor_memory: str = "4g"
    ray_version: str = "2.60.0"
    head_cpu: str = "2"
    head_memory: str = "8Gi"
    workers: int = 1  # 0: the head works too
    worker_cpu: str = "4"
    worker_memory: str = "8Gi"
    worker_gpus: int = 0
    ttl_seconds: int = 86_400  # how long an ended resource stays to be looked at

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> Settings:
        """From variables. Raises ValueError that names the variable."""
        found: dict[str, Any] = {}
        known = {PREFIX + field.name.upper(): field for field in fields(cls)}
        for name in environment:
            if name.startswith(PREFIX) and name not in known:
                raise ValueError(f"{name}: no such setting; known are {', '.join(sorted(known))}")
        for name, field in known.items():
            text = environment.get(name, "")
            if not text:
                continue
            number = field.type == "int"
            if number and not text.isdigit():
                raise ValueError(f"{name}: give a number, not {text!r}")
            found[field.name] = int(text) if number else text
        if "shapes" in found:
            for name in found.keys() - {"shapes", "namespace", "connection"}:
                raise ValueError(f"{PREFIX}{name.upper()}: the shapes in {found['shapes']} say that; leave it out")
        elif "image" not in found:
            raise ValueError(f"{PREFIX}IMAGE: give the image that holds embedmill")
        return cls(**found)


@dataclass(frozen=True, slots=True)
class Kind:
    """How the API calls a kind of resource, and which container's log is the job's."""

    group: str
    version: str
    plural: str
    pods: str  # selects its pods by label
    container: str


KINDS = {
    "SparkApplication": Kind(
        "sparkoperator.k8s.io",
        "v1beta2",
        "sparkapplications",
        "sparkoperator.k8s.io/app-name={name},spark-role=driver",
        "spark-kubernetes-driver",
    ),
    "RayJob": Kind("ray.io", "v1", "rayjobs", "job-name={name}", "ray-job-submitter"),
}


class State(enum.StrEnum):
    """What a resource's status comes to."""

    running = "running"
    succeeded = "succeeded"
    failed = "failed"
    unknown = "unknown"  # its node does not answer; it may come back
    lost = "lost"


def kind(job: Job) -> str:
    """Which kind of resource a job becomes."""
    return "RayJob" if job.engine == "ray" else "SparkApplication"


def render(job: Job, shape: Mapping[str, Any], namespace: str, mark: str) -> dict[str, Any]:
    """The resource of a job, whose outcome will be marked with ``mark``: its kind's shape, filled in."""
    if len(job.name) > MAX_NAME:
        raise ValueError(f"job name {job.name!r} has more than {MAX_NAME} characters")
    made: dict[str, Any] = copy.deepcopy(dict(shape))
    made["metadata"] |= {"name": job.name, "namespace": namespace, "annotations": {ANNOTATION: mark}}
    spec = made["spec"]
    if made["kind"] == "RayJob":
        spec["entrypoint"] += " " + shlex.join(job.arguments)
        cluster = spec["rayClusterSpec"]
        groups = [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]
        processes = [group["template"]["spec"]["containers"][0] for group in groups]
    else:
        spec["arguments"] = list(job.arguments)
        processes = [spec["driver"], spec["executor"]]
    for process in processes:
        process["env"] = _filled(process["env"], dict(job.environment) | {MARK: mark})
    return made


def _filled(shape: list[dict[str, Any]], given: Mapping[str, str]) -> list[dict[str, Any]]:
    """The variables of a shape and those of a job; what the shape says of the cluster stands."""
    said = {variable["name"] for variable in shape}
    return shape + [{"name": name, "value": value} for name, value in given.items() if name not in said]


def state(resource: Mapping[str, Any] | None) -> State:
    """What the status of a resource comes to; None is one that is not there."""
    if resource is None or resource["metadata"].get("deletionTimestamp"):
        return State.lost
    status = resource.get("status") or {}
    if resource["kind"] == "RayJob":
        # Also a failed job's deployment may be called complete, and a job may succeed before its submitter has ended.
        ended = status.get("jobDeploymentStatus", "")
        if ended == "Complete":
            return State.succeeded if status.get("jobStatus") == "SUCCEEDED" else State.failed
        return State.failed if ended in ("Failed", "ValidationFailed") else State.running
    application = (status.get("applicationState") or {}).get("state", "")
    found = {"COMPLETED": State.succeeded, "FAILED": State.failed, "UNKNOWN": State.unknown}
    return found.get(application, State.running)


def reason(resource: Mapping[str, Any] | None) -> str:
    """Why a resource failed, in one line; what comes after it may be a piece of the log."""
    if resource is None:
        return "it is not there"
    status = resource.get("status") or {}
    application = status.get("applicationState") or {}
    words = [status.get("reason"), status.get("message"), application.get("errorMessage")]
    return "; ".join(word.splitlines()[0][:200] for word in words if word) or "without a reason"
