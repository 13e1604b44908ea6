"""The contract of a reranker, in one screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt


class NotReranked(Exception):
    """A reranker gave no score for each text in time. The message holds no text and no address."""


class Reranker(Protocol):
    """Scores texts against a query. Opened once and then reused; ``name`` is what answers and reports call it."""

    name: str

    def scores(self, query: str, texts: Sequence[str], seconds: float | None = None) -> npt.NDArray[np.float64]:
        """Return a score for each text, shape (len(texts),), higher is nearer. Raises NotReranked where it cannot.

        A service is waited for no longer than ``seconds``; a model of this machine goes on to its end.
        """
        ...

    def close(self) -> None:
        """Let go of connections and memory."""
        ...


def checked(scores: npt.ArrayLike, count: int) -> npt.NDArray[np.float64]:
    """Scores of shape (count,). Raises NotReranked for another shape, and for one that is not finite."""
    try:
        found = np.asarray(scores, np.float64)
    except (TypeError, ValueError):
        raise NotReranked("an answer of another shape") from None
    if found.shape != (count,) or not np.isfinite(found).all():
        raise NotReranked("an answer of another shape")
    return found
