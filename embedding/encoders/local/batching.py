"""Batches by token budget: texts of like length together, so that the encoder multiplies little padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

BATCH_TOKENS = 4_096  # of a batch on a CPU, where the configuration names none


def token_batches(tokens: npt.NDArray[np.integer], budget: int) -> Iterator[npt.NDArray[np.intp]]:
    """Yield index arrays (intp, one dimension) that cover ``range(len(tokens))`` once, longest texts first.

    Within a batch, rows x longest row stays within ``budget`` tokens; a text that is longer than the budget on its
    own is a batch of one. The longest come first so that a budget too large for the device fails at once.
    """
    if budget < 1:
        raise ValueError("budget must be at least 1 token")
    order = np.argsort(-tokens, kind="stable")
    start = 0
    while start < len(order):
        rows = max(1, budget // max(1, int(tokens[order[start]])))
        yield order[start : start + rows]
        start += rows


def few_widths(tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Round lengths up to few values, by an eighth at most: to 4s above 32, to 8s above 64, to 16s above 128, ...

    For an engine that keeps something for each shape of a batch: up to 256 tokens there are 56 widths, which the first
    texts bring along, and not as many as there are lengths.
    """
    doublings = np.ceil(np.log2(np.maximum(tokens, 32) / 32)).astype(np.int64)
    step = np.where(doublings == 0, 1, 2 ** (doublings + 1))
    return (tokens + step - 1) // step * step


def few_counts(rows: npt.NDArray[np.intp], full: int) -> npt.NDArray[np.intp]:
    """A batch that is not ``full`` made a power of two long, by its own rows once more.

    The last batch of each call would else be of a new shape nearly every time; see ``few_widths``.
    """
    return rows if len(rows) >= full else np.resize(rows, min(full, _power_of_two(len(rows))))


def few_heights(count: int, full: int, engines: int) -> list[int]:
    """Rows of the batches that ``count`` rows make: ``full`` ones as long as each engine has one, then powers of two.

    These are so many that each of the ``engines`` has work. No row is empty, and an engine that keeps something
    for each shape sees few.
    """
    heights = [full] * (count // full if count >= full * engines else 0)
    left = count - full * len(heights)
    while left:
        height = min(full, 1 << (-(-left // engines)).bit_length() - 1)
        heights += [height] * (left // height)
        left %= height
    return heights


def few_packed_widths(tokens: int, most: int) -> int:
    """A width of packed rows that holds ``tokens``: a power of two, 16 at least and ``most`` at most."""
    return min(most, max(16, _power_of_two(tokens)))


def _power_of_two(count: int) -> int:
    """The least power of two that is not below ``count``, which is 1 or more."""
    return 1 << (count - 1).bit_length()
