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


def test_ray_data_calls_back_at_each_step_of_an_execution() -> None:
    from ray.data import DataContext
    from ray.data._internal.execution.execution_callback import ExecutionCallback
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

    assert "custom_execution_callback_classes" in vars(DataContext()), "Ray Data's contexts take no callbacks any more"
    assert callable(getattr(ExecutionCallback, "on_execution_step", None)), (
        "ExecutionCallback.on_execution_step is gone"
    )
    run = inspect.getsource(StreamingExecutor.run)
    assert "callback.on_execution_step(self)" in run, "it is called elsewhere"
    assert "mark_finished(exc)" in run, "what a callback raises does not end the execution any more"


def test_spark_starts_its_jvm_by_a_method_that_takes_a_conf() -> None:
    from pyspark import SparkContext

    found = getattr(SparkContext, "_ensure_initialized", None)
    assert found is not None, "SparkContext._ensure_initialized is gone"
    assert "conf" in inspect.signature(found).parameters, "SparkContext._ensure_initialized takes no conf any more"


def test_spark_keeps_the_process_of_its_jvm() -> None:
    from pyspark import SparkContext, java_gateway

    assert "_gateway" in SparkContext.__annotations__, "SparkContext._gateway is gone"
    assert "gateway.proc = proc" in inspect.getsource(java_gateway.launch_gateway), "gateway.proc is gone"


# Private by their names alone: they are documented. The second are every namedtuple's.
_PUBLIC = {"os._exit", "etree._Element"}
_NAMED_TUPLE = {"_asdict", "_fields", "_make", "_replace"}
_ENGINE_MODULE = re.compile(r"(ray|pyspark|py4j|pymilvus|milvus_lite|deltalake|openvino)\..*(\b_|grpc_gen)")
_INTERNAL = ("unittest", "milvus_lite", "pymilvus.client", "openvino")


def _texts(call: ast.Call) -> list[str]:
    """The arguments of a call that are texts."""
    values = (argument.value for argument in call.args if isinstance(argument, ast.Constant))
    return [value for value in values if isinstance(value, str)]


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _defined(tree: ast.Module) -> set[str]:
    """Names of functions, classes, variables and attributes of ``self`` that the module defines."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node.value):
            names.add(node.attr)
    return names


def _is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


def _is_module_name(name: str) -> bool:
    return bool(_ENGINE_MODULE.match(name)) or name.startswith(_INTERNAL)


def _private_imports(node: ast.AST) -> list[str]:
    """Private modules, and private names of modules that are not ours."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names if _is_module_name(alias.name)]
    if not isinstance(node, ast.ImportFrom) or node.level:
        return []
    module = node.module or ""
    ours = module.split(".")[0] in {"dags", "embedding", "embedmill_airflow", "indexers", "jobs", "__future__"}
    names = [f"{module}.{alias.name}" for alias in node.names]
    return [name for name in names if _is_module_name(name) or (not ours and _is_private(name.rpartition(".")[2]))]


def _private_attributes(node: ast.AST, defined: set[str], inherited: set[str]) -> list[str]:
    """Attributes ``x._name``, also by ``getattr`` and the like, that our own code does not define."""
    if isinstance(node, ast.Attribute) and _is_private(node.attr):
        if node.attr in _NAMED_TUPLE or ast.unparse(node) in _PUBLIC:
            return []
        return [] if node.attr in (inherited if _is_own(node.value) else defined) else [ast.unparse(node)]
    called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
    if isinstance(node, ast.Call) and called in ("getattr", "setattr", "hasattr", "delattr", "attrgetter"):
        return [f"{called}: {text}" for text in _texts(node) if _is_private(text) and text not in defined]
    if isinstance(node, ast.Call) and called in ("import_module", "importlib.import_module", "__import__"):
        return [f"{called}: {text}" for text in _texts(node) if _is_module_name(text)]
    return []


def _private_parts(text: str, inherited: set[str]) -> list[str]:
    """The private parts of other packages that a module uses, as ``line: part``.

    An attribute of another object must be defined in the module itself; one of ``self`` may be inherited, and is looked
    up in ``inherited``, the names that all our modules define.
    """
    tree = ast.parse(text)
    defined = _defined(tree)
    own = inherited | defined
    return [
        f"{getattr(node, 'lineno', 0)}: {part}"
        for node in ast.walk(tree)
        for part in _private_imports(node) + _private_attributes(node, defined, own)
    ]


def test_private_parts_are_used_in_compat_modules_alone() -> None:
    """No module imports a private module of an engine or a mock, or takes a private attribute that is not ours."""
    roots = ("jobs", "indexers", "embedding", "dags", "benchmarks")
    texts = {path: path.read_text() for root in roots for path in sorted((ROOT / root).rglob("*.py"))}
    inherited = {name for text in texts.values() for name in _defined(ast.parse(text))}
    found = [
        f"{path.relative_to(ROOT)}:{part}"
        for path, text in texts.items()
        if path.name != "compat.py"
        for part in _private_parts(text, inherited)
    ]
    assert not found


@pytest.mark.parametrize(
    "planted",
    [
        "process = session.sparkContext._gateway.proc",
        "SparkContext._ensure_initialized(conf=conf)",
        "client._get_connection().batch_insert(name)",
        "lite_servers()._servers[path]",
        "class Ours(Collection):\n    def compact(self):\n        self._compaction_mgr.run()",
        "_gateway = 1\nclass Ours(Session):\n    def close(self):\n        self._jvm.stop()",
        "found = getattr(SparkContext, '_gateway', None)",
        "setattr(node, '_start', None)",
        "from deltalake import _internal",
        "from pyspark.sql.types import _parse_datatype_string",
        "import ray._private.worker",
        "from ray import _private",
        "from pymilvus.client.types import Status",
        "from unittest import mock",
        "module = importlib.import_module('ray._private.node')",
    ],
)
def test_scan_finds_a_planted_private_part(planted: str) -> None:
    assert len(_private_parts(planted, inherited={"_state"})) == 1


@pytest.mark.parametrize(
    "ours",
    [
        "class Ours:\n    def __init__(self):\n        self._state = 1\n    def same(self, other):\n        return other._state",
        "class Ours(Base):\n    def read(self):\n        return self._inherited",
        "os._exit(1)",
        "root: etree._Element",
        "Row._make(cells)",
        "value.__class__.__name__",
        "from jobs.state.store import _private_of_ours",
    ],
)
def test_scan_passes_what_is_ours(ours: str) -> None:
    assert not _private_parts(ours, inherited={"_inherited"})


@pytest.mark.parametrize("package", ["ray", "pyspark", "pymilvus", "milvus-lite", "openvino"])
def test_version_is_bounded_from_above(package: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    lines = re.findall(rf'"{package}(?:\[\w+\])?[>=<][^"]*"', text)
    assert lines and all("<" in line for line in lines), f"{package} has no upper bound in pyproject.toml"
