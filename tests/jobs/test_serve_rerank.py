"""Reranking in `embedmill serve`: within the request's time, and asked again when the service is back."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedding.rerankers.base import NotReranked
from jobs.search.rerank import Reranking
from jobs.search.searcher import Query
from jobs.serve.reranks import REST, Reranks
from tests.embedding.test_rerankers import cross_encoder
from tests.support.serving import Serving
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")


class Service(ThreadingHTTPServer):
    """TEI's /rerank; answers 503 while ``down``, and nothing while ``stalled``."""

    daemon_threads = True
    down = stalled = False
    asked = 0
    end = threading.Event()


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        texts = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["texts"]
        self.server.asked += 1
        if self.server.stalled:
            self.server.end.wait(30)
            return
        body = json.dumps([{"index": n, "score": n} for n in range(len(texts))]).encode()  # the last is the best
        self.send_response(503 if self.server.down else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def service() -> Iterator[Service]:
    server = Service(("127.0.0.1", 0), _Handler)
    server.end = threading.Event()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.end.set()
    server.shutdown()
    server.server_close()


def test_a_reranker_that_fails_or_stalls_leaves_the_order_in_time_and_is_asked_again(
    ran: Workspace, service: Service
) -> None:
    """Serving lives for weeks: three failures in a row must not end the reranking of every team."""
    url = f"http://127.0.0.1:{service.server_address[1]}"
    ran.config.write_text(
        ran.config.read_text()
        + f'[search]\nrerank = {{kind = "http", url = "{url}", api = "tei", top = 5, timeout_seconds = 60}}\n'
    )
    server = Serving(ran.config, deadline_seconds="4")
    body = {"query": "lockers", "team": TEAM, "k": 3}
    try:
        plain = server.post("/search", body | {"rerank": False}).body
        full = server.post("/search", body | {"rerank": False, "k": 5}).body
        assert "reranked" not in plain
        first = server.post("/search", body).body
        assert first["reranked"] is True
        assert [hit["chunk_id"] for hit in first["hits"]] == [hit["chunk_id"] for hit in full["hits"][::-1][:3]]
        service.stalled = True
        late = server.post("/search", body)
        service.stalled, service.down = False, True
        failed = [server.post("/search", body) for _ in range(2)]
        asked = service.asked
        failed += [server.post("/search", body) for _ in range(3)]
        spared = service.asked - asked
        service.down = False
        time.sleep(REST)
        again = server.post("/search", body).body
        told, log = server.told("rerank_failures_total"), server.log
    finally:
        server.process.kill()
        server.process.wait()
    assert late.status == 200, "a reranker that stalls would make every search late"
    for answer in (late, *failed):
        assert (answer.status, answer.body["reranked"]) == (200, False)
        assert answer.body["hits"] == plain["hits"]
    assert late.body["rerank_reason"].startswith("no answer in ") and failed[0].body["rerank_reason"] == "HTTP 503"
    assert spared == 0, "after three failures in a row it is left alone"
    assert again["reranked"] is True and again["hits"] == first["hits"]
    assert told == 6
    assert log.count("the reranker failed 3 times in a row") == log.count("the reranker answers again") == 1


def test_a_cross_encoder_answers_many_searches_at_once(ran: Workspace, tmp_path: Path) -> None:
    folder = cross_encoder(tmp_path)
    ran.config.write_text(
        ran.config.read_text() + f'[search]\nrerank = {{kind = "cross-encoder", path = "{folder}", top = 5}}\n'
    )
    server = Serving(ran.config, deadline_seconds="30")
    words = ["lockers", "backup failed", "lunch", "handbook", "courier door shut"]
    try:
        with ThreadPoolExecutor(12) as pool:
            asked = ({"query": " ".join(words[: n % 5 + 1]), "team": TEAM} for n in range(60))
            found = list(pool.map(lambda body: server.post("/search", body), asked))
        log = server.log
    finally:
        server.process.kill()
        server.process.wait()
    assert {(answer.status, answer.body.get("reranked")) for answer in found} == {(200, True)}, log


# -- when it is asked --------------------------------------------------------------------------------------------------


class Scorer:
    """A reranker by ``does``; the last text is the best."""

    name = "scorer"

    def __init__(self) -> None:
        self.calls = 0
        self.does: Callable[[], object] = lambda: None

    def scores(self, query: str, texts: Sequence[str], seconds: float | None = None) -> npt.NDArray[np.float64]:
        self.calls += 1
        self.does()
        return np.arange(len(texts), dtype=np.float64)

    def close(self) -> None: ...


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Desk:
    """A Reranks with a scorer of its own, asked by a clock that stands still."""

    def __init__(self, full_seconds: float = 2.0) -> None:
        self.scorer, self.clock = Scorer(), Clock()
        self.failures: list[int] = []
        self.said: list[str] = []
        self._reranks = Reranks(4, full_seconds, lambda: self.failures.append(1), self.said.append, self.clock)

    def ask(self, seconds: float = 2.0) -> tuple[list[int], str]:
        """The order of three hits, and the reason why it is the index's."""
        hits: Any = [type("Hit", (), {"text": "words", "place": place})() for place in range(3)]
        found: Any = self._reranks.answer(Reranking(self.scorer, 10), Query("q", TEAM), hits, self.clock.now + seconds)
        assert found.reranked is (not found.reason)
        return [hit.place for hit in found.hits], found.reason

    def fail(self, error: Exception, times: int = 1) -> None:
        def fault() -> None:
            raise error

        self.scorer.does = fault
        for _ in range(times):
            assert self.ask()[0] == [0, 1, 2]
        self.scorer.does = lambda: None


def test_after_three_failures_in_a_row_one_search_asks_after_each_rest() -> None:
    desk = Desk()
    desk.fail(NotReranked("HTTP 503"), 2)
    assert desk.ask() == ([2, 1, 0], ""), "two are not enough, and an answer begins anew"
    desk.fail(NotReranked("HTTP 503"), 3)
    assert desk.ask() == ([0, 1, 2], "not asked for 5 s after 3 failures in a row") and desk.scorer.calls == 6
    desk.clock.now += REST
    desk.fail(NotReranked("HTTP 503"))
    assert desk.ask()[1].startswith("not asked") and desk.scorer.calls == 7
    desk.clock.now += REST
    assert desk.ask() == ([2, 1, 0], "") and desk.ask() == ([2, 1, 0], "")
    assert [line.split(":")[0] for line in desk.said] == [
        "the reranker failed 3 times in a row and is asked every 5 s only",
        "the reranker answers again",
    ]
    assert len(desk.failures) == 8


def test_while_one_search_asks_whether_it_is_back_the_others_do_not_wait() -> None:
    desk = Desk()
    desk.fail(NotReranked("HTTP 503"), 3)
    desk.clock.now += REST
    begun, end = threading.Event(), threading.Event()

    def stall() -> None:
        begun.set()
        end.wait(10)

    desk.scorer.does = stall
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(desk.ask, 60.0)
        assert begun.wait(10)
        assert desk.ask()[1].startswith("not asked")
        end.set()
        assert first.result(10) == ([2, 1, 0], "")


def test_a_client_that_gives_little_time_says_nothing_of_the_reranker() -> None:
    """Else anybody could end the reranking of all, by a header."""
    desk = Desk(full_seconds=2.0)
    end = threading.Event()

    def stall() -> None:
        desk.clock.now += 1
        end.wait(10)

    desk.scorer.does = stall
    assert [desk.ask(0.01)[0] for _ in range(4)] == [[0, 1, 2]] * 4
    assert desk.ask(-1) == ([0, 1, 2], "no time was left")
    end.set()
    desk.scorer.does = lambda: None
    assert desk.ask() == ([2, 1, 0], "")


def test_what_a_model_of_this_machine_raises_leaves_the_order_and_quotes_nothing() -> None:
    desk = Desk()
    desk.fail(RuntimeError("zanzibar"), 3)
    assert "RuntimeError" in desk.said[0] and "zanzibar" not in desk.said[0]
