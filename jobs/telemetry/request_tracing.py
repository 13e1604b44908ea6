"""Spans of the requests that `serve` answers, each within the trace of who asked (``traceparent``), or one of its own.

Unlike a command's, the steps of many requests are open side by side: which request a step belongs to is known by the
task that it runs in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from jobs.telemetry import tracing

Tell = Callable[[str, int, str], None]


@contextmanager
def request(name: str, headers: Mapping[str, str]) -> Iterator[Tell]:
    """A span of a request around the block; what is yielded takes route, status and space of the answer."""
    if (tracer := tracing.tracer()) is None:
        yield _untold
        return
    from opentelemetry.trace import SpanKind, Status, StatusCode
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    said = {key: headers[key] for key in ("traceparent", "tracestate") if key in headers}
    asker = TraceContextTextMapPropagator().extract(said)
    with tracer.start_as_current_span(name, asker, SpanKind.SERVER, **_WITHOUT_MESSAGES) as span:

        def tell(route: str, status: int, space: str) -> None:
            span.set_attributes(
                {"http.request.method": "POST", "http.route": route, "http.response.status_code": status}
            )
            if space:
                span.set_attribute("embedmill.space_id", space)
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))

        yield tell


@contextmanager
def step(name: str, **attributes: tracing.Value) -> Iterator[None]:
    """A span of a step within the request of this task; nothing where requests are not traced."""
    if (tracer := tracing.tracer()) is None:
        yield
        return
    with tracer.start_as_current_span(name, attributes=tracing.dotted(attributes), **_WITHOUT_MESSAGES) as span:
        try:
            yield
        except Exception as error:
            tracing.failed(span, type(error).__name__)
            raise


_WITHOUT_MESSAGES = {"record_exception": False, "set_status_on_exception": False}  # they could quote anything


def _untold(route: str, status: int, space: str) -> None:
    """Nobody asks for traces."""
