"""A tokenizer.json in a form that does not change when another version saves it again."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

# Left out by older versions, and then the same as these.
_SAME_AS_ABSENT: dict[str, object] = {"byte_fallback": False, "fuse_unk": False, "ignore_merges": False}


def tokenizer_digest(file: Path) -> str:
    """32 hex digits over what decides a text's tokens. Where it is cut off and padded is decided elsewhere.

    Raises OSError and ValueError where there is none that can be read.
    """
    said = json.loads(file.read_bytes())
    for name in ("version", "truncation", "padding", "decoder"):
        said.pop(name, None)
    model = said.get("model") or {}
    if isinstance(model.get("merges"), list):
        # Pairs are written as "a b", or as ["a", "b"] since a token may hold a blank.
        model["merges"] = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    return hashlib.sha256(json.dumps(_plain(said), sort_keys=True).encode()).hexdigest()[:32]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("type") == "Metaspace":
            prefix = value.get("add_prefix_space", True)
            value = {"prepend_scheme": "always" if prefix else "never", "split": True} | value
            value.pop("add_prefix_space", None)
        return {
            name: _plain(inner)
            for name, inner in value.items()
            if inner is not None and not (name in _SAME_AS_ABSENT and inner == _SAME_AS_ABSENT[name])
        }
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


def unknown_token(file: Path) -> int | None:
    """The id that stands for what the tokenizer does not know; None where it knows every byte."""
    said = json.loads(file.read_bytes())
    model = said.get("model") or {}
    if isinstance(model.get("unk_id"), int):
        return int(model["unk_id"])
    name = model.get("unk_token")
    added = {token["content"]: token["id"] for token in said.get("added_tokens") or ()}
    vocabulary = model.get("vocab")
    found = added.get(name, vocabulary.get(name) if isinstance(vocabulary, dict) else None)
    return found if isinstance(found, int) else None


def longest(file: Path) -> int | None:
    """The tokens at which the tokenizer itself cuts a text off; None where it does not."""
    limit = (json.loads(file.read_bytes()).get("truncation") or {}).get("max_length")
    return int(limit) if limit else None


def lower_cases(file: Path) -> bool:
    """Whether the tokenizer's own normaliser makes all letters small."""
    return _lowers(json.loads(file.read_bytes()).get("normalizer") or {})


def _lowers(normaliser: dict[str, Any]) -> bool:
    kind = normaliser.get("type")
    if kind == "Sequence":
        return any(_lowers(part) for part in normaliser.get("normalizers", []))
    return kind == "Lowercase" or kind == "BertNormalizer" and bool(normaliser.get("lowercase"))
