"""Spans of the requests that `serve` answers, each within the trace of who asked (``traceparent``), or one of its own.

Unlike a command's, the steps of many requests are open side by side: which request a step belongs to is known by the
task that it runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from jobs.telemetry import tracing

Told = Callable[..., None]


@contextmanager
def request(name: str, headers: Mapping[str, str]) -> Iterator[Told]:
    """A span of a request around the block. What is yielded takes its attributes ("__" for a dot)."""
    tracer = tracing.tracer() if tracing.enabled() else None
    if tracer is None:
        yield _untold
        return
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    said = {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
    with tracer.start_as_current_span(
        name,
        TraceContextTextMapPropagator().extract(said),
        SpanKind.SERVER,
        record_exception=False,  # its message could quote anything
        set_status_on_exception=False,
    ) as span:

        def tell(**attributes: tracing.Value) -> None:
            span.set_attributes(tracing.dotted(attributes))
            if int(attributes.get("http__response__status_code", 0)) >= 500:
                span.set_status(Status(StatusCode.ERROR))

        yield tell


@contextmanager
def step(name: str, **attributes: tracing.Value) -> Iterator[Told]:
    """A span of a step within the request of this task; nothing where requests are not traced."""
    tracer = tracing.tracer() if tracing.enabled() else None
    if tracer is None:
        yield _untold
        return
    from opentelemetry.trace import Status, StatusCode

    with tracer.start_as_current_span(
        name, attributes=tracing.dotted(attributes), record_exception=False, set_status_on_exception=False
    ) as span:
        try:
            yield lambda **more: span.set_attributes(tracing.dotted(more))
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            span.set_attribute("error.type", type(error).__name__)
            raise


def _untold(**_: tracing.Value) -> None:
    """Nobody asks for traces."""
