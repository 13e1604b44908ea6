"""Packed texts lie whole, apart from each other, in rows that are as full as they can be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.encoders.local.packing import pack
from embedding.tokens.token_ids import TokenIds

WIDTH, SLOTS = 24, 5
LENGTHS = st.lists(st.integers(0, WIDTH), max_size=200)


@given(LENGTHS)
def test_texts_lie_apart_and_no_row_has_room_for_a_text_of_a_later_one(lengths: list[int]) -> None:
    packing = pack(np.array(lengths, np.int32), WIDTH, SLOTS)
    rows: list[dict[int, tuple[int, int]]] = [{} for _ in range(packing.count)]
    for row, column, slot, length in zip(packing.rows, packing.columns, packing.slots, lengths, strict=True):
        assert slot not in rows[row]
        rows[row][slot] = (int(column), max(1, length))
    free = []
    for texts in rows:
        assert sorted(texts) == list(range(len(texts))) and 1 <= len(texts) <= SLOTS
        end = 0
        for slot in range(len(texts)):
            column, length = texts[slot]
            assert column == end
            end += length
        assert end <= WIDTH
        free.append(0 if len(texts) == SLOTS else WIDTH - end)
    for row, texts in enumerate(rows):
        assert all(length > max(free[:row], default=0) for _, length in texts.values())


@given(st.lists(st.lists(st.integers(1, 30_000), min_size=1, max_size=WIDTH), max_size=60), st.data())
def test_every_token_is_found_where_its_text_lies(lists: list[list[int]], data: st.DataObject) -> None:
    ids = TokenIds.of(lists)
    texts = np.array([n for n in range(len(lists)) if data.draw(st.booleans())], np.intp)
    packing = pack(ids.lengths[texts], WIDTH, SLOTS)
    input_ids, segments, positions = packing.lay(ids, texts)
    assert input_ids.shape == (packing.count, WIDTH)
    for n, text in enumerate(texts):
        inside = segments[packing.rows[n]] == packing.slots[n] + 1
        assert input_ids[packing.rows[n]][inside].tolist() == lists[text]
        assert positions[packing.rows[n]][inside].tolist() == list(range(len(lists[text])))
    empty = segments == 0
    assert not input_ids[empty].any() and not positions[empty].any()
    assert (~empty).sum() == sum(len(lists[text]) for text in texts)


def test_a_text_wider_than_a_row_is_refused() -> None:
    with pytest.raises(ValueError, match="25 tokens does not fit a row of 24"):
        pack(np.array([3, 25]), WIDTH, SLOTS)


def test_chat_messages_fill_their_rows() -> None:
    lengths = np.clip(np.random.default_rng(7).gamma(2.0, 9.0, 3_000).astype(int), 3, 64)
    assert lengths.sum() / (pack(lengths, 64, 16).count * 64) > 0.99
