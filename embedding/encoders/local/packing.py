"""Packing: short texts end to end in rows of one width, so that an engine multiplies one shape and little padding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from embedding.tokens.token_ids import TokenIds


@dataclass(frozen=True, slots=True)
class Packing:
    """Where texts lie: text i in row ``rows[i]`` from ``columns[i]`` on, as number ``slots[i]`` of that row, from 0.

    ``count`` is the number of rows, ``width`` the tokens of each.
    """

    rows: npt.NDArray[np.intp]
    columns: npt.NDArray[np.intp]
    slots: npt.NDArray[np.intp]
    count: int
    width: int

    def lay(self, ids: TokenIds, texts: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.int64], ...]:
        """Token ids, segments and positions of the packed ``texts``, each of shape (``count``, ``width``).

        A segment is a text's slot + 1, a position counts within the text from 0; both are 0 where nothing lies.
        """
        lengths = ids.lengths[texts]
        positions = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        sources = np.repeat(ids.offsets[texts], lengths) + positions
        places = np.repeat(self.rows * self.width + self.columns, lengths) + positions
        laid = np.zeros((3, self.count * self.width), np.int64)
        laid[:, places] = ids.flat[sources], np.repeat(self.slots + 1, lengths), positions
        return tuple(laid.reshape(3, self.count, self.width))


def pack(lengths: npt.NDArray[np.integer], width: int, slots: int) -> Packing:
    """Pack texts of ``lengths`` tokens (integers, at most ``width``) into few rows of at most ``slots`` texts.

    Each row is filled with the longest text that still fits, until none does. Texts of one length are alike, so rows of
    one filling are made together: the work is by fillings, of which there are few, and not by texts.
    """
    taken = np.maximum(lengths, 1)
    if len(taken) and taken.max() > width:
        raise ValueError(f"a text of {taken.max()} tokens does not fit a row of {width}")
    order = np.argsort(taken, kind="stable")
    counts = np.bincount(taken, minlength=width + 1)
    left, following = counts.tolist(), (np.cumsum(counts) - counts).tolist()
    rows, columns, numbers = np.empty((3, len(taken)), np.intp)
    count = 0
    while filling := _filling(left, width, slots):
        times = min(left[length] // filling.count(length) for length in filling)
        column = 0
        for slot, length in enumerate(filling):
            texts = order[following[length] : following[length] + times]
            rows[texts] = np.arange(count, count + times)
            columns[texts], numbers[texts] = column, slot
            following[length] += times
            left[length] -= times
            column += length
        count += times
    return Packing(rows, columns, numbers, count, width)


def _filling(left: list[int], width: int, slots: int) -> list[int]:
    """The lengths of one row's texts, the longest first; ``left[n]`` is how many texts of n tokens there are."""
    filling: list[int] = []
    length, used = width, 0
    while length and len(filling) < slots:
        if used == left[length]:
            length, used = length - 1, 0
            continue
        filling.append(length)
        width -= length
        used += 1
        if length > width:
            length, used = width, 0
    return filling


def first_position(config: Any) -> int:
    """The position that a transformer of this configuration gives the first token of a text."""
    return int(config.pad_token_id) + 1 if config.model_type in ("roberta", "camembert", "xlm-roberta") else 0
