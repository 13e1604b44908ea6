"""What comes before a token is bounded: heads without end, connections that go on with nothing, upgrades."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPResponse
from typing import Any

import psutil
import pytest
import uvicorn
from starlette.responses import Response

from jobs.serve.protocol import Protocol
from tests.support.ports import free_ports
from tests.support.serving import SECRET, Serving, token
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")
HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
UPGRADE = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: aGVsbG8=\r\nSec-WebSocket-Version: 13\r\n"


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    space = Workspace(tmp_path_factory.mktemp("heads") / "ws")
    assert space.run().code == 0
    with Serving(space.config, jwt_key=SECRET) as server:
        yield server


def connected(server: Serving, seconds: float = 30) -> socket.socket:
    return socket.create_connection(("127.0.0.1", server.port), timeout=seconds)


def answer_to(server: Serving, sent: bytes) -> bytes:
    """What comes until the connection is closed."""
    with connected(server) as client:
        client.sendall(sent)
        return b"".join(iter(lambda: client.recv(65_536), b""))


@pytest.mark.parametrize(
    "lines",
    [
        b"X: " + b"a" * 40_000 + b"\r\n",
        b"".join(b"X-%d: a\r\n" % n for n in range(120)),
        b"".join(b"X-%d: %s\r\n" % (n, b"a" * 1_000) for n in range(60)),
    ],
    ids=["one long line", "many lines", "many long lines"],
)
def test_a_head_that_is_too_large_is_refused_and_its_connection_closed(serving: Serving, lines: bytes) -> None:
    for head in (HEAD, HEAD.replace(b"GET /healthz", b"POST /embed")):
        told = answer_to(serving, head + lines + b"\r\n")
        assert told.startswith(b"HTTP/1.1 431 ") and b'"code":"too_large"' in told, told


def test_a_head_of_usual_size_and_a_long_body_in_one_piece_are_answered(serving: Serving) -> None:
    body = b'{"inputs": "%s"}' % (b"a " * 40_000)
    head = b"POST /embed HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: %d\r\nX: %s\r\n"
    bearer = b"Authorization: Bearer %s\r\n\r\n" % token(TEAM).encode()
    assert answer_to(serving, head % (len(body), b"a" * 20_000) + bearer + body).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "begun",
    [
        HEAD + b"X: ",
        b"GET /" + b"a" * 100,
        b"POST /embed HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ",
    ],
    ids=["a header", "a path", "a header after the body"],
)
def test_a_head_without_an_end_costs_others_nothing(serving: Serving, begun: bytes) -> None:
    """Of 60 MB in one header the parser made a copy with each piece that came, and nobody else was answered."""
    process = psutil.Process(serving.process.pid)
    before, slowest, done = process.memory_info().rss, 0.0, threading.Event()

    def send() -> None:
        with suppress(OSError), connected(serving) as client:  # it is closed
            client.sendall(begun)
            for _ in range(60):
                client.sendall(b"a" * 1_000_000)
        done.set()

    threading.Thread(target=send, daemon=True).start()
    deadline = time.monotonic() + 20
    while not done.wait(0.02) and time.monotonic() < deadline:
        began = time.monotonic()
        assert serving.get("/healthz").status == 200
        slowest = max(slowest, time.monotonic() - began)
    assert done.is_set() and slowest < 1.0, f"{slowest:.1f} s"
    assert process.memory_info().rss - before < 30_000_000


def test_an_upgrade_is_answered_as_plain_http(serving: Serving) -> None:
    with connected(serving) as client:
        client.sendall(b"GET /embed HTTP/1.1\r\nHost: localhost\r\n" + UPGRADE + b"\r\n")
        told = HTTPResponse(client)  # whose body may come after its head
        told.begin()
        assert told.status == 405 and b'"code":"method_not_allowed"' in told.read()
        client.sendall(HEAD + b"\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 "), "the connection is good for more"


# -- time, of a server in this process whose ten seconds and 75 s are one and three ------------------------------------

REFUSED = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"  # answered before its body has come


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that answers at once."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Response(b"{}")(scope, receive, send)

    monkeypatch.setattr("jobs.serve.protocol._SECONDS", 1.0)
    [port] = free_ports(1)
    config = uvicorn.Config(app, port=port, http=Protocol, ws="none", lifespan="off", timeout_keep_alive=3)
    server = uvicorn.Server(config)
    running = threading.Thread(target=server.run)
    running.start()
    while not server.started:
        time.sleep(0.01)
    yield port
    server.should_exit = True
    running.join()


def closed_after(port: int, sent: bytes, then: bytes = b"") -> float:
    """Seconds until the connection is closed, while now and then another byte is sent."""
    with socket.create_connection(("127.0.0.1", port), timeout=0.2) as client:
        client.sendall(sent)
        began = time.monotonic()
        while time.monotonic() - began < 10:
            try:
                client.sendall(then)
                if not client.recv(65_536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        return time.monotonic() - began


@pytest.mark.parametrize(
    "begun", [b"POST /embed HTTP/1.1\r\nHost: loc", HEAD + b"\r\n" + HEAD, REFUSED], ids=["head", "second", "body"]
)
def test_what_goes_on_for_ever_is_closed_in_time(quick: int, begun: bytes) -> None:
    assert 0.8 < closed_after(quick, begun, b"a") < 2.5


def test_a_connection_on_which_nothing_comes_is_closed(quick: int) -> None:
    assert 2.8 < closed_after(quick, b"") < 5


def test_a_head_that_comes_in_pieces_is_answered_and_no_later_request_pays_for_it(quick: int) -> None:
    with socket.create_connection(("127.0.0.1", quick), timeout=10) as client:
        for pause in (0.1, 0.1, 1.5):
            for piece in (HEAD[:10], HEAD[10:], b"\r\n"):
                client.sendall(piece)
                time.sleep(0.1)
            assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
            time.sleep(pause)
        client.sendall(HEAD + b"\r\n")
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
