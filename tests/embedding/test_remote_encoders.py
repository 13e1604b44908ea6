"""Managed models: whatever the service does, a vector belongs to its text, nothing is lost and the cost adds up."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding.encoders.bisection import encode_with_bisection
from embedding.encoders.choose import open_encoder
from embedding.encoders.remote import encoder as remote_module
from embedding.encoders.remote.concurrency_limit import AdaptiveLimit
from embedding.encoders.remote.encoder import RemoteEncoder
from embedding.encoders.remote.service import TryAgain
from embedding.encoders.spec import EncoderSpec, RemoteSettings
from embedding.errors import ConfigError, EncoderError
from tests.support.canary import Canary
from tests.support.services import DIM, FAULTS, POISON, Server, serving, vector_of

TEXTS = [f"text {n} " + "word " * (n % 7) for n in range(120)]
MODELS = {
    "openai": ("http", "a-model"),
    "tei": ("http", "a-model"),
    "titan": ("bedrock", "amazon.titan-embed-text-v2:0"),
    "cohere": ("bedrock", "eu.cohere.embed-multilingual-v3"),
    "sagemaker": ("sagemaker", "an-endpoint"),
}


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
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "aws-secret",
        "EMBEDMILL_HTTP_API_KEY": "http-secret",
    }.items():
        monkeypatch.setenv(name, value)


def _encoder(server: Server, kind: str, **more: Any) -> RemoteEncoder:
    backend, model = MODELS[kind]
    usual: dict[str, Any] = {"request_texts": 10, "timeout": 30.0, "concurrency": 6, "attempts": 30}
    settings = RemoteSettings(
        model,
        DIM,
        url=server.address,
        region="eu-west-1",
        dialect="tei" if kind == "tei" else "openai",
        usd_per_million_tokens=2.0,
        **(usual | more),
    )
    encoder = open_encoder(EncoderSpec(backend, Path(), Path(), 256, DIM, remote=settings))
    assert isinstance(encoder, RemoteEncoder)
    OPENED.append(encoder)
    return encoder


def _lengths(texts: list[str]) -> np.ndarray:
    return np.array([len(text.split()) for text in texts])


def _right(vectors: np.ndarray, texts: list[str]) -> None:
    np.testing.assert_allclose(vectors, [vector_of(text) for text in texts], atol=1e-6)


@pytest.mark.parametrize("kind", MODELS)
def test_every_text_gets_its_own_vector(kind: str) -> None:
    with serving() as server:
        encoder = _encoder(server, kind)
        _right(encoder.encode(TEXTS, _lengths(TEXTS)), TEXTS)
    assert sorted(text for texts in server.requests for text in texts) == sorted(TEXTS)
    cost = encoder.take_cost()
    assert (cost.texts, cost.tokens, cost.retries) == (len(TEXTS), server.billed, 0)
    assert cost.requests == len(server.requests) == (len(TEXTS) if kind == "titan" else 12)
    assert cost.usd == pytest.approx(server.billed * 2.0 / 1e6)
    assert encoder.take_cost().requests == 0, "what was taken is not counted twice"


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_no_fault_of_the_service_mixes_or_loses_a_vector(kind: str, seed: int) -> None:
    draw = random.Random(seed)
    senseless = {"openai": (), "titan": ("misordered", "twice", "long")}.get(kind, ("misordered", "twice"))
    faults = [fault for fault in FAULTS if fault not in senseless]
    plan = [*faults, *draw.choices([*faults, "", "", ""], k=10)]
    draw.shuffle(plan)
    with serving([fault for fault in plan if fault != "stall" or draw.random() < 0.5]) as server:
        encoder = _encoder(server, kind, timeout=2.0)  # short for the stalls, long for a machine that is busy
        _right(encoder.encode(TEXTS, _lengths(TEXTS)), TEXTS)
    assert next(server.plan, None) is None, "every fault was met"
    cost = encoder.take_cost()
    assert cost.texts == len(TEXTS)
    assert cost.tokens == server.billed >= int(_lengths(TEXTS).sum()), (
        "what was asked to see whether it lives is billed"
    )
    assert cost.retries == sum(n for fault, n in server.seen.items() if fault not in ("", "misordered"))


def test_requests_stay_within_the_limits() -> None:
    texts = [*TEXTS, "word " * 50]
    with serving() as server:
        encoder = _encoder(server, "openai", request_tokens=20)
        _right(encoder.encode(texts, _lengths(texts)), texts)
    assert max(map(len, server.requests)) <= 10
    assert all(_lengths(request).sum() <= 20 for request in server.requests if len(request) > 1)
    assert ["word " * 50] in server.requests, "a text that is over the limit goes alone"


def test_concurrency_grows_to_the_limit_and_halves_when_throttled() -> None:
    with serving() as server:
        server.slow = 0.01
        encoder = _encoder(server, "openai", request_texts=1)
        encoder.encode(TEXTS, _lengths(TEXTS))
        assert encoder.limit.limit == 6
        assert 1 < server.most_busy <= 6  # how many of them meet at the server is the machine's affair
        server.plan = iter(["throttle"] * 12)
        encoder.encode(TEXTS[:3], _lengths(TEXTS[:3]))
        assert encoder.limit.limit < 6


def test_one_burst_of_refusals_halves_once() -> None:
    limit = AdaptiveLimit(16, first=16)
    eras = []
    with limit.slot() as first, limit.slot() as second:
        eras = [first, second]
    for era in eras:
        limit.pushed_back(era)
    assert limit.limit == 8
    with limit.slot() as era:
        limit.pushed_back(era)
    assert limit.limit == 4


def test_limit_holds_others_back() -> None:
    limit = AdaptiveLimit(1)
    entered = threading.Event()

    def enter() -> None:
        with limit.slot():
            entered.set()

    with limit.slot():
        thread = threading.Thread(target=enter)
        thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(5)
    thread.join()


@pytest.mark.parametrize("kind", ["openai", "tei", "titan", "cohere"])
def test_a_refused_text_is_alone_in_its_misfortune(kind: str) -> None:
    texts = [*TEXTS[:33], f"{POISON} here", *TEXTS[33:]]
    with serving() as server:
        encoder = _encoder(server, kind)
        lengths = _lengths(texts)
        vectors, good = encode_with_bisection(lambda a, b: encoder.encode(texts[a:b], lengths[a:b]), len(texts), DIM)
    assert np.flatnonzero(~good).tolist() == [33]
    _right(vectors[good], TEXTS)
    assert encoder.take_cost().tokens == server.billed, "a text that was answered is not asked again"


FAILS_ON_IT = (
    "broken",
    "gateway",
    "overloaded",
    "reset",
    "nan",
    "zero",
    "null",
    "nulls",
    "wide",
    "garbage",
    "short",
    "firewall",
)


@pytest.mark.parametrize("fault", FAILS_ON_IT)
@pytest.mark.parametrize("attempts", [3, 8])
def test_a_text_that_the_service_fails_on_is_alone_in_its_misfortune(fault: str, attempts: int) -> None:
    """Whenever it is asked, and whatever stands beside it, while others are answered."""
    texts = [*TEXTS[:33], f"{POISON} here", *TEXTS[33:]]
    with serving() as server:
        server.of_poison = fault
        encoder = _encoder(server, "openai", attempts=attempts)
        lengths = _lengths(texts)
        vectors, good = encode_with_bisection(lambda a, b: encoder.encode(texts[a:b], lengths[a:b]), len(texts), DIM)
    assert np.flatnonzero(~good).tolist() == [33]
    _right(vectors[good], TEXTS)
    asked = [texts for texts in server.requests if any(POISON in text for text in texts)]
    assert len(server.requests) - 12 < 50, "few requests more than one for ten texts"
    assert asked[-1] == [texts[33]] and len([1 for one in asked if len(one) == 1]) == (
        1 if fault == "firewall" else attempts
    )
    cost = encoder.take_cost()
    assert cost.texts == len(TEXTS) and cost.tokens == server.billed


@pytest.mark.parametrize("kind", MODELS)
def test_a_text_that_another_service_fails_on(kind: str) -> None:
    texts = [f"{POISON} first", *TEXTS[:20], f"{POISON} last"]
    with serving() as server:
        server.of_poison = "broken"
        encoder = _encoder(server, kind, attempts=4)
        vectors, good = encode_with_bisection(
            lambda a, b: encoder.encode(texts[a:b], _lengths(texts[a:b])), len(texts), DIM
        )
    assert np.flatnonzero(~good).tolist() == [0, 21]
    _right(vectors[good], TEXTS[:20])


@pytest.mark.parametrize("fault", [*FAILS_ON_IT, "throttle", ""])
def test_a_service_that_fails_on_everything_is_to_blame_and_no_text(fault: str) -> None:
    texts = [f"{POISON} {n}" for n in range(9)]
    with serving([fault or "refused"] * 10_000) as server, pytest.raises((EncoderError, ConfigError)) as failed:
        encoder = _encoder(server, "openai", attempts=4)
        encode_with_bisection(lambda a, b: encoder.encode(texts[a:b], _lengths(texts[a:b])), len(texts), DIM)
    assert len(server.requests) < 20 and POISON not in str(failed.value)
    assert isinstance(failed.value, ConfigError) == (fault == "firewall")


def test_a_throttled_text_is_not_blamed() -> None:
    with serving() as server, pytest.raises(EncoderError, match="HTTP 429"):
        server.of_poison = "throttle"
        encoder = _encoder(server, "openai", attempts=4)
        encoder.encode([*TEXTS[:5], POISON], _lengths([*TEXTS[:5], POISON]))


@pytest.mark.parametrize("kind", ["openai", "titan", "cohere", "sagemaker"])
def test_denied_access_is_a_configuration_error(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="embedding")
    with serving(["denied"] * 100) as server, pytest.raises(ConfigError) as denied:
        encoder = _encoder(server, kind)
        encode_with_bisection(lambda a, b: encoder.encode(TEXTS[a:b], _lengths(TEXTS[a:b])), len(TEXTS), DIM)
    assert "model.remote" in str(denied.value)
    said = str(denied.value) + caplog.text
    assert "secret" not in said and "text 1" not in said
    if kind == "openai":
        assert set(server.headers) == {"Bearer http-secret"}


@pytest.mark.parametrize("kind", MODELS)
def test_no_log_at_any_level_holds_a_text_or_a_key(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    canaries = {"text": Canary(), "user": Canary()}
    caplog.set_level(logging.DEBUG)
    texts = [f"{canaries['text'].text} {n}" for n in range(30)]
    with serving(["throttle", "broken", "garbage", "reset"]) as server:
        if kind in ("openai", "tei"):  # a URL may carry credentials too
            server.address = server.url.replace("//", f"//name:{canaries['user'].halves[0]}@")
        encoder = _encoder(server, kind)
        assert len(encoder.encode(texts, _lengths(texts))) == 30
    logged = "\n".join(f"{r.name} {r.getMessage()} {r.exc_text}" for r in caplog.records).encode()
    assert [name for name, canary in canaries.items() if canary.found_in(logged)] == []
    assert b"secret" not in logged.replace(b"aws_secret_access_key", b"")


@pytest.mark.parametrize("kind", MODELS)
def test_a_service_that_stays_down_is_an_error_and_no_text_is_blamed(kind: str) -> None:
    with serving(["broken"] * 10_000) as server, pytest.raises(EncoderError) as down:
        encoder = _encoder(server, kind, attempts=3)
        encode_with_bisection(lambda a, b: encoder.encode(TEXTS[a:b], _lengths(TEXTS[a:b])), len(TEXTS), DIM)
    assert "3 attempts" in str(down.value) and "text 1" not in str(down.value)


def test_nobody_listens() -> None:
    with serving() as server:
        encoder = _encoder(server, "openai", attempts=2)
    with pytest.raises(EncoderError, match="ConnectError"):
        encoder.encode(TEXTS[:1], _lengths(TEXTS[:1]))


def test_an_unknown_bedrock_model_is_named() -> None:
    with serving() as server, pytest.raises(ConfigError, match=r"model\.remote\.model"):
        open_encoder(
            EncoderSpec("bedrock", Path(), Path(), 256, DIM, remote=RemoteSettings("other", DIM, url=server.url))
        )


@pytest.mark.parametrize("fault", ["stall", "overloaded"])
def test_a_call_that_may_take_so_long_gives_up_in_time(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Its attempts and the waits between them would take minutes."""
    monkeypatch.setattr(remote_module, "_FIRST_WAIT", 0.5)
    with serving([fault] * 100) as server:
        settings = RemoteSettings("a-model", DIM, url=server.address, attempts=50, concurrency=6)
        encoder = open_encoder(EncoderSpec("http", Path(), Path(), 256, DIM, remote=settings, seconds=0.5))
        began = time.monotonic()
        with pytest.raises(EncoderError):
            encoder.encode(["a"], np.array([1]))
        assert time.monotonic() - began < 3
        encoder.close()


def test_a_request_without_a_place_in_its_time_is_not_sent() -> None:
    limit = AdaptiveLimit(1)
    with limit.slot(), pytest.raises(TryAgain), limit.slot(time.monotonic() + 0.1):
        raise AssertionError("there is no second place")
    with limit.slot(time.monotonic() + 0.1):
        assert not limit.free
