"""Bodies that `embedmill serve` is sent: late, broken, too large, or with options that nobody does as asked."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import numpy as np
import pytest

from jobs.serve.requests import BadRequest, EmbeddingsRequest, EmbedRequest, SearchBodyRequest, parse
from tests.support import services
from tests.support.services import DIM, POISON
from tests.support.serving import SECRET, Serving, token
from tests.support.workspace import TEAM, Workspace

pytestmark = pytest.mark.usefixtures("encoder_here")
CANARY = "zanzibar-harbour-4711"
DEADLINE = 1.0


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    space = Workspace(tmp_path_factory.mktemp("bodies") / "ws")
    assert space.run().code == 0
    server = Serving(space.config, jwt_key=SECRET, deadline_seconds=str(DEADLINE), requests="2")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="module")
def mine() -> str:
    return token(TEAM)


def half_sent(server: Serving, bearer: str) -> socket.socket:
    """A request of which the rest of the body does not come."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    head = f"POST /embed HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\nContent-Length: 1000\r\n\r\n"
    client.sendall(head.encode() + b'{"inputs": "')
    return client


def refusal(kind: type[Any], **body: Any) -> str:
    """What is said of a body."""
    with pytest.raises(BadRequest) as refused:
        parse(kind, json.dumps(body).encode())
    return str(refused.value)


# -- bodies that come slowly, or not at all ----------------------------------------------------------------------------


def test_a_body_that_does_not_come_is_over_at_the_deadline(serving: Serving, mine: str) -> None:
    began = time.monotonic()
    with half_sent(serving, mine) as client:
        told = b"".join(iter(lambda: client.recv(65_536), b""))  # to the end of the connection
    assert told.startswith(b"HTTP/1.1 408 ") and b'"code":"deadline"' in told
    assert DEADLINE * 0.8 < time.monotonic() - began < DEADLINE + 1, "it keeps neither place nor connection"


def test_clients_that_stall_do_not_keep_the_places_of_others(serving: Serving, mine: str) -> None:
    stalled = [half_sent(serving, mine) for _ in range(2)]
    time.sleep(0.3)
    assert serving.post("/embed", {"inputs": "a"}, mine).status == 429, "they have the two places"
    time.sleep(DEADLINE + 0.3)
    status = serving.post("/embed", {"inputs": "a"}, mine).status
    for client in stalled:
        client.close()
    assert status == 200


def test_a_connection_that_was_idle_is_still_answered(serving: Serving) -> None:
    """Who keeps connections for later, as load balancers do for a minute, would else ask on one that is being closed."""
    kept = http.client.HTTPConnection("127.0.0.1", serving.port, timeout=20)
    with closing(kept):
        for seconds in (6, 0):
            kept.request("GET", "/healthz")
            answer = kept.getresponse()
            assert (answer.status, answer.read()) == (200, b'{"status":"ok"}')
            assert kept.sock is not None, "the server has not closed it"
            time.sleep(seconds)
            kept.auto_open = 0


def test_a_client_that_goes_away_is_no_fault_of_the_server(serving: Serving, mine: str) -> None:
    half_sent(serving, mine).close()
    deadline = time.monotonic() + 10
    while not serving.told("requests_total", code="499", route="/embed") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert serving.told("requests_total", code="499", route="/embed") == 1
    assert "ClientDisconnect" not in serving.log and 'code="500"' not in serving.get("/metrics").body


# -- what is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "code"), [("/v1/models", 404, "not_found"), ("/embed", 405, "method_not_allowed")]
)
def test_a_path_or_method_that_is_not_there_is_an_error_of_the_same_shape(
    serving: Serving, path: str, status: int, code: str
) -> None:
    answer = serving.get(path)
    assert answer.status == status and answer.headers["content-type"] == "application/json"
    assert answer.body["error"]["code"] == code and set(answer.body["error"]) == {"message", "type", "code"}
    assert answer.headers.get("allow") == ("POST" if status == 405 else None)


