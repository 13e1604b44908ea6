"""How `embedmill serve` begins and ends: it has its port before its model, leaves the first run alone, and can be ended."""

from __future__ import annotations

import signal
import socket
import subprocess
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from embedding.errors import ConfigError, EmbedmillError, ResourceError
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.serve.server import serve
from jobs.telemetry.progress import Progress
from tests.support import services
from tests.support.milvus_server import MilvusServer
from tests.support.proxy import Proxy
from tests.support.services import DIM
from tests.support.serving import Serving
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")


def ended_within(server: Serving, seconds: float) -> float:
    """Seconds until the end, which is waited for so long; the exit code must be 0."""
    began = time.monotonic()
    with suppress(subprocess.TimeoutExpired):
        assert server.process.wait(seconds) == 0, server.log
    return time.monotonic() - began


def ask_beside(server: Serving, path: str, body: Any) -> threading.Thread:
    def ask() -> None:
        with suppress(OSError):
            server.post(path, body)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    return asking


def refused(space: Workspace, host: str, port: int) -> tuple[EmbedmillError, list[str]]:
    """Why it cannot serve there, and what it has said before."""
    said: list[str] = []
    pipeline = Pipeline(load_config(space.config), Progress())
    try:
        with pytest.raises(EmbedmillError) as found:
            serve(pipeline, host, port, said.append)
    finally:
        pipeline.close()
    return found.value, said


def test_a_port_that_is_taken_is_told_before_anything_is_opened(ran: Workspace) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        error, said = refused(ran, "127.0.0.1", taken.getsockname()[1])
    assert isinstance(error, ResourceError) and "--port" in str(error)
    assert said == []


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"], ids=["no name", "of another machine"])
def test_a_host_that_is_not_ours_is_named_and_not_the_port(ran: Workspace, host: str) -> None:
    error, said = refused(ran, host, 8000)
    assert isinstance(error, ConfigError) and "--host" in str(error) and "--port" not in str(error)
    assert said == []


def test_serving_before_the_first_run_leaves_the_index_to_it_and_then_serves_it(workspace: Workspace) -> None:
    with Serving(workspace.config, wait_for="serves nothing yet", reload_seconds="0.3") as server:
        assert "embedmill run" in server.log
        assert server.get("/readyz").status == 503
        assert sorted(workspace.root.rglob("*.db")) == [], "it made an index"
        run = workspace.run()
        assert run.code == 0, f"what only reads keeps the first run out: {run}"
        deadline = time.monotonic() + 30
        while server.get("/readyz").status != 200 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert server.post("/search", {"query": "lockers", "team": TEAM}).body["hits"]
        assert server.log.count("embedmill run") == 1, "it is said once"


def test_an_index_without_a_live_version_is_let_go_of(workspace: Workspace) -> None:
    """As a first run that was ended leaves it; on Milvus Lite the next one needs it for itself."""
    pipeline = Pipeline(load_config(workspace.config), Progress())
    pipeline.index()
    pipeline.close()
    with Serving(workspace.config, wait_for="serves nothing yet", reload_seconds="0.3"):
        assert workspace.run().code == 0


def test_a_second_ctrl_c_does_not_wait(ran: Workspace) -> None:
    with (
        Serving(ran.config, drain_seconds="10", deadline_seconds="20") as server,
        socket.create_connection(("127.0.0.1", server.port)) as client,
    ):
        client.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.5)
        assert server.process.poll() is None, "the first one answers what is under way"
        server.process.send_signal(signal.SIGINT)
        assert ended_within(server, 10) < 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_drains_and_answers_what_is_under_way(ran: Workspace, number: signal.Signals) -> None:
    """SIGHUP too, where it is not ignored as under nohup: the end of a terminal answered requests by 500."""
    if signal.getsignal(number) == signal.SIG_IGN:
        pytest.skip("ignored here, and so by what is started here")
    with (
        Serving(ran.config, drain_seconds="1") as server,
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as client,
    ):
        client.sendall(b"POST /embed HTTP/1.1\r\nHost: localhost\r\nContent-Length: 15\r\n\r\n")
        time.sleep(0.3)
        server.process.send_signal(number)
        time.sleep(0.3)
        assert server.get("/readyz").body["status"] == "draining"
        client.sendall(b'{"inputs": "a"}')
        assert client.recv(65_536).startswith(b"HTTP/1.1 200 ")
        assert ended_within(server, 10) < 5 and "SIGHUP" not in server.log


# The run before it keeps a connection to the model.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_sigterm_ends_it_while_the_model_stalls(workspace: Workspace) -> None:
    with services.serving() as model:
        remote = f'[model.remote]\nmodel = "a-model"\ndim = {DIM}\nurl = "{model.url}"\ntimeout = 20\n'
        workspace.config.write_text(
            workspace.config.read_text().replace('backend = "hash"', 'backend = "http"') + remote
        )
        assert workspace.run().code == 0
        with Serving(workspace.config, drain_seconds="0.5", deadline_seconds="1") as server:
            model.plan = iter(["stall"] * 20)
            ask_beside(server, "/embed", {"inputs": "one"})
            time.sleep(0.3)
            server.process.terminate()
            spent = ended_within(server, 30)
    assert spent < 5, f"{spent:.0f} s"


def test_sigterm_ends_it_while_the_index_is_away(ran: Workspace, milvus_server: MilvusServer) -> None:
    """A call of an index that is away is tried again for a minute, in a thread that cannot be ended."""
    ran.config.write_text(ran.config.read_text() + f'[index]\nuri = "{milvus_server.uri}"\nname = "ended"\n')
    assert ran.run().code == 0
    proxy = Proxy(milvus_server.uri)
    ran.config.write_text(ran.config.read_text().replace(milvus_server.uri, proxy.uri))
    try:
        with Serving(ran.config, drain_seconds="0.5", deadline_seconds="1") as server:
            proxy.cut(70)
            ask_beside(server, "/search", {"query": "a", "team": TEAM}).join(10)
            server.process.terminate()
            spent = ended_within(server, 50)
    finally:
        proxy.close()
    assert spent < 6, f"{spent:.0f} s"
