"""A job as a Kubernetes resource, and what a resource's status says. Pure: no client, no environment, no secret.

Secrets reach the pods from a Kubernetes Secret by its name; a resource holds none.
"""

from __future__ import annotations

import enum
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from embedmill_airflow.launchers import Job
from embedmill_airflow.launchers.outcome import MARK, MODULE

PREFIX = "EMBEDMILL_KUBERNETES_"
ANNOTATION = "embedmill/outcome-mark"
MAX_NAME = 47  # KubeRay's, which makes longer names of it
CONFIG_FOLDER = "/etc/embedmill"
CONFIG_FILE = f"{CONFIG_FOLDER}/embedmill.toml"


@dataclass(frozen=True, slots=True)
class Settings:
    """Where and how large jobs run. Each field is a variable, EMBEDMILL_KUBERNETES_ and its name in capitals."""

    image: str
    ray_image: str = ""  # "" is the image
    namespace: str = "default"
    connection: str = "kubernetes_default"  # Airflow's
    service_account: str = "embedmill"  # of drivers: it may make, list and delete pods, services and config maps
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
        if "image" not in found:
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


def render(job: Job, settings: Settings, mark: str) -> dict[str, Any]:
    """The resource of a job, whose outcome will be marked with ``mark``."""
    if len(job.name) > MAX_NAME:
        raise ValueError(f"job name {job.name!r} has more than {MAX_NAME} characters")
    return (ray_job if kind(job) == "RayJob" else spark_application)(job, settings, mark)


def spark_application(job: Job, settings: Settings, mark: str) -> dict[str, Any]:
    """For the Spark Operator, whose webhook must be on: it brings variables and volumes into the pods."""
    shared = {
        "env": _variables(job, settings, mark),
        "envFrom": _secret(settings),
        "volumeMounts": _mounts(settings),
    }
    spec = {
        "type": "Python",
        "pythonVersion": "3",
        "mode": "cluster",
        "sparkVersion": settings.spark_version,
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "mainApplicationFile": settings.main_file,
        "arguments": list(job.arguments),
        "restartPolicy": {"type": "Never"},  # Airflow tries again, and counts
        "timeToLiveSeconds": settings.ttl_seconds,
        "volumes": _volumes(settings),
        "driver": {
            "cores": settings.driver_cores,
            "memory": settings.driver_memory,
            "serviceAccount": settings.service_account,
            **shared,
        },
        "executor": {
            "instances": settings.executors,
            "cores": settings.executor_cores,
            "memory": settings.executor_memory,
            "deleteOnTermination": True,
            **shared,
        },
    }
    return _resource("SparkApplication", job, settings, mark, spec)


def ray_job(job: Job, settings: Settings, mark: str) -> dict[str, Any]:
    """For KubeRay: a cluster for this job alone, gone with it; the submitter's pod keeps the job's log."""
    head = {"dashboard-host": "0.0.0.0"} | ({"num-cpus": "0"} if settings.workers else {})
    cluster: dict[str, Any] = {
        "rayVersion": settings.ray_version,
        "headGroupSpec": {
            "rayStartParams": head,
            "template": _pod("ray-head", job, settings, mark, _size(settings.head_cpu, settings.head_memory)),
        },
    }
    if settings.workers:
        size = _size(settings.worker_cpu, settings.worker_memory, settings.worker_gpus)
        worker = _pod("ray-worker", job, settings, mark, size)
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": settings.workers,
                "minReplicas": settings.workers,
                "maxReplicas": settings.workers,
                "rayStartParams": {},
                "template": worker,
            }
        ]
    spec = {
        "entrypoint": shlex.join([settings.python, "-m", MODULE, *job.arguments]),
        "submissionMode": "K8sJobMode",
        "backoffLimit": 0,  # Airflow tries again, and counts
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 0,  # of the cluster, which costs; the resource and its log stay
        "rayClusterSpec": cluster,
    }
    return _resource("RayJob", job, settings, mark, spec)


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


def _resource(kind: str, job: Job, settings: Settings, mark: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{KINDS[kind].group}/{KINDS[kind].version}",
        "kind": kind,
        "metadata": {
            "name": job.name,
            "namespace": settings.namespace,
            "labels": {"app.kubernetes.io/name": "embedmill", "app.kubernetes.io/managed-by": "airflow"},
            "annotations": {ANNOTATION: mark},
        },
        "spec": spec,
    }


def _size(cpu: str, memory: str, gpus: int = 0) -> dict[str, Any]:
    return {"cpu": cpu, "memory": memory} | ({"nvidia.com/gpu": gpus} if gpus else {})


def _pod(name: str, job: Job, settings: Settings, mark: str, size: dict[str, Any]) -> dict[str, Any]:
    container = {
        "name": name,
        "image": settings.ray_image or settings.image,
        "imagePullPolicy": "IfNotPresent",
        "resources": {"requests": size, "limits": size},
        "env": _variables(job, settings, mark, EMBEDMILL__RAY__ADDRESS="auto"),
        "envFrom": _secret(settings),
        "volumeMounts": _mounts(settings),
    }
    account = settings.service_account
    return {"spec": {"serviceAccountName": account, "containers": [container], "volumes": _volumes(settings)}}


def _variables(job: Job, settings: Settings, mark: str, **more: str) -> list[dict[str, str]]:
    given = {"EMBEDMILL_PROGRESS": "lines", **more, **job.environment, MARK: mark}
    if settings.config_map:
        given["EMBEDMILL_CONFIG"] = CONFIG_FILE
    return [{"name": name, "value": value} for name, value in given.items()]


def _secret(settings: Settings) -> list[dict[str, Any]]:
    return [{"secretRef": {"name": settings.secret}}] if settings.secret else []


def _volumes(settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if settings.config_map:
        found.append({"name": "embedmill-config", "configMap": {"name": settings.config_map}})
    if settings.claim:
        found.append({"name": "embedmill-state", "persistentVolumeClaim": {"claimName": settings.claim}})
    return found


def _mounts(settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if settings.config_map:
        found.append({"name": "embedmill-config", "mountPath": CONFIG_FOLDER, "readOnly": True})
    if settings.claim:
        found.append({"name": "embedmill-state", "mountPath": settings.claim_path})
    return found
