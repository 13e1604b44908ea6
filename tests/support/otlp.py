"""A receiver of OTLP, over HTTP and over gRPC, that keeps what it is sent."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc


@dataclass
class Received:
    """A span: its name, ids (hex, "" for no parent), times in ns, kind, attributes, error and links."""

    name: str
    trace: str
    span: str
    parent: str
    began: int
    ended: int
    kind: str
    attributes: dict[str, Any]
    error: str
    links: list[str]
    resource: dict[str, Any]


@dataclass
class Receiver:
    """Listens on 127.0.0.1: ``http`` and ``grpc`` are its addresses. ``raw`` is all that it was sent."""

    spans: list[Received] = field(default_factory=list)
    metrics: dict[str, Any] = field(default_factory=dict)
    raw: list[bytes] = field(default_factory=list)

    def __enter__(self) -> Receiver:
        import grpc

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        self.http = f"http://127.0.0.1:{self._http.server_port}"
        self._grpc = grpc.server(ThreadPoolExecutor(2))
        added: Any = (trace_service_pb2_grpc, metrics_service_pb2_grpc)  # they have no types
        added[0].add_TraceServiceServicer_to_server(_Traces(self), self._grpc)
        added[1].add_MetricsServiceServicer_to_server(_Metrics(self), self._grpc)
        self.grpc = f"http://127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        self._grpc.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._grpc.stop(None)

    def take_traces(self, request: Any) -> None:
        """Keep an export of spans."""
        self.raw.append(request.SerializeToString())
        kinds = {1: "internal", 2: "server", 3: "client"}
        for block in request.resource_spans:
            resource = _values(block.resource.attributes)
            for one in (span for scope in block.scope_spans for span in scope.spans):
                self.spans.append(
                    Received(
                        one.name,
                        one.trace_id.hex(),
                        one.span_id.hex(),
                        one.parent_span_id.hex(),
                        one.start_time_unix_nano,
                        one.end_time_unix_nano,
                        kinds[one.kind],
                        _values(one.attributes),
                        one.status.message if one.status.code == 2 else "",
                        [link.trace_id.hex() for link in one.links],
                        resource,
                    )
                )

    def take_metrics(self, request: Any) -> None:
        """Keep an export of metrics."""
        self.raw.append(request.SerializeToString())
        for block in request.resource_metrics:
            for one in (metric for scope in block.scope_metrics for metric in scope.metrics):
                points = one.histogram.data_points or one.gauge.data_points or one.sum.data_points
                self.metrics[one.name] = [(_values(point.attributes), point) for point in points]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Nothing."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    body = gzip.decompress(body)
                if self.path.endswith("/traces"):
                    receiver.take_traces(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
                else:
                    receiver.take_metrics(metrics_service_pb2.ExportMetricsServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

        return Handler


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:
        self._receiver.take_traces(request)
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver

    def Export(self, request: Any, context: Any) -> Any:
        self._receiver.take_metrics(request)
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
