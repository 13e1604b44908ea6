"""Traces of `serve`: a request is a span of who asked, with its steps below it, and without a word of what was asked."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.support.otlp import Received, Receiver
from tests.support.serving import SECRET, Serving, token
from tests.support.workspace import TEAM, Workspace

ASKED = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")  # a trace, and the span that asks


def _told(receiver: Receiver, spans: int) -> dict[str, Received]:
    deadline = time.monotonic() + 20
    while len(receiver.spans) < spans:
        assert time.monotonic() < deadline, [one.name for one in receiver.spans]
        time.sleep(0.05)
    return {one.name: one for one in receiver.spans}


def test_a_request_is_within_the_trace_of_who_asked_and_says_nothing_of_what(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = Workspace(tmp_path)
    assert space.run().code == 0
    monkeypatch.setenv("EMBEDMILL__SERVE__JWT_KEY", SECRET)
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    with Receiver() as receiver:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http)
        server = Serving(space.config)
        try:
            given = token(TEAM)
            asked = {"query": "zanzibar harbour 4711", "team": TEAM}
            traceparent = f"00-{ASKED[0]}-{ASKED[1]}-01"
            found = server.post("/search", asked, given, traceparent=traceparent)
            assert found.status == 200, found
            spans = _told(receiver, 3)
            assert server.post("/embed", {"inputs": "zanzibar"}).status == 401
            refused = _told(receiver, 4)["POST /embed"]
        finally:
            server.process.kill()
            server.process.wait()
    whole = spans["POST /search"]
    assert (whole.trace, whole.parent, whole.kind, whole.error) == (*ASKED, "server", "")
    assert whole.attributes["http.response.status_code"] == 200 and whole.attributes["http.route"] == "/search"
    assert whole.attributes["embedmill.space_id"] == found.headers["x-embedmill-space"]
    for name in ("encode queries", "search the index"):
        assert (spans[name].trace, spans[name].parent) == (ASKED[0], whole.span), name
        assert whole.began <= spans[name].began <= spans[name].ended <= whole.ended
    assert refused.attributes["http.response.status_code"] == 401
    assert refused.parent == "" and refused.trace != ASKED[0], "nobody said who asks"
    for word in (b"zanzibar", b"4711", given.encode(), TEAM.encode()):
        assert all(word not in sent for sent in receiver.raw), word
