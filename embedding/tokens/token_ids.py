"""Texts as token ids: one Arrow column of lists, with the two things that an encoder asks of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
import pyarrow as pa


@dataclass(frozen=True, slots=True)
class TokenIds:
    """The token ids of several texts, special tokens included, end to end: text i is flat[offsets[i]:offsets[i+1]]."""

    flat: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int32]

    @staticmethod
    def of(lists: Iterable[Sequence[int]]) -> TokenIds:
        """Put lists of ids end to end."""
        lists = list(lists)
        lengths = np.fromiter(map(len, lists), np.int32, len(lists))
        flat = np.fromiter(chain.from_iterable(lists), np.int32, int(lengths.sum()))
        return TokenIds(flat, np.concatenate(([0], np.cumsum(lengths))).astype(np.int32))

    @staticmethod
    def from_arrow(column: pa.ListArray) -> TokenIds:
        """Take an Arrow column of list<int32> without copying it."""
        return TokenIds(column.values.to_numpy(), column.offsets.to_numpy())

    def to_arrow(self) -> pa.ListArray:
        """As an Arrow column of list<int32>, without copying."""
        return pa.ListArray.from_arrays(pa.array(self.offsets), pa.array(self.flat))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int32]:
        """Tokens of each text: int32 of shape (texts,)."""
        return np.diff(self.offsets)

    def part(self, start: int, stop: int) -> TokenIds:
        """The texts from ``start`` to ``stop``."""
        return TokenIds(self.flat, self.offsets[start : stop + 1])

    def padded(self, rows: npt.NDArray[np.intp], width: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids and attention mask of some texts, padded with 0 at the end.

        Both of shape (rows, longest of them), or (rows, ``width``) where that is more.
        """
        starts, lengths = self.offsets[rows], self.lengths[rows]
        places = np.arange(max(width, int(lengths.max())))
        mask = places < lengths[:, None]
        # A padded place reads some id that lies there, and the mask takes it out again.
        ids = self.flat[np.minimum(starts[:, None] + places, len(self.flat) - 1)]
        return np.where(mask, ids, 0).astype(np.int64), mask.astype(np.int64)
