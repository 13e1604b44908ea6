"""A folder that sentence-transformers saved, read and checked without loading it: what it is made of, and its limits.

Whatever would give other vectors here than in sentence-transformers is refused by name, in one line, before any work.
Owns what is known of such folders; ``space`` makes a fingerprint of it, the encoders run it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embedding.errors import ConfigError
from embedding.models.config_json import canonical
from embedding.models.modules import READERS, unsupported
from embedding.models.prompts import PromptOverrides, prompts_of, saved_settings
from embedding.models.tokenizer_json import longest, lower_cases
from embedding.models.weights import tensor_shape, weight_files
from embedding.records import Metric

# Architectures whose vectors are compared with sentence-transformers' own (tests/embedding/test_model_folders.py), and
# the name that their weights carry in front where they were saved with a head.
ARCHITECTURES = {
    "albert": "albert.",
    "bert": "bert.",
    "camembert": "roberta.",
    "deberta": "deberta.",
    "deberta-v2": "deberta.",
    "distilbert": "distilbert.",
    "electra": "electra.",
    "ernie": "ernie.",
    "eurobert": "model.",
    "gemma3_text": "model.",
    "gte": "gte.",
    "llama": "model.",
    "mistral": "model.",
    "modernbert": "model.",
    "mpnet": "mpnet.",
    "mt5": "",
    "nomic_bert": "nomic_bert.",
    "qwen2": "model.",
    "qwen3": "model.",
    "rembert": "rembert.",
    "roberta": "roberta.",
    "t5": "",
    "xlm-roberta": "roberta.",
}
# In these a text's first token has the place after the padding token's: so many of the places are never used.
_PLACES_AFTER_PADDING = {"camembert", "mpnet", "roberta", "xlm-roberta"}
_WIDTH = ("hidden_size", "dim", "d_model")  # of a token's state, by its names in config.json
_TOKENIZER = "tokenizer_config.json"
_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
_LONGEST = 512  # of a text, where neither the tokenizer nor the model says
STATIC = "StaticEmbedding"  # the module that averages a vector of each token, in place of a transformer and its pooling
# Of static vectors, by the names of their tensors: as sentence-transformers saves them, and as model2vec does.
_STATIC_WEIGHTS = ("embedding.weight", "embeddings")


@dataclass(frozen=True, slots=True)
class Module:
    """A module after the transformer: its kind, what of its configuration matters, and its folder."""

    kind: str
    config: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder's parts. ``prompts`` are what stands before a query and before a document; ``dim`` is of a vector.

    ``transformer`` is the folder of the first module, which may also be of static vectors. ``metric`` is what compares
    vectors as the model means them.
    """

    transformer: Path
    config: Mapping[str, Any]
    modules: tuple[Module, ...]
    max_tokens: int
    prompts: tuple[str, str]
    dim: int
    metric: Metric = "cosine"

    @property
    def prefix(self) -> str:
        """What may stand in front of the names of the transformer's weights."""
        return ARCHITECTURES.get(self.config["model_type"], "")

    @property
    def normalised(self) -> bool:
        """Whether vectors have length 1."""
        return bool(self.modules) and self.modules[-1].kind == "Normalize"


def transformer_folder(path: Path) -> Path:
    """Where the transformer and its tokenizer lie in a model's folder: in itself, or below."""
    modules = _json(path / "modules.json")
    return _inside(path, modules[0].get("path", "")) if modules else path


def is_static(path: Path) -> bool:
    """Whether a model's folder is of static vectors: its tokenizer then adds no token to a text."""
    entries = _json(path / "modules.json", [{}])
    return bool(entries) and _kind(entries[0]) == STATIC


def read_folder(path: Path, prompts: PromptOverrides | None = None, dimensions: int | None = None) -> ModelFolder:
    """Read a folder with a modules.json. ``prompts`` and ``dimensions`` stand in place of the folder's own.

    Raises ConfigError for what is not supported; OSError, KeyError, ValueError and TypeError where it is not whole.
    """
    entries = _json(path / "modules.json")
    kinds = _module_kinds(entries)
    transformer = _inside(path, entries[0].get("path", ""))
    if kinds[0] == STATIC:
        config: Mapping[str, Any] = {"model_type": STATIC}
        max_tokens = longest(transformer / "tokenizer.json") or _LONGEST
        dim = tensor_shape(weight_files(transformer), _STATIC_WEIGHTS)[1]
    else:
        config = _json(transformer / "config.json")
        _check_transformer(transformer, config)
        max_tokens = _limit(transformer, config)
        dim = int(next(config[name] for name in _WIDTH if name in config))
    modules = []
    for entry, name in list(zip(entries, kinds, strict=True))[1:]:
        folder = _inside(path, entry.get("path", ""))
        said = _json(folder / "config.json", {}) if folder != path else {}
        matters, dim = READERS[name](said, dim)
        if name != "Dropout":  # which does nothing outside training
            modules.append(Module(name, matters, folder))
    settings, whole = saved_settings(path), dim
    dim = _kept(dim, settings.get("truncate_dim"), dimensions, config.get("matryoshka_dimensions"))
    put_before = prompts_of(path, prompts)
    if any(put_before) and not all(m.config.get("include_prompt", True) for m in modules):
        raise unsupported("a prompt whose tokens are left out of the pooling")
    found = ModelFolder(transformer, canonical(config), tuple(modules), max_tokens, put_before, dim)
    said_metric = settings.get("similarity_fn_name") or "cosine"
    return replace(found, metric=_metric(said_metric, unit=found.normalised and dim == whole))


