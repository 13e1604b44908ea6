"""Reordering the first hits of a search. What fails leaves the order as it was, and says so in the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedding.rerankers.base import NotReranked, Reranker
from jobs.config import Config
from jobs.config_sections import CrossEncoderRerank

if TYPE_CHECKING:
    from indexers.base import Hit

_FAILURES = 3  # in a row, after which a reranker is not asked again


@dataclass(frozen=True, slots=True)
class Reranked:
    """Hits in their new order, or as they were with the ``reason``."""

    hits: list[Hit]
    reason: str = ""


class Reranking:
    """A reranker that is shown the ``top`` first hits, how often it was ``asked`` and how often it ``failed``."""

    def __init__(self, reranker: Reranker, top: int) -> None:
        self.name, self.top = reranker.name, top
        self.asked = self.failed = 0
        self.reason = ""
        self._reranker = reranker
        self._in_a_row = 0

    def wanted(self, k: int) -> int:
        """How many hits to find where ``k`` are asked for: what it is shown, and no fewer than that."""
        return max(k, self.top)

    def order(self, query: str, hits: Sequence[Hit], seconds: float | None = None) -> list[Hit]:
        """The first ``top`` hits by their score, and the others after them.

        A service is waited for no longer than ``seconds``. Raises NotReranked.
        """
        first, rest = hits[: self.top], hits[self.top :]
        if not first:
            return []
        scores = self._reranker.scores(query, [hit.text for hit in first], seconds)
        return [*(first[place] for place in np.argsort(-scores, kind="stable")), *rest]

    def apply(self, query: str, hits: Sequence[Hit]) -> Reranked:
        """As ``order``; hits as they were where it fails, and not asked any more after three failures in a row.

        It is for a command, which ends; a process that serves asks again.
        """
        if not hits:
            return Reranked([])
        self.asked += 1
        try:
            if self._in_a_row >= _FAILURES:
                raise NotReranked(f"not asked again after {_FAILURES} failures in a row: {self.reason}")
            ordered = self.order(query, hits)
        except NotReranked as error:
            if self._in_a_row < _FAILURES:
                self._in_a_row += 1
                self.reason = str(error)
            self.failed += 1
            return Reranked(list(hits), str(error))
        self._in_a_row = 0
        return Reranked(ordered)

    def close(self) -> None:
        """Let go of the reranker."""
        self._reranker.close()


def open_reranking(config: Config) -> Reranking | None:
    """What [search] rerank names, None where it names nothing. Raises ConfigError for a folder that is no model."""
    section = config.search.rerank
    if section is None:
        return None
    reranker: Reranker
    if isinstance(section, CrossEncoderRerank):
        from embedding.rerankers.cross_encoder import CrossEncoderReranker

        reranker = CrossEncoderReranker(config.path(section.path))
    else:
        from embedding.rerankers.http import HttpReranker

        reranker = HttpReranker(
            section.url,
            section.api,
            model=section.model,
            token=section.token.get_secret_value(),
            timeout=section.timeout_seconds,
        )
    return Reranking(reranker, section.top)
