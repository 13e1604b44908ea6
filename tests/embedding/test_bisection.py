"""A batch that raises is halved until each bad text is alone, and a killed actor's diary names what killed it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.encoders.bisection import MOST, encode_with_bisection
from embedding.errors import EncoderError
from jobs.embed.attempt_log import Attempts


def _encode(bad: set[int], nan: set[int]) -> Callable[[int, int], npt.NDArray[np.float32]]:
    def encode(start: int, stop: int) -> npt.NDArray[np.float32]:
        if any(row in bad for row in range(start, stop)):
            raise ValueError("a text that must not be repeated")
        rows = np.repeat(np.arange(start, stop, dtype=np.float32)[:, None] + 1, 3, axis=1)
        rows[[row - start for row in range(start, stop) if row in nan]] = np.nan
        return rows

    return encode


@given(st.integers(0, 200), st.sets(st.integers(0, 199), max_size=8), st.sets(st.integers(0, 199), max_size=8))
def test_exactly_the_bad_texts_are_left_out(count: int, bad: set[int], nan: set[int]) -> None:
    vectors, good = encode_with_bisection(_encode(bad, nan), count, 3)
    for row in range(count):
        assert good[row] == (row not in bad | nan)
        assert vectors[row].tolist() == ([row + 1.0] * 3 if good[row] else [0.0] * 3)


def test_an_encoder_that_fails_on_all_is_broken_and_quotes_no_text() -> None:
    with pytest.raises(EncoderError) as failed:
        encode_with_bisection(_encode(set(range(1000)), set()), 1000, 3)
    assert "ValueError" in str(failed.value) and "repeated" not in str(failed.value)
    assert encode_with_bisection(_encode(set(range(MOST)), set()), MOST, 3)[1].sum() == 0


def test_diary_finds_a_deadly_text_after_two_deaths(tmp_path: Path) -> None:
    diary = tmp_path / "attempts" / "shard=0"
    first = Attempts(diary)
    assert not first.one_by_one and not first.poisonous
    first.begin()  # the process dies of row 2 among five

    second = Attempts(diary)
    assert second.one_by_one and not second.poisonous
    for row in (0, 1, 2):
        second.begin_one(row)  # and again, at row 2

    third = Attempts(diary)
    assert third.poisonous == {2} and not third.one_by_one
    third.begin()  # row 4 is poisonous too

    fourth = Attempts(diary)
    assert fourth.one_by_one and fourth.poisonous == {2}
    for row in (0, 1, 3, 4):
        fourth.begin_one(row)
    assert Attempts(diary).poisonous == {2, 4}


def test_half_an_entry_in_the_diary_is_no_step(tmp_path: Path) -> None:
    diary = tmp_path / "shard=0"
    Attempts(diary).begin()
    (diary / ".00000002-1.0a").touch()  # of a process that was killed before it had its name
    assert Attempts(diary).one_by_one and not Attempts(diary).poisonous
