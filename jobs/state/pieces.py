"""Cuts sorted rows where a group ends, for processes that each map some of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def pieces_of(batches: Iterator[pa.RecordBatch], by: Sequence[str], rows: int) -> Iterator[list[pa.RecordBatch]]:
    """Rows, sorted by some columns, in pieces of at least so many ``rows``; those with equal values are in one.

    Only the last piece may be smaller.
    """
    held, count = list[pa.RecordBatch](), 0
    for batch in batches:
        rest = batch
        if count >= rows and len(starts := group_starts(batch, by, before=held[-1].slice(len(held[-1]) - 1))):
            cut = int(starts[0])
            yield [*held, batch.slice(0, cut)] if cut else held
            held, count, rest = [], 0, batch.slice(cut)
        if len(rest):
            held.append(rest)
            count += len(rest)
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
