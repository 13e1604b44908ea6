"""What the resource of any job looks like: everything but its name, command, variables and mark.

The Helm chart renders the same shapes from its values (``deploy/helm/embedmill/templates/_shapes.tpl``) into a
ConfigMap; where that is mounted, the launcher takes them from there. Without it they are made here from the launcher's
settings. Both are equal where both have their defaults, which a test holds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from embedmill_airflow.launchers.manifests import KINDS, PREFIX, Settings
from embedmill_airflow.launchers.outcome import MODULE

CONFIG_FOLDER = "/etc/embedmill"
CONFIG_FILE = f"{CONFIG_FOLDER}/embedmill.toml"
USER = 10001  # of the images in docker/
METRICS_PORT = 8080  # of each of Ray's nodes, KubeRay's default
AGENT_PORT = 52365  # likewise, of the agent that knows how the node is
_SUBMITTER = KINDS["RayJob"].container


def shapes(settings: Settings) -> dict[str, dict[str, Any]]:
    """The shape of each kind. Raises ValueError where the folder of shapes does not hold them."""
    if settings.shapes:
        return {kind: _read(Path(settings.shapes) / f"{kind}.json", kind) for kind in KINDS}
    return {"RayJob": _ray_job(settings), "SparkApplication": _spark_application(settings)}


def _read(file: Path, kind: str) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise ValueError(f"{PREFIX}SHAPES: {file} is no shape ({type(error).__name__})") from None
    if not isinstance(found, dict) or found.get("kind") != kind:
        raise ValueError(f"{PREFIX}SHAPES: {file} is no shape of a {kind}")
    return found


def _spark_application(settings: Settings) -> dict[str, Any]:
    """For the Spark Operator, whose webhook must be on: it brings variables and volumes into the pods."""

    def process(part: str) -> dict[str, Any]:
        return {
            "labels": _labels(part),
            "podSecurityContext": _pod_security(),
            "securityContext": _security(),
            "env": _variables(settings),
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
        "restartPolicy": {"type": "Never"},  # Airflow tries again, and counts
        "timeToLiveSeconds": settings.ttl_seconds,
        "volumes": _volumes(settings),
        "driver": {
            "cores": settings.driver_cores,
            "memory": settings.driver_memory,
            "serviceAccount": settings.service_account,
            **process("spark-driver"),
        },
        "executor": {
            "instances": settings.executors,
            "cores": settings.executor_cores,
            "memory": settings.executor_memory,
            "deleteOnTermination": True,
            **process("spark-executor"),
        },
    }
    return _resource("SparkApplication", spec)


def _ray_job(settings: Settings) -> dict[str, Any]:
    """For KubeRay: a cluster for this job alone, gone with it; the submitter's pod keeps the job's log."""
    head = {"dashboard-host": "0.0.0.0"} | ({"num-cpus": "0"} if settings.workers else {})
    cluster: dict[str, Any] = {
        "rayVersion": settings.ray_version,
        "headGroupSpec": {
            "rayStartParams": head,
            "template": _node("ray-head", settings, _size(settings.head_cpu, settings.head_memory)),
        },
    }
    if settings.workers:
        size = _size(settings.worker_cpu, settings.worker_memory, settings.worker_gpus)
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "workers",
                "replicas": settings.workers,
                "minReplicas": settings.workers,
                "maxReplicas": settings.workers,
                "rayStartParams": {},
                "template": _node("ray-worker", settings, size),
            }
        ]
    small = {"requests": _size("100m", "256Mi"), "limits": _size("1", "1Gi")}
    submitter = _container(_SUBMITTER, settings, small) | {"env": _home(), "volumeMounts": [_scratch_mount()]}
    spec = {
        "entrypoint": f"{settings.python} -m {MODULE}",
        "submissionMode": "K8sJobMode",
        "submitterPodTemplate": _pod(
            "ray-submitter", settings, submitter, restartPolicy="Never", volumes=[_scratch_volume()]
        ),
        "backoffLimit": 0,  # Airflow tries again, and counts
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": 0,  # of the cluster, which costs; the resource and its log stay
        "rayClusterSpec": cluster,
    }
    return _resource("RayJob", spec)


def _resource(kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    return {
        "apiVersion": f"{KINDS[kind].group}/{KINDS[kind].version}",
        "kind": kind,
        "metadata": {"labels": {"app.kubernetes.io/name": "embedmill", "app.kubernetes.io/managed-by": "airflow"}},
        "spec": spec,
    }


def _size(cpu: str, memory: str, gpus: int = 0) -> dict[str, Any]:
    return {"cpu": cpu, "memory": memory} | ({"nvidia.com/gpu": gpus} if gpus else {})


def _node(name: str, settings: Settings, size: dict[str, Any]) -> dict[str, Any]:
    """A node of Ray."""
    container = _container(name, settings, {"requests": size, "limits": size}) | {
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT}],
        "env": [*_variables(settings), {"name": "EMBEDMILL__RAY__ADDRESS", "value": "auto"}],
        "envFrom": _secret(settings),
        "volumeMounts": _mounts(settings),
        "livenessProbe": _probe(initialDelaySeconds=30, failureThreshold=120),
        "readinessProbe": _probe(initialDelaySeconds=10, failureThreshold=10),
    }
    return _pod("ray", settings, container, volumes=_volumes(settings))


def _probe(**more: int) -> dict[str, Any]:
    """As KubeRay's own, whose earlier versions ask by a `wget` that the image has not."""
    return {"httpGet": {"path": "/api/healthz", "port": AGENT_PORT}, "periodSeconds": 5, "timeoutSeconds": 5, **more}


