"""The process that serves: it has its port first, follows the alias, and drains on a signal before it ends.

Nothing that it asks can keep it: what hangs in a call is left behind.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from embedding.errors import ConfigError, ResourceError
from jobs import termination
from jobs.serve.app import Service
from jobs.serve.metrics import ServeMetrics
from jobs.serve.protocol import Protocol
from jobs.serve.spaces import Spaces

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

_ASKS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_WRITE_SECONDS = 1.0  # for answers that are given at the last moment
_IDLE_SECONDS = 75  # that a connection is kept: longer than load balancers and clients keep theirs, or both race
_BACKLOG = 2_048  # connections that the kernel keeps for us; what is there is answered, or refused, at once


class _Server(uvicorn.Server):
    """Uvicorn that is unready for a while before it closes, and that ends well on the first signal."""

    def __init__(self, config: uvicorn.Config, service: Service, drain_seconds: float) -> None:
        super().__init__(config)
        self._service, self._drain_seconds = service, drain_seconds

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heeded = [number for number in _ASKS if signal.getsignal(number) != signal.SIG_IGN]  # one under nohup is not
        before = {number: signal.signal(number, self.handle_exit) for number in heeded}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again, self._service.draining = self._service.draining, True
        if again:
            termination.end_now(0)  # nothing here is written
        if sig == signal.SIGINT:  # a person waits
            self.should_exit = True
            return
        end = threading.Timer(self._drain_seconds, setattr, (self, "should_exit", True))
        end.daemon = True
        end.start()


def serve(pipeline: Pipeline, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until a signal. ``say`` is given lines for a person.

    Raises ConfigError for a host that is none and ResourceError where the port cannot be had. What is live
    and cannot be served is told, and tried again.
    """
    settings = pipeline.config.serve
    logging.getLogger("uvicorn").setLevel(logging.CRITICAL)  # its errors have tracebacks
    # A batch takes the interpreter's lock a dozen times. While requests keep it, each would wait this long: at the 5 ms
    # that Python has, a rush leaves nothing of the encoder's speed.
    sys.setswitchinterval(0.0005)
    told = ServeMetrics(pipeline.config)
    spaces = Spaces(pipeline, told, say)
    service = Service(pipeline, spaces, told, say)
    config = uvicorn.Config(
        service.app(),
        access_log=False,
        log_config=None,
        lifespan="off",
        http=Protocol,
        ws="none",
        proxy_headers=False,  # nothing here asks who the client is
        server_header=False,
        timeout_keep_alive=_IDLE_SECONDS,
        timeout_graceful_shutdown=settings.deadline_seconds + _WRITE_SECONDS,  # type: ignore[arg-type]
    )
    server = _Server(config, service, settings.drain_seconds)

    async def run(sockets: list[socket.socket]) -> None:
        async with spaces.following():
            shown = f"[{host}]" if ":" in host else host
            live = spaces.live
            for one in sockets:
                _listen(one, host, port)
            say(f"http://{shown}:{port} serves {f'{live.version}, space {live.space_id}' if live else 'nothing yet'}")
            await server.serve(sockets)

    with ExitStack() as opened:
        sockets = [opened.enter_context(one) for one in _bound(host, port)]
        if "://" not in pipeline.config.index.uri:
            say("index.uri: Milvus Lite serves one process at a time; no run can write until this ends")
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:  # uvloop, where it is installed
            runner.run(run(sockets))
    if not spaces.ended:
        # An index or a service that is away keeps a thread for up to a minute, and the interpreter would wait for it.
        # Nobody waits for its answer, and nothing here is written.
        sys.stderr.flush()
        termination.end_now(0)


def _bound(host: str, port: int) -> list[socket.socket]:
    """Sockets of all addresses of a host. They do not listen yet: until there is an answer, nobody is kept waiting."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        raise ConfigError(f"--host: {host} is no address, and no name of one") from None
    sockets: list[socket.socket] = []
    for family, kind, protocol, _, address in dict.fromkeys(found):
        try:
            one = socket.socket(family, kind, protocol)
        except OSError:  # IPv6, where the kernel has none
            continue
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)  # its other half is bound by itself
        try:
            one.bind(address)
        except OSError as error:
            one.close()
            if error.errno == errno.EADDRNOTAVAIL:
                continue
            for other in sockets:
                other.close()
            raise _taken(host, port) from None
        sockets.append(one)
    if not sockets:
        raise ConfigError(f"--host: {host} is no address of this machine")
    return sockets


def _listen(one: socket.socket, host: str, port: int) -> None:
    try:
        one.listen(_BACKLOG)
    except OSError:  # another program that began beside this one was faster
        raise _taken(host, port) from None


def _taken(host: str, port: int) -> ResourceError:
    return ResourceError(f"--port: {host}:{port} cannot be had; another program has it, or it is not ours")
