"""Cuts sorted rows where a group ends, for processes that each map some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

Mapped: TypeAlias = Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]

_ROWS = 4096  # of a batch


def pieces_of(batches: Iterator[pa.RecordBatch], by: Sequence[str], rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Rows, sorted by some columns, in pieces of at least so many ``rows``; those with equal values are in one.

    Only the last piece may be smaller.
    """
    held, count = list[pa.RecordBatch](), 0
    for batch in batches:
        cut = 0
        if held and count >= rows:
            starts = group_starts(batch, by, before=held[-1].slice(len(held[-1]) - 1))
            cut = int(starts[0]) if len(starts) else len(batch)
            if cut < len(batch):
                yield [*held, *([batch.slice(0, cut)] if cut else [])]
                held, count = [], 0
            else:
                cut = 0
        if rest := len(batch) - cut:
            held.append(batch.slice(cut))
            count += rest
    if held:
        yield held


def group_starts(
    batch: pa.RecordBatch | pa.Table, by: Sequence[str], before: pa.RecordBatch | pa.Table | None = None
) -> npt.NDArray[np.int64]:
    """Places of the rows whose values of some columns are not those of the row before them.

    ``before`` is the one before the first, None where that begins a group.
    """
    if not len(batch):
        return np.zeros(0, np.int64)
    same = np.ones(len(batch), bool)
    for name in by:
        column = _whole(batch[name])
        same[1:] &= pc.equal(column[1:], column[:-1]).to_numpy(zero_copy_only=False)
        same[0] &= before is not None and before[name][0].as_py() == column[0].as_py()
    return np.flatnonzero(~same)


def _whole(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def over_files(function: Mapped) -> Mapped:
    """A function over batches as one over files of them (path), each by itself. It can be pickled if that one can."""
    return partial(_over_files, function)


def _over_files(function: Mapped, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for path in batch["path"].to_pylist():
            yield from function(pq.ParquetFile(path).iter_batches(_ROWS))
