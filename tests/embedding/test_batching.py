"""Batches cover every text once within their budget, in few shapes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedding.encoders.local.batching import few_counts, few_heights, few_packed_widths, few_widths, token_batches

LENGTHS = st.lists(st.integers(1, 512), min_size=1, max_size=400)


@given(LENGTHS, st.integers(1, 2_000))
def test_every_text_is_in_one_batch_within_the_budget(lengths: list[int], budget: int) -> None:
    tokens = np.array(lengths)
    batches = list(token_batches(tokens, budget))
    assert sorted(row for rows in batches for row in rows) == list(range(len(tokens)))
    assert all(len(rows) == 1 or len(rows) * tokens[rows].max() <= budget for rows in batches)


@given(st.lists(st.lists(st.integers(1, 256), min_size=1, max_size=400), min_size=1, max_size=5))
def test_shapes_are_few_however_many_texts_come(shards: list[list[int]]) -> None:
    """A width has one full batch, and of smaller ones no more than there are powers of two."""
    shapes = set()
    for lengths in shards:
        widths = few_widths(np.array(lengths))
        assert (widths >= lengths).all() and (widths <= np.array(lengths) * 1.25 + 1).all()
        for batch in token_batches(widths, 1_024):
            full = 1_024 // int(widths[batch[0]])
            rows = few_counts(batch, full)
            assert set(rows) == set(batch) and len(batch) <= len(rows) <= min(full, 2 * len(batch))
            shapes.add((len(rows), int(widths[batch[0]])))
    for width in {width for _, width in shapes}:
        full = 1_024 // width
        assert {rows for rows, w in shapes if w == width} <= {
            full,
            *(2**power for power in range(11) if 2**power < full),
        }


@given(st.integers(0, 500), st.integers(1, 40), st.integers(1, 16))
def test_rows_are_shared_out_among_engines_with_none_empty(count: int, full: int, engines: int) -> None:
    heights = few_heights(count, full, engines)
    assert sum(heights) == count and all(0 < height <= full for height in heights)
    assert all(height == full or height & (height - 1) == 0 for height in heights)
    assert all(height <= max(1, -(-count // engines)) for height in heights), "an even share at most, or others wait"
    assert heights == sorted(heights, reverse=True), "the largest first, so that none ends long after the others"


@given(st.integers(1, 64))
def test_a_packed_row_is_hardly_wider_than_what_it_holds(tokens: int) -> None:
    width = few_packed_widths(tokens, 64)
    assert width in (16, 32, 64) and tokens <= width < max(17, 2 * tokens)
