"""Batches by token budget: texts of like length together, so that the encoder multiplies little padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt


def token_batches(tokens: npt.NDArray[np.integer], budget: int) -> Iterator[npt.NDArray[np.intp]]:
    """Yield index arrays that cover ``range(len(tokens))`` once, longest texts first.

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
