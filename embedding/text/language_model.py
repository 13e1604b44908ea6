"""py3langid's model asked about many texts at once: its own walk over bytes is a loop of Python for each text."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_TEXTS = 2048  # at once

Ints: TypeAlias = npt.NDArray[np.int64]
Floats: TypeAlias = npt.NDArray[np.float32]


class LanguageModel:
    """Says of texts what ``LanguageIdentifier.classify`` says of each, to a rounding of the sums."""

    def __init__(self, identifier: LanguageIdentifier) -> None:
        """``identifier`` is one with ``norm_probs`` and its languages set."""
        self._identifier = identifier
        self._next = np.asarray(identifier.tk_nextmove)
        self._row = np.asarray(identifier.tk_row, np.int64) << 8
        self._feature = np.asarray(identifier.tk_output, np.int64)
        labels = identifier.nb_classes  # a language in two scripts is there twice
        self._same = [(first, n) for n, label in enumerate(labels) if (first := labels.index(label)) < n]

    def classify(self, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The label and its probability of each text."""
        told: list[tuple[str, float]] = []
        for start in range(0, len(texts), _TEXTS):
            told += self._classify([_encoded(text) for text in texts[start : start + _TEXTS]])
        return told

    def _classify(self, texts: Sequence[bytes]) -> list[tuple[str, float]]:
        lengths = np.array([len(text) for text in texts], np.int64)
        scores = self._scores(texts, lengths)
        scores /= np.sqrt(np.maximum(lengths, 1), dtype=np.float32)[:, None]
        np.exp(scores - scores.max(axis=1, keepdims=True), out=scores)
        scores /= scores.sum(axis=1, keepdims=True)
        for first, again in self._same:
            scores[:, first] += scores[:, again]
            scores[:, again] = 0
        labels = self._identifier.nb_classes
        best = scores.argmax(axis=1)
        found = scores[np.arange(len(texts)), best].tolist()
        return [(labels[place], probability) for place, probability in zip(best.tolist(), found, strict=True)]

    def _scores(self, texts: Sequence[bytes], lengths: Ints) -> Floats:
        """Log-posteriors: float32 of shape (texts, languages); 0 for a text without a feature."""
        identifier = self._identifier
        scores = np.zeros((len(texts), len(identifier.nb_classes)), np.float32)
        rows, features = self._visited(texts, lengths)
        if not len(rows):
            return scores
        keys, counts = np.unique(rows * len(identifier.nb_ptc) + features, return_counts=True)
        of_row, features = np.divmod(keys, len(identifier.nb_ptc))
        used, place = np.unique(features, return_inverse=True)
        ends = np.searchsorted(of_row, np.arange(len(texts) + 1))
        weights = csr_matrix((np.log1p(counts, dtype=np.float32), place, ends), (len(texts), len(used)))
        seen = np.diff(ends) > 0
        scores[seen] = (weights @ identifier.nb_ptc[used].astype(np.float32))[seen] + identifier.nb_pc
        return scores

    def _visited(self, texts: Sequence[bytes], lengths: Ints) -> tuple[Ints, Ints]:
        """Every feature that the automaton meets in a text: which text, and which feature.

        All texts take a step at a time, the longest first, so that those with bytes left stand together.
        """
        order = np.argsort(-lengths, kind="stable")
        letters = np.frombuffer(b"".join(texts), np.uint8)
        begins = (np.cumsum(lengths) - lengths)[order]
        left = len(texts) - np.searchsorted(np.sort(lengths), np.arange(int(lengths.max(initial=0))), side="right")
        state = np.zeros(len(texts), np.int64)
        rows, features = [order[:0]], [order[:0]]
        for step, count in enumerate(left.tolist()):
            state = self._next[self._row[state[:count]] + letters[begins[:count] + step]]
            feature = self._feature[state]
            met = np.flatnonzero(feature >= 0)
            rows.append(order[met])
            features.append(feature[met])
        return np.concatenate(rows), np.concatenate(features)


def _encoded(text: str) -> bytes:
    """The bytes that the model was trained on."""
    return unicodedata.normalize("NFC", text.lower() if text.isupper() else text).encode("utf-8", "surrogatepass")
