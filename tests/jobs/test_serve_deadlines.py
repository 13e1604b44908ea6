"""The deadline holds, whatever a request is and whatever else hangs."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from tests.support import services
from tests.support.milvus_server import MilvusServer
from tests.support.proxy import Proxy
from tests.support.services import DIM
from tests.support.serving import Serving
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")
LARGE = [f"the lockers at the train station {n} " * 12 for n in range(2_000)]


def post_beside(server: Serving, path: str, body: Any, **headers: str) -> threading.Thread:
    def ask() -> None:
        with suppress(OSError):
            server.post(path, body, **headers)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    return asking


def test_a_large_body_is_answered_within_its_time(ran: Workspace) -> None:
    """Counting its tokens takes longer; it is 504, for it cannot be answered later either."""
    with Serving(ran.config) as server:
        began = time.monotonic()
        answer = server.post("/embed", {"inputs": LARGE}, x_embedmill_timeout="0.05")
        spent = time.monotonic() - began
        assert (answer.status, answer.body["error"]["code"]) == (504, "deadline")
        assert spent < 1.0, f"after {spent:.1f} s"
        assert server.post("/embed", {"inputs": "a"}).status == 200


# The run before it keeps a connection to the model.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_one_stalled_question_to_the_model_holds_up_no_other(workspace: Workspace) -> None:
    with services.serving() as model:
        remote = f'[model.remote]\nmodel = "a-model"\ndim = {DIM}\nurl = "{model.url}"\ntimeout = 20\nattempts = 3\n'
        workspace.config.write_text(
            workspace.config.read_text().replace('backend = "hash"', 'backend = "http"') + remote
        )
        assert workspace.run().code == 0
        with Serving(workspace.config, deadline_seconds="3") as server:
            model.plan = iter(["stall"])
            stalled = post_beside(server, "/embed", {"inputs": "one"})
            while not model.seen["stall"]:
                time.sleep(0.01)
            began = time.monotonic()
            assert [server.post("/embed", {"inputs": f"two {n}"}).status for n in range(3)] == [200] * 3
            assert time.monotonic() - began < 2.5 and stalled.is_alive(), "the first one is still waited for"
            stalled.join(20)


def test_an_index_that_is_away_holds_up_no_vectors(ran: Workspace, milvus_server: MilvusServer) -> None:
    """Searches that are late keep their threads for as long as the index is asked again, and counting has its own."""
    ran.config.write_text(ran.config.read_text() + f'[index]\nuri = "{milvus_server.uri}"\nname = "away"\n')
    assert ran.run().code == 0
    proxy = Proxy(milvus_server.uri)
    ran.config.write_text(ran.config.read_text().replace(milvus_server.uri, proxy.uri))
    try:
        with Serving(ran.config, deadline_seconds="5") as server:
            proxy.cut(60)
            body = {"query": "a", "team": TEAM}
            asking = [post_beside(server, "/search", body, x_embedmill_timeout="0.3") for _ in range(20)]
            for one in asking:
                one.join(20)
            assert server.post("/embed", {"inputs": LARGE[:100]}).status == 200
    finally:
        proxy.close()
