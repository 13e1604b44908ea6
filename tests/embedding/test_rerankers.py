"""Rerankers: over a real server that answers well, late or wrongly, and a CrossEncoder made on the spot."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding.errors import ConfigError
from embedding.rerankers.base import NotReranked
from embedding.rerankers.http import Api, HttpReranker
from tests.support.model_folders import save_tokenizer

TEXTS = ["aaa", "b", "cc"]
LENGTHS = [3.0, 1.0, 2.0]  # the score that the server gives


class Server(ThreadingHTTPServer):
    """Scores a text by its length; ``fault`` is what it does instead."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault = ""
        self.asked: list[tuple[str, dict[str, Any], str]] = []

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of a test."""


class _Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers.get("Authorization", "")))
        tei = "texts" in body
        texts = body["texts"] if tei else body["documents"]
        scored: list[dict[str, Any]] = [
            {"index": n, "score" if tei else "relevance_score": float(len(text))} for n, text in enumerate(texts)
        ]
        scored.sort(key=lambda item: -next(v for k, v in item.items() if k != "index"))
        fault = self.server.fault
        if fault == "short":
            scored.pop()
        elif fault == "twice":
            scored[1]["index"] = scored[0]["index"]
        elif fault == "not finite":
            scored[0]["score"] = float("nan")
        elif fault == "late":
            time.sleep(1.0)
        answer = json.dumps(scored if tei else {"results": scored}).encode()
        self.send_response(503 if fault == "down" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        if fault == "trickle":
            for byte in answer:
                self.wfile.write(bytes([byte]))
                self.wfile.flush()
                time.sleep(0.1)
        self.wfile.write(b"<html>" + answer[6:] if fault == "no JSON" else answer)


@contextmanager
def serving() -> Iterator[tuple[Server, str]]:
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server, f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def served() -> Iterator[tuple[Server, str]]:
    with serving() as server:
        yield server


@pytest.mark.parametrize(
    ("api", "path", "body"),
    [
        ("tei", "/rerank", {"query": "q", "texts": TEXTS, "truncate": True}),
        ("cohere", "/v2/rerank", {"model": "m", "query": "q", "documents": TEXTS, "top_n": 3}),
    ],
)
def test_a_service_is_asked_as_it_wants_and_its_order_undone(
    api: Api, path: str, body: dict[str, Any], served: tuple[Server, str]
) -> None:
    server, url = served
    reranker = HttpReranker(url + "/", api, model="m", token="s3cret")
    assert reranker.scores("q", TEXTS).tolist() == LENGTHS
    assert server.asked == [(path, body, "Bearer s3cret")]
    reranker.close()


def test_a_whole_address_is_taken_as_it_is(served: tuple[Server, str]) -> None:
    server, url = served
    reranker = HttpReranker(url + "/v1/rerank", "cohere")
    reranker.scores("q", TEXTS)
    reranker.close()
    assert server.asked[0][0] == "/v1/rerank" and server.asked[0][2] == ""


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("down", "HTTP 503"),
        ("short", "an answer of another shape"),
        ("twice", "an answer of another shape"),
        ("not finite", "an answer of another shape"),
        ("no JSON", "an answer of another shape"),
        ("late", "no answer in 0.3 s"),
        ("trickle", "no answer in 0.3 s"),
    ],
)
def test_a_service_that_fails_is_given_up_in_time(fault: str, reason: str, served: tuple[Server, str]) -> None:
    server, url = served
    server.fault = fault
    reranker = HttpReranker(url, "tei", timeout=0.3)
    with pytest.raises(
        NotReranked, match=f"^{reason}$"
    ):  # also of one that sends a byte now and then, and comes to an end
        reranker.scores("q", TEXTS)
    server.fault = ""
    assert reranker.scores("q", TEXTS).tolist() == LENGTHS, "the next call is answered"
    reranker.close()


def test_a_service_that_is_not_there_is_named_without_its_address() -> None:
    with serving() as (_, url):
        pass
    reranker = HttpReranker(url.replace("//", "//user:pass@"), "tei")
    with pytest.raises(NotReranked) as raised:
        reranker.scores("q", TEXTS)
    assert str(raised.value) == "ConnectError"
    reranker.close()


def cross_encoder(folder: Path, labels: int = 1) -> Path:
    """A BERT of random weights that scores pairs, with a tokenizer made here."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=160,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=1,
    )
    config.num_labels = labels
    BertForSequenceClassification(config).save_pretrained(str(folder))
    save_tokenizer(folder)
    return folder


def test_a_cross_encoder_scores_as_sentence_transformers_does(tmp_path: Path) -> None:
    from sentence_transformers import CrossEncoder

    from embedding.rerankers.cross_encoder import CrossEncoderReranker

    folder = cross_encoder(tmp_path / "model")
    texts = ["the quick brown fox", "lazy dog", "pack my box"]
    found = CrossEncoderReranker(folder).scores("quick fox", texts)
    theirs = CrossEncoder(str(folder)).predict([("quick fox", text) for text in texts])
    assert found.shape == (3,) and np.allclose(found, theirs) and len(set(found.tolist())) == 3


def test_a_folder_that_is_no_cross_encoder_is_refused(tmp_path: Path) -> None:
    from embedding.rerankers.cross_encoder import CrossEncoderReranker

    with pytest.raises(ConfigError, match=r"^search\.rerank\.path: .* has no config\.json"):
        CrossEncoderReranker(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"^search\.rerank\.path: .* cannot be loaded"):
        CrossEncoderReranker(tmp_path)
    with pytest.raises(ConfigError, match=r"has 3 labels; give a model with one score a pair"):
        CrossEncoderReranker(cross_encoder(tmp_path / "three", labels=3))
