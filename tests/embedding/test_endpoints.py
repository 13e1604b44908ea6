"""Several endpoints of one space: what one cannot answer the next one does, and no vector is of another space."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding.encoders.choose import open_encoder
from embedding.encoders.remote import encoder as remote_module
from embedding.encoders.remote import same_space
from embedding.encoders.remote.cost import EndpointCost
from embedding.encoders.remote.encoder import RemoteEncoder
from embedding.encoders.remote.hedging import Hedging
from embedding.encoders.spec import EncoderSpec, Fallback, RemoteSettings
from embedding.errors import ConfigError, EncoderError, SpaceMismatchError
from tests.support.canary import Canary
from tests.support.services import DIM, POISON, Server, serving, vector_of

TEXTS = [f"text {n} " + "word " * (n % 7) for n in range(200)]
TITAN = "amazon.titan-embed-text-v2:0"
LONG_AGO = 10_000  # faults of a plan: more than are ever met
OPENED: list[RemoteEncoder] = []


@pytest.fixture(autouse=True)
def closed() -> Iterator[None]:
    """Close the connections that a test's encoders keep."""
    yield
    while OPENED:
        OPENED.pop().close()


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "_FIRST_WAIT", 0.001)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "aws-secret")


@pytest.fixture
def pair() -> Iterator[tuple[Server, Server]]:
    """The first endpoint and the next one."""
    with serving() as first, serving() as second:
        yield first, second


def _encoder(cache: Path, first: Server, second: Server, *, backend: str = "http", **more: Any) -> RemoteEncoder:
    other = Fallback(
        TITAN if backend == "bedrock" else "b-model",
        backend=backend,
        url=second.address,
        region="eu-west-1",
        usd_per_million_tokens=3.0,
        request_texts=7,
        concurrency=4,
        timeout=10.0,
    )
    usual: dict[str, Any] = {"request_texts": 10, "timeout": 10.0, "concurrency": 4, "attempts": 8, "open_seconds": 0.2}
    settings = RemoteSettings(
        "a-model", DIM, url=first.address, usd_per_million_tokens=2.0, fallbacks=(other,), **(usual | more)
    )
    encoder = open_encoder(EncoderSpec("http", Path(), cache, 256, DIM, remote=settings))
    assert isinstance(encoder, RemoteEncoder)
    OPENED.append(encoder)
    return encoder


def _at_work(cache: Path, first: Server, second: Server, **more: Any) -> RemoteEncoder:
    """One whose first endpoint is in use."""
    encoder = _encoder(cache, first, second, **more)
    encoder.encode(["begin"], np.array([1]))
    encoder.take_cost()
    return encoder


def _lengths(texts: list[str]) -> np.ndarray:
    return np.array([len(text.split()) for text in texts])


def _encode(encoder: RemoteEncoder, texts: list[str] = TEXTS) -> None:
    vectors = encoder.encode(texts, _lengths(texts))
    np.testing.assert_allclose(vectors, [vector_of(text) for text in texts], atol=1e-6)


def _costs(encoder: RemoteEncoder) -> tuple[EndpointCost, ...]:
    return encoder.take_cost().endpoints


def _asked(server: Server) -> list[str]:
    ours = set(TEXTS)
    return [text for texts in server.requests for text in texts if text in ours]