def _module_kinds(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The classes of the modules, in their order: a Transformer, a Pooling, and others."""
    if not entries:
        raise ValueError("modules.json names no module")
    kinds = [_kind(entry) for entry in entries]
    for entry, kind in zip(entries, kinds, strict=True):
        if not str(entry["type"]).startswith("sentence_transformers.") or kind not in READERS:
            raise unsupported(f"module {entry['type']!r}")
        if entry.get("kwargs"):
            raise unsupported(f"arguments of module {kind}: {', '.join(map(str, entry['kwargs']))}")
    first = 1 if kinds[0] == STATIC else 2
    if kinds[:first] not in ([STATIC], ["Transformer", "Pooling"]) or {STATIC, "Transformer", "Pooling"} & {
        *kinds[first:]
    }:
        raise unsupported(f"the order of its modules, {', '.join(kinds)}")
    return kinds


def _kind(entry: Mapping[str, Any]) -> str:
    """The class of a module, without where it is defined: that differs between versions."""
    return str(entry.get("type", "")).rsplit(".", 1)[-1]


def _kept(whole: int, truncate: int | None, asked: int | None, trained: Any) -> int:
    """The dimensions that are kept of ``whole``: those that are ``asked`` for, else those that the folder truncates to.

    ``trained`` lists those that a model was trained for, where it says.
    """
    dim = min(whole, int(truncate or whole))
    if dim < 1:
        raise ValueError("vectors of no dimension")
    if asked is None or asked == whole:
        return whole if asked else dim
    if asked > whole:
        raise ConfigError(f"model.dimensions: the model's vectors have {whole}; {asked} are more")
    if isinstance(trained, list) and trained and asked not in trained:
        raise ConfigError(
            f"model.dimensions: the model was trained for {', '.join(map(str, trained))}, not for {asked}"
        )
    return asked


def _metric(said: str, *, unit: bool) -> Metric:
    """What compares a model's vectors. Raises ConfigError for what no index compares by.

    Vectors of length 1 are in the same order by cosine, by their dot product and by their distance.
    """
    if said == "cosine" or (unit and said in ("dot", "euclidean")):
        return "cosine"
    if said == "dot":
        return "dot"
    raise ConfigError(
        f"model.name: the model compares vectors by {said!r} (similarity_fn_name in its "
        "config_sentence_transformers.json), and an index does by cosine or dot product; take a model made for these"
    )


def _check_transformer(transformer: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise unsupported(f"architecture {kind!r}")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise unsupported("a decoder")
    for file, said in (("config.json", config), ("tokenizer_config.json", _json(transformer / _TOKENIZER, {}))):
        if said.get("auto_map"):
            raise unsupported(f"code of its own (auto_map in {file}), which is never run")
    if config.get("quantization_config"):
        raise unsupported("quantised weights (quantization_config)")
    if (transformer / "adapter_config.json").is_file():
        raise unsupported("an adapter beside the weights; merge it into them")


def _json(file: Path, default: Any = None) -> Any:
    """A JSON file, or ``default`` where there is none."""
    if default is not None and not file.is_file():
        return default
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(f"{file.name} is not JSON") from None


def _inside(path: Path, below: str) -> Path:
    folder = path / below
    if not folder.resolve().is_relative_to(path.resolve()):
        raise ValueError("modules.json names a folder outside")
    return folder


# -- the transformer ---------------------------------------------------------------------------------------------------


def _settings(transformer: Path) -> dict[str, Any]:
    """What the module Transformer was saved with; the file's name is older for older models."""
    names = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
    for name in names:
        if found := _json(transformer / f"sentence_{name}_config.json", {}):
            return dict(found)
    return {}


def _limit(transformer: Path, config: Mapping[str, Any]) -> int:
    """The tokens at which the model cuts a text off, as sentence-transformers finds them. Checks the rest on the way.

    Since 6.2 a folder's own limit is the tokenizer's, bounded by the places that the model knows.
    """
    said = _settings(transformer)
    said.pop("unpad_inputs", None)  # speed alone
    limit = said.pop("max_seq_length", None)
    lower = said.pop("do_lower_case", False)
    if lower and not lower_cases(transformer / "tokenizer.json"):
        raise unsupported("do_lower_case with a tokenizer that tells upper from lower case")
    if said.pop("transformer_task", "feature-extraction") != "feature-extraction":
        raise unsupported("a transformer_task other than feature-extraction")
    ways = said.pop("modality_config", {"text": _TEXT})
    if ways.get("text") != _TEXT or said.pop("module_output_name", "token_embeddings") != "token_embeddings":
        raise unsupported("a modality_config other than the last hidden states of text")
    for name in ("model", "config", "tokenizer", "processor"):
        given = {**(said.pop(f"{name}_args", None) or {}), **(said.pop(f"{name}_kwargs", None) or {})}
        if name in ("tokenizer", "processor"):
            limit = given.pop("model_max_length", limit)
        for harmless in ("trust_remote_code", "torch_dtype", "dtype", "attn_implementation", "use_fast"):
            given.pop(harmless, None)
        if given:
            raise unsupported(f"{name} arguments in sentence_bert_config.json: {', '.join(sorted(given))}")
    if left := sorted(name for name, value in said.items() if value not in (None, {}, False)):
        raise unsupported(f"settings in sentence_bert_config.json: {', '.join(left)}")
    places = _places(config)
    if limit is None:
        limit = _json(transformer / _TOKENIZER, {}).get("model_max_length")
    known = [int(value) for value in (limit, places) if value is not None and 0 < value < 1e9]
    return min(known) if known else _LONGEST


def _places(config: Mapping[str, Any]) -> int | None:
    """The tokens that the model has a position for; None where it says nothing."""
    places: int | None = config.get("max_position_embeddings")
    if places is not None and config["model_type"] in _PLACES_AFTER_PADDING:
        places -= int(config.get("pad_token_id", 1)) + 1
    return places