def test_no_address_is_made_of_what_the_client_says(serving: Serving, mine: str) -> None:
    answer = serving.post("/embed/", {"inputs": "a"}, mine, host="evil.example")
    assert (answer.status, answer.body["error"]["code"]) == (404, "not_found") and "location" not in answer.headers


def test_a_body_that_is_packed_is_refused_as_such(serving: Serving, mine: str) -> None:
    answer = serving.post("/embed", gzip.compress(b'{"inputs": "a"}'), mine, content_encoding="gzip")
    assert (answer.status, answer.body["error"]["code"]) == (415, "unsupported_encoding")
    assert answer.body["error"]["message"].startswith("content-encoding: ")
    assert serving.post("/embed", {"inputs": "a"}, mine, content_encoding="identity").status == 200


# -- options of others -------------------------------------------------------------------------------------------------

LONG = "how long do the lockers stay open " * 1_000


@pytest.mark.parametrize(
    "field",
    [
        {"normalize": False},
        {"prompt_name": "document"},
        {"truncation_direction": "left"},
        {"truncation_direction": "Left"},
    ],
)
def test_an_option_that_is_not_done_is_refused(serving: Serving, mine: str, field: dict[str, object]) -> None:
    answer = serving.post("/embed", {"inputs": "lockers"} | field, mine)
    assert answer.status == 400, "a client that asked for it would store other vectors than it believes"
    assert next(iter(field)) in answer.body["error"]["message"]


def test_a_text_that_would_be_cut_is_refused_where_it_may_not_be(serving: Serving, mine: str) -> None:
    answer = serving.post("/embed", {"inputs": ["short", LONG], "truncate": False}, mine)
    assert (answer.status, answer.body["error"]["code"]) == (413, "too_large")
    assert "text 1 " in answer.body["error"]["message"] and "lockers" not in answer.body["error"]["message"]
    assert serving.post("/embed", {"inputs": ["short"], "truncate": False}, mine).status == 200
    assert serving.post("/embed", {"inputs": [LONG]}, mine).status == 200


def test_options_that_are_done_change_nothing(serving: Serving, mine: str) -> None:
    options = {"normalize": True, "truncate": True, "truncation_direction": "Right", "prompt_name": "query"}
    answer = serving.post("/embed", {"inputs": "lockers"} | options, mine)
    assert answer.status == 200 and answer.body == serving.post("/embed", {"inputs": "lockers"}, mine).body
    np.testing.assert_allclose(np.linalg.norm(answer.body, axis=1), 1, atol=1e-5)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # the double
def test_a_space_of_other_lengths_has_them_unless_asked_and_a_text_without_a_vector_is_no_outage(
    workspace: Workspace,
) -> None:
    with services.serving() as model:
        model.length = 2.0
        remote = f'[model.remote]\nmodel = "a-model"\ndim = {DIM}\nmax_tokens = 256\nurl = "{model.url}"\n'
        text = workspace.config.read_text().replace('backend = "hash"', 'backend = "http"')
        workspace.config.write_text(text + remote + "normalise = false\n")
        assert workspace.run().code == 0
        server = Serving(workspace.config)
        try:
            options: list[dict[str, object]] = [{}, {"normalize": False}, {"normalize": True}]
            answers = [server.post("/embed", {"inputs": "lockers"} | option).body for option in options]
            embedded = server.post("/embed", {"inputs": POISON})
            searched = server.post("/search", {"query": POISON, "team": TEAM, "mode": "dense"})
            log = server.log
        finally:
            server.process.kill()
            server.process.wait()
    np.testing.assert_allclose(np.linalg.norm(answers, axis=2).ravel(), [2, 2, 1], rtol=1e-5)
    np.testing.assert_allclose(answers[2], np.array(answers[0]) / 2, rtol=1e-5)
    assert [answer.body["error"]["code"] for answer in (embedded, searched)] == ["not_encodable"] * 2
    assert [embedded.status, searched.status] == [422, 422], "a client would ask an outage again for ever"
    assert "--lexical" not in log


