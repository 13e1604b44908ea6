"""Cuts long texts into inputs that a tokenizer takes."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

_SLICE_CHARS = 200_000  # one tokenizer input; an Encoding takes some hundred bytes a token


_SURROGATE = re.compile("[\ud800-\udfff]")


Ints = npt.NDArray[np.int64]


def encodable(texts: list[str]) -> list[str]:
    """Lone surrogates cannot be encoded; they count as the replacement character, which keeps all offsets."""
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        return [_SURROGATE.sub("\ufffd", text) for text in texts]
    return texts


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
