"""Newest: which row of a data file is the newest of its document. Holds ids and times, never a text."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_BETWEEN = pa.scalar("\0", pa.large_string())  # in no team


class Standings:
    """Takes the rows of a file, batch by batch, and says who wins.

    The highest version wins; of two with one version one that is deleted, then the later row.
    """

    def __init__(self) -> None:
        self._documents: list[pa.Array] = []
        self._versions: list[np.ndarray] = []
        self._deleted: list[np.ndarray] = []
        self._competes: list[np.ndarray] = []
        self.rows = 0

    def add(self, teams: pa.Array, keys: pa.Array, versions: np.ndarray, deleted: np.ndarray, ok: np.ndarray) -> None:
        """Add one batch: arrays of one value a row, ``versions`` int64 (µs), ``deleted`` and ``ok`` bool.

        Rows that are not ``ok`` have no document or no version, and do not compete.
        """
        documents = pc.binary_join_element_wise(teams.filter(pa.array(ok)), keys.filter(pa.array(ok)), _BETWEEN)
        self._documents.append(documents)
        self._versions.append(versions[ok])
        self._deleted.append(deleted[ok])
        self._competes.append(ok)
        self.rows += len(ok)

    def result(self) -> Winners:
        """Who won."""
        documents = pa.chunked_array(self._documents, pa.large_string())
        coded = documents.dictionary_encode().unify_dictionaries()
        total = len(coded.chunk(0).dictionary) if coded.num_chunks else 0
        if total == len(documents):
            return Winners(self.rows)
        codes = np.concatenate([np.asarray(chunk.indices) for chunk in coded.chunks]).astype(np.int64)
        versions, deleted = np.concatenate(self._versions), np.concatenate(self._deleted)
        positions = np.flatnonzero(np.concatenate(self._competes))
        order = np.lexsort((positions, deleted, versions, codes))
        last = np.append(codes[order][1:] != codes[order][:-1], True)
        best = np.empty(total, np.int64)  # by document: its winner among the rows that compete
        best[codes[order][last]] = order[last]
        winner = best[codes]
        lost = winner != np.arange(len(codes))
        tied = lost & (versions == versions[winner]) & ~deleted[winner]
        beaten = np.zeros(self.rows, bool)
        beaten[positions[lost]] = True
        return Winners(
            self.rows, beaten, dict(zip(positions[tied].tolist(), positions[winner[tied]].tolist(), strict=True))
        )


@dataclass(slots=True)
class Winners:
    """Which rows lost, and what must be remembered of rows that lost to another of the very same version.

    ``beaten`` is by row of the file, None where none lost. A row in ``tied`` lost to the row that it names, which
    comes later.
    """

    rows: int
    beaten: np.ndarray | None = None
    tied: dict[int, int] = field(default_factory=dict)
    _waiting: dict[int, list[tuple[str, bytes]]] = field(default_factory=dict)

    def lost(self, row: int) -> bool:
        """Whether another row of the document is newer."""
        return self.beaten is not None and row < self.rows and bool(self.beaten[row])  # it may have grown

    def remember(self, row: int, key: str, text: str) -> None:
        """Keep what a tied row said, as a hash, until its winner is read."""
        self._waiting.setdefault(self.tied[row], []).append((key, _digest(text)))

    def others(self, row: int, text: str) -> tuple[list[str], int]:
        """Of the rows that lost to this one by place alone: keys of those with another text, and how many more."""
        said = self._waiting.pop(row, [])
        different = [key for key, digest in said if digest != _digest(text)] if said else []
        return different, len(said) - len(different)


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
