"""Servers that speak the wire of embedding services, well or badly, by a plan that a test makes.

A vector can be computed from its text, so that a test sees whether it got the right one.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

DIM = 8
POISON = "poison"

FAULTS = (
    "throttle",
    "throttle_date",
    "overloaded",
    "broken",
    "stall",
    "reset",
    "short",
    "long",
    "misordered",
    "twice",
    "garbage",
    "nan",
    "narrow",
    "zero",
)


def vector_of(text: str) -> list[float]:
    """The unit vector of a text."""
    raw = np.frombuffer(hashlib.blake2b(text.encode(), digest_size=DIM).digest(), np.uint8).astype(float) + 1
    return list(raw / np.linalg.norm(raw))


class Server(ThreadingHTTPServer):
    """Answers by ``plan``: the fault of each request in turn, none when it is used up."""

    daemon_threads = True

    def __init__(self, plan: Sequence[str] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan: Iterator[str] = iter(plan)
        self.lock = threading.Lock()
        self.seen: Counter[str] = Counter()
        self.requests: list[list[str]] = []
        self.headers: list[str] = []
        self.billed = 0
        self.busy = self.most_busy = 0
        self.slow = 0.0
        self.address = self.url  # as the configuration names it; may carry credentials
        self.space = ""  # another one gives other vectors
        self.length = 1.0  # of each vector
        self.alive_for: int | None = None  # requests after which each connection is dropped without an answer
        self.of_poison = ""  # the fault of each request that holds a poisoned text; "" refuses it

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the plan."""


@contextmanager
def serving(plan: Sequence[str] = ()) -> Iterator[Server]:
    """A server for a block."""
    server = Server(plan)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        texts = body.get("input") or body.get("inputs") or body.get("texts") or [body.get("inputText")]
        server = self.server
        with server.lock:
            fault = next(server.plan, "")
            if server.alive_for is not None:
                server.alive_for -= 1
                if server.alive_for < 0:
                    fault = "reset"
            if not fault and server.of_poison and any(POISON in text for text in texts):
                fault = server.of_poison
            server.seen[fault] += 1
            server.requests.append(texts)
            server.headers.append(self.headers.get("Authorization", ""))
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            if server.slow:
                time.sleep(server.slow)
            self._answer(fault, texts, body)
        finally:
            with server.lock:
                server.busy -= 1

    def _answer(self, fault: str, texts: list[str], body: dict[str, Any]) -> None:
        match fault:
            case "throttle":
                return self._send(429, {"message": texts}, {"Retry-After": "0"}, error="ThrottlingException")
            case "throttle_date":
                return self._send(
                    429, {}, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, error="ThrottlingException"
                )
            case "overloaded":
                return self._send(503, {}, error="ServiceUnavailableException")
            case "broken":
                return self._send(500, {"message": texts}, error="InternalServerException")
            case "denied":
                return self._send(
                    401 if "/v1/" in self.path else 403, {"message": texts}, error="AccessDeniedException"
                )
            case "stall":
                return None  # and the connection stays open
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()
                self.close_connection = True
                return None
            case "refused":
                return self._send(400, {"message": texts}, error="ValidationException")
            case "gateway":
                return self._send(502, {"message": texts}, error="InternalServerException")
            case "firewall":
                return self._send(403, {"message": texts}, error="AccessDeniedException")
        if not fault and any(POISON in text for text in texts):
            return self._send(400, {"message": texts}, error="ValidationException")
        vectors: list[Any] = [
            [self.server.length * part for part in vector_of(self.server.space + text)] for text in texts
        ]
        order = list(range(len(texts)))
        if fault == "short":
            order.pop()
        elif fault == "long":
            order.append(0)
        elif fault in ("nan", "zero", "null", "nulls", "wide"):
            at = next((place for place, text in enumerate(texts) if POISON in text), 0)
            bad = {"nan": [float("nan")] * DIM, "zero": [0.0] * DIM, "null": None, "nulls": [None] * DIM}
            vectors[at] = bad[fault] if fault in bad else [*vectors[at], 1.0]
        elif fault == "narrow":
            vectors = [vector[:-1] for vector in vectors]
        if fault == "garbage":
            return self._send(200, None)
        tokens = sum(len(text.split()) for text in texts)
        with self.server.lock:
            self.server.billed += tokens if not fault or fault == "misordered" else 0
        found = [vectors[place] for place in order]
        headers = {"x-amzn-bedrock-input-token-count": str(tokens)}
        if "inputText" in body:
            embedding = found[0] if found else []
            return self._send(200, {"embedding": embedding, "inputTextTokenCount": tokens}, headers)
        if "texts" in body:
            return self._send(200, {"embeddings": found}, headers)
        if "inputs" in body:
            return self._send(200, found)
        data = [{"index": place, "embedding": vectors[place]} for place in order]
        if fault == "misordered":
            data.reverse()
        if fault == "twice":
            data[-1]["index"] = 0 if len(data) > 1 else 7
        return self._send(200, {"data": data, "usage": {"prompt_tokens": tokens}})

    def _send(self, code: int, body: Any, headers: dict[str, str] | None = None, error: str = "") -> None:
        content = b"{]" if body is None else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        if error:
            self.send_header("x-amzn-errortype", error)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
