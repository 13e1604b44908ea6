"""The private parts of Ray and Spark that are used, each with the reason, and nothing else of theirs.

``pyproject.toml`` bounds both from above; ``tests/jobs/test_engine_doors.py`` says in one line which part a new version
no longer has.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# -- Ray ---------------------------------------------------------------------------------------------------------------


@contextmanager
def minimal_ray() -> Iterator[None]:
    """Let ``ray.init`` start without the dashboard's server, the autoscaler's monitor and the log reader.

    A Ray of our own is one node, without a dashboard, and hands no logs to the driver. Those three take a seventh of
    its processor time, and the monitor a second to end. `ray start` has switches for two of them, which `ray.init` does
    not pass on. The node's agent stays; told that what a dashboard needs is not installed, it is half as large.
    """
    from ray._private import node, parameter

    class Params(parameter.RayParams):
        def __init__(self, *args: Any, **options: Any) -> None:
            options |= {"no_monitor": True, "include_log_monitor": False}
            super().__init__(*args, **options)

    dependencies = "ray.dashboard.optional_deps"
    found = sys.modules.pop(dependencies, None)
    # One entry is set and taken back: other threads import meanwhile, and what they have stays.
    sys.modules[dependencies] = None  # type: ignore[assignment]
    try:
        with _replaced(parameter, "RayParams", Params), _replaced(node.Node, "start_api_server", lambda *_, **__: None):
            yield
    finally:
        del sys.modules[dependencies]
        if found is not None:
            sys.modules[dependencies] = found


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Set an attribute, and set it back. Raises AttributeError where the owner has none of that name."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def at_each_step(look: Callable[[], None]) -> Iterator[None]:
    """Have Ray Data call a function, several times a second, while it executes what is begun in the block.

    What the function raises ends the execution, and is raised where its results are read. There is no other way to end
    one from outside: who reads waits for the next result. The list of callbacks is public, their class is not.
    """
    from ray.data import DataContext
    from ray.data._internal.execution.execution_callback import ExecutionCallback

    class Look(ExecutionCallback):
        def on_execution_step(self, executor: Any) -> None:
            look()

    context = DataContext.get_current()
    before = context.custom_execution_callback_classes
    context.custom_execution_callback_classes = [*before, Look]
    try:
        yield
    finally:
        context.custom_execution_callback_classes = before


# -- Spark -------------------------------------------------------------------------------------------------------------


def start_jvm(settings: Mapping[str, str]) -> None:
    """Start this process's JVM with these settings, ahead of the session.

    ``SparkSession.builder`` would start it with all settings as arguments, which every user of the machine can read:
    secrets among them. Started here with those that are none, it gets the others over its own connection.
    """
    from pyspark import SparkConf, SparkContext

    SparkContext._ensure_initialized(conf=SparkConf(loadDefaults=False).setAll(list(settings.items())))


def jvm_process(session: SparkSession) -> subprocess.Popen[bytes] | None:
    """The JVM that PySpark started for the session; None where something else did.

    There is no public way to wait for its end, and only then has it written the archive of its classes.
    """
    gateway = session.sparkContext._gateway
    process: subprocess.Popen[bytes] | None = gateway.proc if gateway is not None else None
    return process
