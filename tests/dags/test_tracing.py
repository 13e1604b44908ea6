"""A command that a traced task launches is linked to it."""

from __future__ import annotations

import pytest
from opentelemetry.sdk.trace import TracerProvider

from tests.support.paths import ROOT


def test_a_traced_task_names_itself_and_another_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "dags"))
    from embedmill_airflow.tracing import trace_parent

    assert trace_parent() == {}
    with TracerProvider(shutdown_on_exit=False).get_tracer("airflow").start_as_current_span("task") as task:
        told = trace_parent()["TRACEPARENT"]
    assert told.split("-")[1] == f"{task.get_span_context().trace_id:032x}"
