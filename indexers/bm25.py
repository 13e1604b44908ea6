"""BM25 in memory: the scores of words over a list of texts, for the exact index."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

K1, B = 1.2, 0.75  # saturation of a word's count, and how much a text's length counts; every engine is given these

_WORD = re.compile(r"\w+")


def words_of(text: str) -> list[str]:
    """The words of a text, as Milvus's standard analyser cuts them: runs of letters, digits and underscores."""
    return _WORD.findall(text.lower())


class Bm25:
    """Postings of fixed texts."""

    def __init__(self, texts: Sequence[str]) -> None:
        found: dict[str, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
        lengths = np.zeros(len(texts))
        for place, text in enumerate(texts):
            words = words_of(text)
            lengths[place] = len(words)
            for word, count in Counter(words).items():
                places, counts = found[word]
                places.append(place)
                counts.append(count)
        self._postings = {word: (np.array(p), np.array(c, np.float64)) for word, (p, c) in found.items()}
        mean = lengths.mean() if len(texts) and lengths.any() else 1.0
        self._damping = K1 * (1 - B + B * lengths / mean)

    def scores(self, text: str) -> np.ndarray:
        """Scores of the texts, float64 of shape (texts,); 0 for one with none of the words."""
        scores = np.zeros(len(self._damping))
        for word, times in Counter(words_of(text)).items():
            if word in self._postings:
                places, counts = self._postings[word]
                rarity = math.log(1 + (len(scores) - len(places) + 0.5) / (len(places) + 0.5))
                scores[places] += times * rarity * counts * (K1 + 1) / (counts + self._damping[places])
        return scores
