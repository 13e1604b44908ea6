"""Tokens: texts to token ids with the model's own tokenizer, apart from the encoder so that it may run elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from embedding.encoders.base import TokenIds
from embedding.errors import ConfigError


class Tokens:
    """Cuts texts for one model folder, at most ``max_tokens`` a text: a chunk is never longer, a query may be."""

    def __init__(self, model: Path, max_tokens: int) -> None:
        self._tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
        self._tokenizer.no_padding()  # the file's own settings may pad to one length
        self._tokenizer.enable_truncation(max_tokens)
        _check_prompt(model)

    def ids(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of texts, special tokens included."""
        return TokenIds.of(encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts)))


def _check_prompt(model: Path) -> None:
    """A prompt would have to be put before each text, and be left out of the mean by some models."""
    file = model / "config_sentence_transformers.json"
    name = json.loads(file.read_text()).get("default_prompt_name") if file.is_file() else None
    if name:
        raise ConfigError(f"model.name: the model's default prompt {name!r} is not supported in this version")
