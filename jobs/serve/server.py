"""The process that serves: it follows the alias, and drains on a signal before it ends."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from embedding.errors import ResourceError
from jobs.serve.app import Service
from jobs.serve.metrics import ServeMetrics
from jobs.serve.spaces import Spaces

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

_ASKS = (signal.SIGINT, signal.SIGTERM)


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
        before = {number: signal.signal(number, self.handle_exit) for number in _ASKS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again, self._service.draining = self._service.draining, True
        if again or sig == signal.SIGINT:  # a person waits
            self.should_exit = True
            return
        end = threading.Timer(self._drain_seconds, setattr, (self, "should_exit", True))
        end.daemon = True
        end.start()


def serve(pipeline: Pipeline, host: str, port: int, say: Callable[[str], None]) -> None:
    """Serve until a signal. ``say`` is given lines for a person.

    Raises ResourceError where the port cannot be had, and EmbedmillError where what is live cannot be served.
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
        host,
        port,
        access_log=False,
        log_config=None,
        lifespan="off",
        proxy_headers=False,  # nothing here asks who the client is
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds + settings.deadline_seconds,  # type: ignore[arg-type]
    )
    server = _Server(config, service, settings.drain_seconds)

    async def run() -> None:
        async with spaces.following():
            shown = f"[{host}]" if ":" in host else host
            live = spaces.live
            say(f"http://{shown}:{port} serves {f'{live.version}, space {live.space_id}' if live else 'nothing yet'}")
            await server.serve()

    try:
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:  # uvloop, where it is installed
            runner.run(run())
    except SystemExit:  # of uvicorn, for a port that is taken
        raise ResourceError(f"--port: {host}:{port} cannot be had; another program has it, or it is not ours") from None
