"""What [model] says in place of a model's folder: prompts and dimensions; and names that are found in a cache."""

from __future__ import annotations

import json
import shutil
import socket
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from embedding.encoders.local.torch import TorchEncoder
from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError
from embedding.models.folder import read_folder
from embedding.models.packaged import model_path
from embedding.models.prompts import PromptOverrides, prompts_of
from embedding.models.space import Space, describe_space
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.telemetry.progress import Progress
from tests.support.model_families import FAMILIES
from tests.support.model_folders import WIDTH, changed, saved
from tests.support.workspace import Workspace

SAVED = "config_sentence_transformers.json"
PROMPTED = {"query": "fox: ", "document": "dog: "}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FAMILIES["static"](tmp_path_factory.mktemp("static"))


@pytest.fixture
def prompted(plain: Path, tmp_path: Path) -> Path:
    return changed(Path(shutil.copytree(plain, tmp_path / "prompted")), SAVED, prompts=PROMPTED)


def space_of(folder: Path, query: str | None = None, document: str | None = None, dim: int | None = None) -> Space:
    prompts = PromptOverrides(query, document)
    return describe_space(folder, chunker="", normaliser="", prompts=prompts, dimensions=dim)


def configured(workspace: Workspace, folder: Path, *lines: str) -> Pipeline:
    """A pipeline over a workspace whose [model] names the folder and has these lines too."""
    model = "\n".join(["[model]", f'name = "{folder}"', *lines])
    workspace.config.write_text(workspace.config.read_text().replace('[model]\nbackend = "hash"', model))
    return Pipeline(load_config(workspace.config), Progress())


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("query", "document", "found"),
    [
        (None, None, ("fox: ", "dog: ")),
        ("", None, ("", "dog: ")),
        ("box: ", None, ("box: ", "dog: ")),
        (None, "", ("fox: ", "")),
        ("box: ", "jugs: ", ("box: ", "jugs: ")),
    ],
)
def test_a_prompt_of_the_configuration_stands_in_place_of_the_folders(
    query: str | None, document: str | None, found: tuple[str, str], prompted: Path
) -> None:
    assert prompts_of(prompted, PromptOverrides(query, document)) == found


def test_prompts_are_part_of_the_space_wherever_they_come_from(prompted: Path, plain: Path) -> None:
    assert space_of(plain, "fox: ", "dog: ") == space_of(prompted)
    assert space_of(prompted, "", "") == space_of(plain)
    assert len({space_of(plain, document=one).space_id for one in (None, "a: ", "b: ")}) == 3


@pytest.mark.parametrize(
    "said", [{"prompts": {"passage": "passage: "}}, {"prompts": {"s": "s: "}, "default_prompt_name": "s"}], ids=str
)
def test_a_prompt_that_is_not_clearly_a_documents_is_served_once_the_configuration_says_which(
    said: dict[str, object], plain: Path, tmp_path: Path
) -> None:
    folder = changed(Path(shutil.copytree(plain, tmp_path / "model")), SAVED, **said)
    with pytest.raises(ConfigError, match=r"set model\.document_prompt to the text"):
        space_of(folder)
    assert prompts_of(folder, PromptOverrides(document="passage: ")) == ("", "passage: ")
    assert space_of(folder, document="passage: ") == space_of(plain, document="passage: ")


def test_a_pooling_that_leaves_prompts_out_takes_none_from_the_configuration(plain: Path, tmp_path: Path) -> None:
    folder = changed(Path(shutil.copytree(plain, tmp_path / "model")), "1_Pooling/config.json", include_prompt=False)
    assert space_of(folder).dim == WIDTH
    with pytest.raises(ConfigError, match="left out of the pooling"):
        space_of(folder, query="fox: ")


def test_the_configurations_prompts_reach_what_encodes_and_what_cuts(workspace: Workspace, plain: Path) -> None:
    before = configured(workspace, plain).limits.max_tokens
    lines = ('query_prompt = "fox: "', 'document_prompt = "the lazy dog "')
    text = workspace.config.read_text().replace("[spark]", "\n".join((*lines, "[spark]")))
    workspace.config.write_text(text)
    pipeline = Pipeline(load_config(workspace.config), Progress())
    for purpose in ("document", "query"):
        assert pipeline.encoder(purpose).prompts == PromptOverrides("fox: ", "the lazy dog ")
    assert pipeline.limits.max_tokens < before, "the prompt is within the model's limit"


def test_another_model_has_its_own_prompts_and_dimensions(workspace: Workspace, plain: Path) -> None:
    config = configured(
        workspace, plain, 'query_prompt = "fox: "', 'document_prompt = "dog: "', "dimensions = 8"
    ).config
    same, other = config.with_model(str(plain)).model, config.with_model("wordllama").model
    assert (same.query_prompt, same.document_prompt, same.dimensions) == ("fox: ", "dog: ", 8)
    assert (other.query_prompt, other.document_prompt, other.dimensions) == (None, None, None)
    assert Pipeline(config.with_model("wordllama"), Progress()).space.dim == 256


# -- dimensions --------------------------------------------------------------------------------------------------------