def test_while_the_first_answers_no_other_is_asked(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    encoder = _encoder(tmp_path, *pair)
    _encode(encoder)
    assert sorted(_asked(pair[0])) == sorted(TEXTS) and _asked(pair[1]) == []


@pytest.mark.parametrize("backend", ["http", "bedrock"])
@pytest.mark.parametrize("fault", ["reset", "broken", "overloaded", "garbage", "throttle", "firewall"])
def test_what_the_first_fails_on_the_next_one_answers(
    tmp_path: Path, pair: tuple[Server, Server], fault: str, backend: str
) -> None:
    first, second = pair
    encoder = _at_work(tmp_path, first, second, backend=backend)
    before = len(first.requests)
    first.plan = iter([fault] * LONG_AGO)
    _encode(encoder)
    assert Counter(_asked(second)) == Counter(TEXTS), "each text once"
    costs = _costs(encoder)
    assert [one.name for one in costs] == [
        "0 http a-model",
        f"1 {'bedrock ' + TITAN if backend != 'http' else 'http b-model'}",
    ]
    assert costs[0].requests == 0 and costs[0].failures >= 5
    if fault != "throttle":  # too much at once is no failure
        assert costs[0].opened >= 1 and len(first.requests) - before < len(TEXTS) // 10, "it is left out after a few"


def test_an_endpoint_that_is_back_takes_over_again(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    first, second = pair
    encoder = _at_work(tmp_path, first, second)
    first.plan = iter(["broken"] * 12)
    _encode(encoder)
    time.sleep(0.25)
    second.slow = 0.05
    first.plan = iter([])
    _encode(encoder)
    assert encoder.limit.limit > 1, "one request first, then more"
    asked = len(_asked(second))
    _encode(encoder)
    assert len(_asked(second)) == asked, "the first answers all of it"


def test_one_that_is_back_begins_with_one_request_at_a_time(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    first, second = pair
    encoder = _at_work(tmp_path, first, second, request_texts=1)
    _encode(encoder)
    assert encoder.limit.limit == 4
    first.plan = iter(["broken"] * 30)
    _encode(encoder)
    time.sleep(0.25)
    first.plan = iter([])
    _encode(encoder, TEXTS[:1])
    assert encoder.limit.limit == 1 and encoder.limit.ramping
    first.slow = second.slow = 0.02
    before = len(_asked(second))
    _encode(encoder)
    assert len(_asked(second)) > before, "the next one takes the rest"
    assert encoder.limit.limit == 4 and not encoder.limit.ramping


def test_a_half_open_endpoint_gets_one_request_at_a_time(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    first, second = pair
    encoder = _at_work(tmp_path, first, second, open_seconds=0.05, request_texts=1)
    first.plan = iter(["broken"] * LONG_AGO)
    _encode(encoder)
    first.most_busy = 0
    second.slow = 0.01
    _encode(encoder)
    assert first.most_busy == 1 < second.most_busy


def test_a_refused_text_is_asked_of_no_other_and_blames_no_endpoint(
    tmp_path: Path, pair: tuple[Server, Server]
) -> None:
    first, second = pair
    encoder = _encoder(tmp_path, first, second)
    before = len(second.requests)
    texts = [*TEXTS[:33], POISON, *TEXTS[33:]]
    vectors = encoder.encode(texts, _lengths(texts))
    assert np.flatnonzero(np.isnan(vectors[:, 0])).tolist() == [33]
    assert len(second.requests) == before
    assert _costs(encoder)[0].opened == 0


def test_a_text_that_every_endpoint_fails_on_opens_none(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    for server in pair:
        server.of_poison = "broken"
    encoder = _encoder(tmp_path, *pair)
    texts = [*TEXTS[:33], f"{POISON} here", *TEXTS[33:]]
    vectors = encoder.encode(texts, _lengths(texts))
    assert np.flatnonzero(np.isnan(vectors[:, 0])).tolist() == [33]
    assert [one.opened for one in _costs(encoder)] == [0, 0]


def test_all_down_is_one_error_and_no_text_is_blamed(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    encoder = _encoder(tmp_path, *pair, attempts=4)
    for server in pair:
        server.plan = iter(["broken"] * LONG_AGO)
    with pytest.raises(EncoderError, match="did not answer in 4 attempts"):
        encoder.encode(TEXTS, _lengths(TEXTS))


def test_all_denied_is_a_configuration_error(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    encoder = _encoder(tmp_path, *pair, attempts=4)
    for server in pair:
        server.plan = iter(["firewall"] * LONG_AGO)
    with pytest.raises(ConfigError, match=r"model\.remote"):
        encoder.encode(TEXTS, _lengths(TEXTS))


def test_an_endpoint_of_another_space_is_refused_by_name_before_any_use(
    tmp_path: Path, pair: tuple[Server, Server]
) -> None:
    first, second = pair
    second.space = "another"
    with pytest.raises(SpaceMismatchError, match=r"model\.remote\.fallbacks\[0\].*1 http b-model") as refused:
        _encoder(tmp_path, first, second)
    assert "\n" not in str(refused.value) and second.url not in str(refused.value)
    assert {text for texts in second.requests for text in texts} == set(same_space.texts()), "our texts alone"


def test_one_that_was_down_at_the_start_is_proven_before_its_first_vector(
    tmp_path: Path, pair: tuple[Server, Server]
) -> None:
    first, second = pair
    second.plan = iter(["broken"])
    second.space = "another"
    encoder = _encoder(tmp_path, first, second)
    _encode(encoder)
    first.plan = iter(["broken"] * LONG_AGO)
    with pytest.raises(SpaceMismatchError):
        encoder.encode(TEXTS, _lengths(TEXTS))
    assert _asked(second) == []


def test_with_kept_probe_vectors_the_first_may_be_down(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    first, second = pair
    _encoder(tmp_path, first, second)
    first.plan = iter(["broken"] * LONG_AGO)
    _encode(_encoder(tmp_path, first, second))
    assert Counter(_asked(second)) == Counter(TEXTS)


def test_without_them_a_first_that_is_down_is_an_error_that_says_so(
    tmp_path: Path, pair: tuple[Server, Server]
) -> None:
    first, second = pair
    first.plan = iter(["broken"] * LONG_AGO)
    with pytest.raises(EncoderError, match=r"model\.remote\.fallbacks.*first endpoint.*nothing proves"):
        _encoder(tmp_path, first, second)
    assert second.requests == []


def test_the_first_is_held_to_the_kept_vectors_too(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    first, second = pair
    _encoder(tmp_path, first, second)
    first.space = "another"
    with pytest.raises(SpaceMismatchError, match="0 http a-model"):
        _encoder(tmp_path, first, second)


def test_a_slow_answer_is_hedged_and_both_are_paid(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    first, second = pair
    encoder = _at_work(tmp_path, first, second, hedge=0.2, request_texts=1)
    _encode(encoder)  # what is usual
    encoder.take_cost()
    proven = second.billed
    first.slow = 1.0
    began = time.monotonic()
    _encode(encoder, TEXTS[:4])
    took = time.monotonic() - began
    spent = _costs(encoder)
    assert took < 1.0 and spent[1].hedged == 4
    paid = int(_lengths(TEXTS[:4]).sum())
    assert spent[0].tokens == paid, "what was asked of the first is paid too"
    assert spent[1].tokens == second.billed - proven
    time.sleep(1.2)
    assert encoder.take_cost().tokens == 0, "and once"


def test_hedged_requests_stay_within_their_share(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    first, second = pair
    encoder = _encoder(tmp_path, first, second, hedge=0.05, request_texts=1)
    _encode(encoder)
    first.slow = 0.02
    _encode(encoder)
    _encode(encoder)
    assert 1 <= _costs(encoder)[1].hedged <= 0.05 * 3 * len(TEXTS)


def test_no_more_are_hedged_than_the_share_of_what_was_asked() -> None:
    hedging = Hedging(0.1)
    for _ in range(95):
        hedging.began()
    assert [hedging.take() for _ in range(12)] == [True] * 9 + [False] * 3


def test_without_a_share_nothing_is_hedged(tmp_path: Path, pair: tuple[Server, Server]) -> None:
    first, second = pair
    encoder = _encoder(tmp_path, first, second, request_texts=1)
    _encode(encoder)
    first.slow = 0.02
    _encode(encoder)
    assert _asked(second) == []


def test_a_hedged_request_whose_first_dies_is_answered_by_the_second(
    tmp_path: Path, pair: tuple[Server, Server]
) -> None:
    first, second = pair
    encoder = _encoder(tmp_path, first, second, hedge=1.0, request_texts=1)
    _encode(encoder)
    first.slow, first.plan = 0.3, iter(["reset"] * LONG_AGO)
    _encode(encoder, TEXTS[:20])
    time.sleep(0.5)
    assert _costs(encoder)[0].opened >= 1, "what was left behind is held against it all the same"


def test_logs_name_endpoints_and_neither_texts_nor_addresses(
    tmp_path: Path, pair: tuple[Server, Server], caplog: pytest.LogCaptureFixture
) -> None:
    first, second = pair
    text, user = Canary(), Canary()
    for server in pair:
        server.address = server.url.replace("//", f"//name:{user.halves[0]}@")
    caplog.set_level(logging.DEBUG)
    encoder = _at_work(tmp_path, first, second, hedge=0.5)
    first.plan = iter(["broken"] * LONG_AGO)
    encoder.encode([f"{text.text} {n}" for n in range(200)], np.full(200, 5))
    logged = "\n".join(f"{r.name} {r.getMessage()} {r.exc_text}" for r in caplog.records)
    assert "endpoint 0 http a-model is left out" in logged
    assert not text.found_in(logged.encode()) and not user.found_in(logged.encode())
    kept = b"".join(file.name.encode() + file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert not user.found_in(kept)
