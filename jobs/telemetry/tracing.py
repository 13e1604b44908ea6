"""Traces for OpenTelemetry, where the standard ``OTEL_*`` variables name an endpoint; else nothing is even imported.

All spans are made by the command's own process. What workers did comes back with their rows, as times and counts, and
becomes spans here: none is lost with a worker. Of an error a span has the class, never the message.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

Kind = Literal["internal", "client"]
Value = str | int | float | bool
FLUSH_SECONDS = 5.0  # that a command waits for its last spans to be taken
_SCOPE = "embedmill"
_provider: TracerProvider | None = None
_fault = ""  # why no spans are made, although they are asked for
_waited = 0.0  # seconds of this command for an endpoint
_open: list[tuple[str, Span]] = []  # of the thread that runs the command, the outermost first


def enabled(signal: Literal["traces", "metrics"] = "traces") -> bool:
    """Whether the environment asks for a signal over OTLP."""
    off = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    asked = os.environ.get(f"OTEL_{signal.upper()}_EXPORTER", "otlp") == "otlp"
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT")
    return not off and asked and any(os.environ.get(name) for name in names)


def speaks_grpc(signal: Literal["traces", "metrics"]) -> bool:
    """Whether the environment asks for gRPC; what it does not say is HTTP, as the specification has it."""
    names = (f"OTEL_EXPORTER_OTLP_{signal.upper()}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    return next((os.environ[name] for name in names if os.environ.get(name)), "") == "grpc"


def resource() -> Any:
    """Who tells: what ``OTEL_RESOURCE_ATTRIBUTES`` and ``OTEL_SERVICE_NAME`` say, else embedmill."""
    from opentelemetry.sdk.resources import Resource

    named = "OTEL_SERVICE_NAME" in os.environ or "service.name=" in os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    return Resource.create({} if named else {"service.name": _SCOPE})


@contextmanager
def span(name: str, **attributes: Value) -> Iterator[None]:
    """A span around the block, within the one that is open. Attribute names have "__" for a dot."""
    if (makes := tracer()) is None:
        yield
        return
    from opentelemetry.trace import set_span_in_context

    parent = set_span_in_context(_open[-1][1]) if _open else None
    begun = makes.start_span(name, parent, attributes=dotted(attributes), links=[] if _open else _links())
    _open.append((name, begun))
    try:
        yield
    except BaseException as error:
        failed(begun, type(error).__name__)
        raise
    finally:
        _open.pop()
        begun.end()


def note(**attributes: Value) -> None:
    """Add attributes to the open span."""
    if _open:
        _open[-1][1].set_attributes(dotted(attributes))


def past(
    name: str,
    when: tuple[int, int],
    *,
    within: str | Span = "",
    kind: Kind = "internal",
    error: str = "",
    attributes: Mapping[str, Value] | None = None,
) -> Span | None:
    """A span of what is over, ``when`` in ns since 1970: within the open step of a name, or the run; or below a span.

    Returns it, for spans below; None where traces are off.
    """
    if not _open or (makes := tracer()) is None:
        return None
    from opentelemetry.trace import SpanKind, set_span_in_context

    open_now = [*_open]
    above = open_now[0][1]
    if isinstance(within, str):
        above = next((one for known, one in reversed(open_now) if known == within), above)
    else:
        above = within
    kinds = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}
    made = makes.start_span(
        name, set_span_in_context(above), kinds[kind], attributes=dict(attributes or {}), start_time=when[0]
    )
    if error:
        failed(made, error)
    made.end(when[1])
    return made


def failed(span: Span, error: str) -> None:
    """Mark a span as failed, by the class of the error and without its message, which could quote anything."""
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, error))
    span.set_attribute("error.type", error)


def finish() -> str:
    """Send the spans that are not sent yet; returns what a person is told where nobody took them in FLUSH_SECONDS."""
    global _provider, _waited, _fault
    _waited = 0.0
    fault, _fault = _fault, ""
    if _provider is None:
        return f"OpenTelemetry: no traces were made ({fault}); the run is not affected" if fault else ""
    provider, _provider = _provider, None
    if within_seconds(lambda: bool(provider.force_flush(int(FLUSH_SECONDS * 1000))), provider.shutdown):
        return ""
    return "OTEL_EXPORTER_OTLP_ENDPOINT: it took no traces; the run is not affected"


def within_seconds(*steps: Any) -> bool:
    """Do steps in a thread that nothing waits for longer; whether all said yes, or nothing, in time.

    All that is sent at the end of a command shares FLUSH_SECONDS; what comes late in them gets a moment.
    """
    global _waited
    done: list[bool] = []

    def work() -> None:
        done.append(all(step() is not False for step in steps))

    thread = threading.Thread(target=work, name="telemetry", daemon=True)
    thread.start()
    began = time.monotonic()
    thread.join(max(0.2, FLUSH_SECONDS - _waited))
    _waited += time.monotonic() - began
    return done == [True]


def tracer() -> Any:
    """What makes spans; None where nobody asks for them, or a setting or a missing library is in the way."""
    global _provider, _fault
    if not enabled():
        return None
    if _provider is None and not _fault:
        try:
            _provider = _new_provider()
        except ImportError:
            _fault = 'run `pip install "embedmill[otel]"`'
        except Exception as error:  # of a setting: no reason to fail
            _fault = f"{type(error).__name__}; look at the OTEL_* variables"
    return _provider.get_tracer(_SCOPE) if _provider is not None else None


def _new_provider() -> TracerProvider:
    import logging

    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # an endpoint that is away is told by ``finish``
    provider = TracerProvider(resource=resource(), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(_exporter()))
    return provider


def _exporter() -> Any:
    if speaks_grpc("traces"):
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as Grpc

        return Grpc()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as Http

    return Http()


def _links() -> list[Any]:
    """A link to what started this command, as ``TRACEPARENT`` says: an Airflow task, or another program."""
    if not (said := os.environ.get("TRACEPARENT")):
        return []
    from opentelemetry.trace import Link, get_current_span
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    found = get_current_span(TraceContextTextMapPropagator().extract({"traceparent": said})).get_span_context()
    return [Link(found)] if found.is_valid else []


def dotted(attributes: Mapping[str, Value]) -> dict[str, Value]:
    """Attributes by their names in a span: "__" stands for a dot."""
    return {name.replace("__", "."): value for name, value in attributes.items()}
