"""The real Helm over our chart, and what it renders.

`make helm` puts the program into .venv-helm, and EMBEDMILL_HELM names another one.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.paths import ROOT

HELM = Path(os.environ.get("EMBEDMILL_HELM") or ROOT / ".venv-helm" / "bin" / "helm")
MISSING = "" if HELM.exists() else f"no Helm: {HELM} is not there; `make helm` installs it"
CHART = ROOT / "deploy" / "helm" / "embedmill"
SIZES = ("1m", "100m", "1b")
NAMESPACE = "search"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod that a resource makes: its part, its labels and its spec as Kubernetes knows it."""

    owner: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def part(self) -> str:
        """Which kind of our pods it is."""
        return self.labels["embedmill/part"]

    def resource(self) -> dict[str, Any]:
        """The pod by itself, for checks that do not look into custom resources."""
        metadata = {"name": f"{self.owner}-{self.part}".lower(), "namespace": NAMESPACE, "labels": self.labels}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": self.spec}


def values(size: str) -> Path:
    """The values file for so many messages."""
    return CHART / f"values-{size}.yaml"


def helm(command: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run Helm with its own folders, away from the user's."""
    env = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    said = subprocess.run([HELM, command, *words], capture_output=True, text=True, env=env, timeout=120)
    notes = [line for line in said.stderr.splitlines() if "found symbolic link" not in line]
    return subprocess.CompletedProcess(said.args, said.returncode, said.stdout, "\n".join(notes))


@cache
def render(files: tuple[Path, ...] = (), sets: tuple[str, ...] = (), chart: Path = CHART) -> list[dict[str, Any]]:
    """What the chart renders. Raises AssertionError with Helm's words where it refuses."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return [one for one in yaml.load_all(_template(files, sets, chart, 0).stdout, loader) if one]


def refused(files: Sequence[Path] = (), sets: Sequence[str] = ()) -> str:
    """Why the chart refuses its values. Raises AssertionError where it does not."""
    return _template(tuple(files), tuple(sets), CHART, 1).stderr


def _template(files: Sequence[Path], sets: Sequence[str], chart: Path, code: int) -> subprocess.CompletedProcess[str]:
    words: list[str | Path] = ["embedmill", chart, "--namespace", NAMESPACE]
    for file in files:
        words += ["--values", file]
    for one in sets:
        words += ["--set", one]
    said = helm("template", *words)
    assert said.returncode == code, said.stderr[-2000:] or said.stdout[:500]
    return said


def of_kind(resources: Sequence[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    """Those of one kind."""
    return [one for one in resources if one["kind"] == kind]


def shapes(resources: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The launcher's shapes: file name to text."""
    [found] = [one for one in of_kind(resources, "ConfigMap") if one["metadata"]["name"].endswith("-shapes")]
    return dict(found["data"])


def pods(resource: dict[str, Any]) -> Iterator[Pod]:
    """The pods that a resource makes, by itself or through its operator."""
    name, spec = resource["kind"], resource.get("spec", {})
    if name == "CronJob":
        yield _pod(name, spec["jobTemplate"]["spec"]["template"])
    if name == "RayJob":
        yield _pod(name, spec["submitterPodTemplate"])
    if name in ("RayJob", "RayService"):
        cluster = spec["rayClusterSpec" if name == "RayJob" else "rayClusterConfig"]
        for group in [cluster["headGroupSpec"], *cluster.get("workerGroupSpecs", [])]:
            yield _pod(name, group["template"])
    if name == "SparkApplication":
        for part in ("driver", "executor"):
            yield _spark_pod(spec, spec[part])


def _pod(owner: str, template: dict[str, Any]) -> Pod:
    return Pod(owner, template["metadata"]["labels"], template["spec"])


def _spark_pod(spec: dict[str, Any], process: dict[str, Any]) -> Pod:
    """As the operator makes it; Spark itself asks for cores and memory."""
    size = {"cpu": str(process["cores"]), "memory": process["memory"].upper() + "i"}
    container = {
        "name": "spark",
        "image": spec["image"],
        "imagePullPolicy": spec["imagePullPolicy"],
        "resources": {"requests": size, "limits": size},
        **{name: process[name] for name in ("securityContext", "env", "envFrom", "volumeMounts")},
    }
    made = {
        "containers": [container],
        "volumes": spec["volumes"],
        "securityContext": process["podSecurityContext"],
        "serviceAccountName": process.get("serviceAccount", "default"),
        "automountServiceAccountToken": "serviceAccount" in process,
    }
    placed = {name: process[name] for name in ("nodeSelector", "tolerations", "priorityClassName") if name in process}
    return Pod("SparkApplication", process["labels"], made | placed)
