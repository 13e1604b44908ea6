"""A folder that sentence-transformers saved, read and checked without loading it: what it is made of, and its limits.

Whatever would give other vectors here than in sentence-transformers is refused by name, in one line, before any work.
Owns what is known of such folders; ``space`` makes a fingerprint of it, the encoders run it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from embedding.errors import ConfigError
from embedding.models.config_json import canonical
from embedding.models.modules import READERS, unsupported
from embedding.models.tokenizer_json import lower_cases

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
_TEXT = {"method": "forward", "method_output_name": "last_hidden_state"}
_LONGEST = 512  # of a text, where neither the tokenizer nor the model says


@dataclass(frozen=True, slots=True)
class Module:
    """A module after the transformer: its kind, what of its configuration matters, and its folder."""

    kind: str
    config: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True, slots=True)
class ModelFolder:
    """A folder's parts. ``prompts`` are what stands before a query and before a document; ``dim`` is of a vector."""

    transformer: Path
    config: Mapping[str, Any]
    modules: tuple[Module, ...]
    max_tokens: int
    prompts: tuple[str, str]
    dim: int

    @property
    def prefix(self) -> str:
        """What may stand in front of the names of the transformer's weights."""
        return ARCHITECTURES[self.config["model_type"]]

    @property
    def normalised(self) -> bool:
        """Whether vectors have length 1."""
        return bool(self.modules) and self.modules[-1].kind == "Normalize"


def transformer_folder(path: Path) -> Path:
    """Where the transformer and its tokenizer lie in a model's folder: in itself, or below."""
    modules = _json(path / "modules.json")
    return _inside(path, modules[0].get("path", "")) if modules else path


def prompts_of(path: Path) -> tuple[str, str]:
    """What stands before a query and before a document. Raises ConfigError for a prompt of another use.

    As ``encode_query`` and ``encode_document`` of sentence-transformers 6.2 apply them. Others that a folder may hold
    are for other tasks; two are refused, because a reader of the folder would take them for a document's and they are
    not: one that is called "passage" or "corpus", and a default prompt.
    """
    said = _json(path / "config_sentence_transformers.json", {})
    prompts = {name: text or "" for name, text in (said.get("prompts") or {}).items()}
    if odd := sorted(name for name, text in prompts.items() if not isinstance(text, str)):
        raise ConfigError(
            f"model.name: the model's prompt {odd[0]!r} is no text; mend its config_sentence_transformers.json"
        )
    query, document = prompts.get("query", ""), prompts.get("document", "")
    default = said.get("default_prompt_name")
    if default and prompts.get(default, "") != document:
        raise ConfigError(
            f"model.name: the model's default prompt {default!r} is not what it puts before documents; "
            'set "default_prompt_name" to null and name the prompts "query" and "document" in its '
            "config_sentence_transformers.json"
        )
    for name in ("passage", "corpus"):
        if prompts.get(name, "") not in ("", document):
            raise ConfigError(
                f'model.name: the model\'s prompt {name!r} is not supported; name it "document" in its '
                "config_sentence_transformers.json"
            )
    return query, document


def read_folder(path: Path) -> ModelFolder:
    """Read a folder with a modules.json.

    Raises ConfigError for what is not supported; OSError, KeyError, ValueError and TypeError where it is not whole.
    """
    entries = _json(path / "modules.json")
    kinds = _module_kinds(entries)
    transformer = _inside(path, entries[0].get("path", ""))
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
    if truncate := _json(path / "config_sentence_transformers.json", {}).get("truncate_dim"):
        dim = min(dim, int(truncate))
    if dim < 1:
        raise ValueError("vectors of no dimension")
    prompts = prompts_of(path)
    if any(prompts) and not modules[0].config["include_prompt"]:
        raise unsupported("a prompt whose tokens are left out of the pooling")
    return ModelFolder(transformer, canonical(config), tuple(modules), max_tokens, prompts, dim)


def _module_kinds(entries: Sequence[Mapping[str, Any]]) -> list[str]:
    """The classes of the modules, in their order: a Transformer, a Pooling, and others."""
    if not entries:
        raise ValueError("modules.json names no module")
    kinds = [str(entry["type"]).rsplit(".", 1)[-1] for entry in entries]
    for entry, kind in zip(entries, kinds, strict=True):
        if not str(entry["type"]).startswith("sentence_transformers.") or kind not in READERS:
            raise unsupported(f"module {entry['type']!r}")
        if entry.get("kwargs"):
            raise unsupported(f"arguments of module {kind}: {', '.join(map(str, entry['kwargs']))}")
    if kinds[0] != "Transformer" or kinds[1:2] != ["Pooling"] or {"Transformer", "Pooling"} & {*kinds[2:]}:
        raise unsupported(f"the order of its modules, {', '.join(kinds)}")
    return kinds


def _check_transformer(transformer: Path, config: Mapping[str, Any]) -> None:
    kind = config.get("model_type")
    if kind not in ARCHITECTURES:
        raise unsupported(f"architecture {kind!r}")
    if config.get("is_decoder") or config.get("add_cross_attention"):
        raise unsupported("a decoder")
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
        limit = _json(transformer / "tokenizer_config.json", {}).get("model_max_length")
    known = [int(value) for value in (limit, places) if value is not None and 0 < value < 1e9]
    return min(known) if known else _LONGEST


def _places(config: Mapping[str, Any]) -> int | None:
    """The tokens that the model has a position for; None where it says nothing."""
    places: int | None = config.get("max_position_embeddings")
    if places is not None and config["model_type"] in _PLACES_AFTER_PADDING:
        places -= int(config.get("pad_token_id", 1)) + 1
    return places


Purpose = Literal["document", "query"]