def _container(name: str, settings: Settings, resources: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "image": settings.ray_image or settings.image,
        "imagePullPolicy": "IfNotPresent",
        "resources": resources,
        "securityContext": _security(),
    }


def _pod(part: str, settings: Settings, container: dict[str, Any], **more: Any) -> dict[str, Any]:
    spec = {
        "serviceAccountName": settings.ray_service_account or settings.service_account,
        "automountServiceAccountToken": False,  # texts of strangers are read here, and nothing is asked of the API
        "securityContext": _pod_security(),
        "containers": [container],
        **more,
    }
    return {"metadata": {"labels": _labels(part)}, "spec": spec}


def _labels(part: str) -> dict[str, str]:
    """What network policies and monitors select pods by."""
    return {"app.kubernetes.io/part-of": "embedmill", "embedmill/part": part}


def _pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _security() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def _home() -> list[dict[str, str]]:
    """The root is read-only: what is cached at home goes to the scratch volume."""
    return [{"name": "HOME", "value": "/tmp"}]


def _variables(settings: Settings) -> list[dict[str, str]]:
    found = [*_home(), {"name": "EMBEDMILL_PROGRESS", "value": "lines"}]
    if settings.config_map:
        found.append({"name": "EMBEDMILL_CONFIG", "value": CONFIG_FILE})
    return found


def _secret(settings: Settings) -> list[dict[str, Any]]:
    return [{"secretRef": {"name": settings.secret}}] if settings.secret else []


def _scratch_volume() -> dict[str, Any]:
    return {"name": "scratch", "emptyDir": {}}


def _scratch_mount() -> dict[str, Any]:
    return {"name": "scratch", "mountPath": "/tmp"}


def _volumes(settings: Settings) -> list[dict[str, Any]]:
    found = [_scratch_volume()]
    if settings.config_map:
        found.append({"name": "embedmill-config", "configMap": {"name": settings.config_map}})
    if settings.claim:
        found.append({"name": "embedmill-state", "persistentVolumeClaim": {"claimName": settings.claim}})
    return found


def _mounts(settings: Settings) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [_scratch_mount()]
    if settings.config_map:
        found.append({"name": "embedmill-config", "mountPath": CONFIG_FOLDER, "readOnly": True})
    if settings.claim:
        found.append({"name": "embedmill-state", "mountPath": settings.claim_path})
    return found
