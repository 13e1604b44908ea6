"""Links a command's trace to that of the task which launched it."""

from __future__ import annotations

from opentelemetry import propagate


def trace_parent() -> dict[str, str]:
    """The variable by which a program is told who started it; none where Airflow does not trace its tasks."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return {"TRACEPARENT": carrier["traceparent"]} if "traceparent" in carrier else {}
