"""Vectors as binary values: what is packed comes back, whatever the engine cut the column into."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.state.vector_column import pack, unpack


@given(st.integers(0, 9), st.integers(1, 5), st.integers(0, 9), st.integers(0, 9))
def test_what_is_packed_comes_back(rows: int, dim: int, cut: int, start: int) -> None:
    matrix = np.arange(rows * dim, dtype=np.float32).reshape(rows, dim) - 3.5
    column = pack(matrix)
    assert column.type == pa.binary() and all(len(value) == 4 * dim for value in column.to_pylist())
    pieces = pa.chunked_array([column[:cut], column[cut:]], pa.binary())
    for found, expected in ((column, matrix), (pieces, matrix), (pieces[start:], matrix[start:])):
        assert unpack(found).shape[0] == len(expected)
        if len(expected):
            assert np.array_equal(unpack(found), expected)


def test_vectors_of_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="different lengths"):
        unpack(pa.array([b"\0" * 8, b"\0" * 4], pa.binary()))