# -- what is said of a body --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["since", "until"])
def test_a_date_that_is_none_is_not_quoted(serving: Serving, mine: str, field: str) -> None:
    answer = serving.post("/search", {"query": "a", field: CANARY}, mine)
    assert answer.status == 400 and CANARY not in json.dumps(answer.body)
    assert answer.body["error"]["message"].startswith(f"{field}: is not a date")


def test_a_date_is_taken_as_the_command_takes_it() -> None:
    asked = parse(SearchBodyRequest, b'{"query": "a", "since": "2025-03-01", "until": "2025-03-01T00:00:01+00:00"}')
    assert (asked.since, asked.until) == (1_740_787_200_000_000, 1_740_787_201_000_000)
    assert parse(SearchBodyRequest, b'{"query": "a", "since": null}').since is None


@pytest.mark.parametrize(
    ("kind", "body", "said"),
    [
        (SearchBodyRequest, {"query": "a", "channels": "C1"}, "channels: must be a list of texts"),
        (SearchBodyRequest, {"query": "a", "channels": ["C1", 2]}, "channels: must be a list of texts"),
        (SearchBodyRequest, {"query": ["a"]}, "query: must be a text"),
        (SearchBodyRequest, {"query": "a", "team": 1}, "team: must be a text"),
        (SearchBodyRequest, {"query": ""}, "query: is empty"),
        (
            SearchBodyRequest,
            {"query": "a", "since": 5},
            "since: is not a date; write 2025-03-01 or 2025-03-01T12:00:00",
        ),
        (EmbedRequest, {"inputs": 5}, "inputs: must be a text or a list of texts"),
        (EmbedRequest, {"inputs": []}, "inputs: is empty"),
        (EmbedRequest, {"inputs": ["a", ""]}, "inputs: is empty"),
        (EmbeddingsRequest, {"input": [1, 2, 3]}, "input: must be a text or a list of texts"),
        (EmbeddingsRequest, {"input": ["a"] * 2_049}, "input: has more than 2,048 texts"),
    ],
)
def test_what_is_wrong_is_said_of_the_field_as_it_is(kind: type[Any], body: dict[str, Any], said: str) -> None:
    assert refusal(kind, **body) == said


@pytest.mark.parametrize(
    ("kind", "field"), [(EmbeddingsRequest, "input"), (EmbedRequest, "inputs"), (SearchBodyRequest, "query")]
)
def test_null_is_a_field_that_is_not_given(kind: Any, field: str) -> None:
    """As clients made from a schema send what they leave out."""
    nulls = {name: None for name in kind.model_fields if name != field}
    assert parse(kind, json.dumps({field: "a"} | nulls).encode()) == parse(kind, json.dumps({field: "a"}).encode())
    assert refusal(kind, **{field: None}).startswith(f"{field}: must be a text")
    assert refusal(kind, **{field: "a", "colour": None}) == "colour: unknown field"


@pytest.mark.parametrize("query", [" ", "\n\t", "\0", " \0 "])
def test_a_search_for_nothing_is_refused_as_the_command_does(query: str) -> None:
    assert refusal(SearchBodyRequest, query=query) == "query: give some words to search for"
    assert parse(EmbedRequest, json.dumps({"inputs": query}).encode()).inputs == [query]


@pytest.mark.parametrize("body", [b"[]", b"null", b'"a"', b"5"])
def test_a_body_that_is_no_object_is_said_without_names_of_our_classes(body: bytes) -> None:
    with pytest.raises(BadRequest) as refused:
        parse(EmbedRequest, body)
    assert str(refused.value) == "the body must be an object"


@pytest.mark.parametrize(
    ("field", "most"), [("mentions", 100), ("authors", 100), ("languages", 100), ("channels", 1_000)]
)
def test_a_filter_that_is_very_long_is_refused(field: str, most: int) -> None:
    """The index compares each row with each name: 20,000 of them would take it seconds."""
    names = [f"U{number}" for number in range(most)]
    parse(SearchBodyRequest, json.dumps({"query": "a", field: names}).encode())
    assert refusal(SearchBodyRequest, query="a", **{field: [*names, "U"]}) == f"{field}: has more than {most:,} texts"
