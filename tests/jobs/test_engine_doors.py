"""The private parts of Ray, Spark and OpenVINO that the ``compat`` modules use are there, each with its name."""

from __future__ import annotations

import ast
import inspect
import re

import pytest

from tests.support.paths import ROOT


@pytest.mark.parametrize("option", ["no_monitor", "include_log_monitor"])
def test_ray_takes_the_option(option: str) -> None:
    from ray._private.parameter import RayParams

    assert option in inspect.signature(RayParams).parameters, f"RayParams takes no {option} any more"


def test_ray_starts_its_api_server_by_a_method() -> None:
    from ray._private.node import Node

    assert callable(getattr(Node, "start_api_server", None)), "ray Node.start_api_server is gone"


def test_ray_init_makes_its_parameters_where_they_are_replaced() -> None:
    import ray._private.worker as worker

    assert "ray._private.parameter.RayParams(" in inspect.getsource(worker.init), "ray.init takes RayParams elsewhere"


def test_ray_asks_for_what_a_dashboard_needs() -> None:
    from importlib.util import find_spec

    assert find_spec("ray.dashboard.optional_deps"), "ray.dashboard.optional_deps is gone"


def test_spark_starts_its_jvm_by_a_method_that_takes_a_conf() -> None:
    from pyspark import SparkContext

    found = getattr(SparkContext, "_ensure_initialized", None)
    assert found is not None, "SparkContext._ensure_initialized is gone"
    assert "conf" in inspect.signature(found).parameters, "SparkContext._ensure_initialized takes no conf any more"


def test_spark_keeps_the_process_of_its_jvm() -> None:
    from pyspark import SparkContext, java_gateway

    assert "_gateway" in SparkContext.__annotations__, "SparkContext._gateway is gone"
    assert "gateway.proc = proc" in inspect.getsource(java_gateway.launch_gateway), "gateway.proc is gone"


def test_private_parts_are_used_in_compat_modules_alone() -> None:
    """No module imports a private module of an engine, or a mock. Attributes are not looked at."""
    found = []
    for path in sorted(p for top in ("jobs", "indexers", "embedding") for p in (ROOT / top).rglob("*.py")):
        if path.name == "compat.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                private = re.match(
                    r"(ray|pyspark|py4j|pymilvus|milvus_lite|deltalake|openvino)\..*(\b_|grpc_gen)", name
                )
                if private or name.startswith(("unittest", "milvus_lite", "pymilvus.client", "openvino")):
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {name}")
    assert not found


@pytest.mark.parametrize("package", ["ray", "pyspark", "pymilvus", "milvus-lite", "openvino"])
def test_version_is_bounded_from_above(package: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    lines = re.findall(rf'"{package}(?:\[\w+\])?[>=<][^"]*"', text)
    assert lines and all("<" in line for line in lines), f"{package} has no upper bound in pyproject.toml"