def test_asking_for_fewer_dimensions_keeps_the_start_of_each_vector(plain: Path, tmp_path: Path) -> None:
    assert space_of(plain, dim=8).dim == 8
    assert space_of(plain, dim=8).space_id != space_of(plain).space_id
    assert space_of(plain, dim=WIDTH) == space_of(plain)
    cut = changed(Path(shutil.copytree(plain, tmp_path / "cut")), SAVED, truncate_dim=16)
    assert [space_of(cut, dim=dim).dim for dim in (None, 8, 24, WIDTH)] == [16, 8, 24, WIDTH]


@pytest.mark.parametrize("dim", [None, 8, WIDTH])
def test_the_torch_encoder_gives_as_many_as_are_asked_for_even_past_the_folders_own(
    dim: int | None, plain: Path, tmp_path: Path
) -> None:
    """A folder that truncates by itself may be asked for the whole."""
    cut = changed(Path(shutil.copytree(plain, tmp_path / "cut")), SAVED, truncate_dim=16)
    space = space_of(cut, dim=dim)
    texts = ["the quick brown fox", "a box"]

    def vectors(folder: Path, dim: int) -> np.ndarray:
        spec = EncoderSpec("torch", folder, tmp_path, space.max_tokens, dim, precision="f32")
        return TorchEncoder(spec).encode(texts, np.array([4, 2]))

    np.testing.assert_allclose(vectors(cut, space.dim), vectors(plain, WIDTH)[:, : space.dim], atol=1e-6)


def test_dimensions_that_a_model_was_not_trained_for_are_refused(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"model.dimensions: the model's vectors have {WIDTH}; 33 are more"):
        space_of(plain, dim=33)
    trained = Path(shutil.copytree(plain, tmp_path / "trained"))
    changed(trained, "config.json", matryoshka_dimensions=[8, 16])
    assert space_of(trained, dim=16).dim == 16
    with pytest.raises(ConfigError, match="model.dimensions: the model was trained for 8, 16, not for 12"):
        space_of(trained, dim=12)


# -- what takes no override --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", ['query_prompt = ""', 'document_prompt = "a: "', "dimensions = 8"])
def test_a_package_with_an_engine_and_a_service_take_none(workspace: Workspace, line: str) -> None:
    text, key = workspace.config.read_text(), line.split()[0]
    service = '[model.remote]\nmodel = "m"\ndim = 7\nurl = "http://127.0.0.1:9"\n'
    for model, more in (('name = "wordllama"', ""), ('backend = "http"', service)):
        workspace.config.write_text(text.replace('backend = "hash"', f"{model}\n{line}") + more)
        refused = workspace.call("plan")
        assert refused.code == 2 and f"model.{key}: " in refused.err and refused.err.count("\n") == 1
    assert not (workspace.root / "state").exists()


# -- static vectors ----------------------------------------------------------------------------------------------------


def test_static_vectors_have_no_markers_and_a_limit_for_chunks(static: Path, tmp_path: Path) -> None:
    folder = read_folder(static)
    assert (folder.dim, folder.max_tokens, folder.normalised) == (WIDTH, 512, True)
    own = Path(shutil.copytree(static, tmp_path / "own"))
    tokenizer = json.loads((own / "tokenizer.json").read_text())
    tokenizer["truncation"] = {"direction": "Right", "max_length": 100, "strategy": "LongestFirst", "stride": 0}
    (own / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert read_folder(own).max_tokens == 100


def test_static_vectors_by_either_name_and_of_other_numbers(static: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    other = Path(shutil.copytree(static, tmp_path / "other"))
    weights = load_file(other / "model.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, other / "model.safetensors")
    assert space_of(other).space_id != space_of(static).space_id
    save_file({"embeddings": weights["embedding.weight"] * 2}, other / "model.safetensors")
    texts, ids = ["the key", "a backup"], np.array([3, 3])
    spec = EncoderSpec("torch", other, tmp_path, 512, space_of(other).dim, precision="f32")
    np.testing.assert_allclose(
        TorchEncoder(spec).encode(texts, ids), TorchEncoder(replace(spec, model=static)).encode(texts, ids), atol=1e-6
    )
    save_file({"nothing": next(iter(weights.values()))}, other / "model.safetensors")
    with pytest.raises(ConfigError, match="embedding.weight' is missing"):
        space_of(other)


# -- names -------------------------------------------------------------------------------------------------------------


def test_a_name_of_the_hub_is_the_folder_that_was_downloaded_and_nothing_is_fetched(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    held = tmp_path / "models--acme--mill"
    (held / "refs").mkdir(parents=True)
    (held / "refs/main").write_text("abc")
    shutil.copytree(plain, held / "snapshots/abc")
    assert space_of(model_path("acme/mill", tmp_path)) == space_of(plain)
    with pytest.raises(ConfigError, match="'acme/other' is neither .* nothing is fetched"):
        model_path("acme/other", tmp_path)
    (held / "snapshots/abc/modules.json").unlink()
    with pytest.raises(ConfigError, match="'acme/mill' is neither"):
        model_path("acme/mill", tmp_path)
