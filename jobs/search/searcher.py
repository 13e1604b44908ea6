"""Searching: the index and the query encoder opened once, the space checked once, then any number of queries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedding.errors import ConfigError, EmbedmillError
from indexers.base import SearchRequest
from jobs.config_sections import SearchMode
from jobs.pipeline import Pipeline
from jobs.search.query_encoder import QueryEncoder, encoder_of_space
from jobs.search.rerank import Reranking, open_reranking

if TYPE_CHECKING:
    from indexers.base import Hit, Index

Vectors = npt.NDArray[np.float32]
BATCH = 256  # queries encoded at once


@dataclass(frozen=True, slots=True)
class Query:
    """A text to search for in one team: ``channels`` empty and ``kind`` None are all of them, ``k`` hits at most.

    ``mode`` ranks by vectors, by words, or by both.
    """

    text: str
    team: str
    channels: tuple[str, ...] = ()
    kind: str | None = None
    k: int = 10
    mode: SearchMode = "dense"


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first. ``reranked`` is None where no reranker is configured; ``reason`` says why it is False."""

    hits: list[Hit]
    reranked: bool | None = None
    reason: str = ""


class Searcher:
    """Answers queries over one version. ``space_id`` is the version's."""

    def __init__(self, index: Index, version: str, encoder: QueryEncoder, reranking: Reranking | None = None) -> None:
        self.version = version
        self.space_id = index.space_of(version)
        self.reranking = reranking
        self._index = index
        self._encoder = encoder

    def search(self, queries: Sequence[Query]) -> Iterator[Answer]:
        """Answer queries in their order; those that need vectors are encoded BATCH at a time."""
        for start in range(0, len(queries), BATCH):
            batch = queries[start : start + BATCH]
            vectors = self.encode([query.text for query in batch])
            for query, vector in zip(batch, vectors, strict=True):
                yield self.answer(query, vector)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Vectors of queries, float32 of shape (len(texts), dim)."""
        return self._encoder.encode(texts)

    def answer(self, query: Query, vector: Vectors) -> Answer:
        """Answer one query, whose vector has shape (dim,), reranked where that is configured."""
        most = query.k if self.reranking is None else max(query.k, self.reranking.top)
        answer = self.rerank(query, self.hits(query, vector, most))
        return Answer(answer.hits[: query.k], answer.reranked, answer.reason)

    def hits(self, query: Query, vector: Vectors, most: int) -> list[Hit]:
        """The first ``most`` hits as the index ranks them. Raises ConfigError for a mode that it does not have."""
        if query.mode == "lexical":
            raise ConfigError(f"--lexical: {self._index.capabilities().engine} ranks by words only beside vectors")
        words = query.text if query.mode == "hybrid" else None
        request = SearchRequest(query.team, query.channels, query.kind, most, words)
        return self._index.search(self.version, vector, request)

    def rerank(self, query: Query, hits: list[Hit]) -> Answer:
        """Hits in the reranker's order; as they are where none is configured or it fails."""
        if self.reranking is None:
            return Answer(hits)
        done = self.reranking.apply(query.text, hits)
        return Answer(done.hits, not done.reason, done.reason)

    def refusal(self, query: Query) -> str:
        """Why the version cannot be searched in the query's mode; "" where it can."""
        try:
            self.hits(query, self.encode([query.text])[0], 1)
        except ConfigError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Let go of encoder and reranker. The index is the pipeline's."""
        self._encoder.close()
        if self.reranking is not None:
            self.reranking.close()


@contextmanager
def open_searcher(pipeline: Pipeline, version: str | None = None, *, rerank: bool = True) -> Iterator[Searcher]:
    """A searcher over the live version in the configured space, or over any ``version``, with the encoder of its space.

    The version is named and not the alias: that may move on to one of another space meanwhile. Raises EmbedmillError
    where there is no index yet, SpaceMismatchError where the live one is of another space, and ConfigError for a
    version that is not there or whose model the configuration cannot give.
    """
    if not pipeline.has_index() or (version is None and pipeline.index().live() is None):
        raise EmbedmillError(f"there is no index {pipeline.config.index.name!r} yet; run `embedmill run` first")
    index = pipeline.index()
    if version is None:
        version = pipeline.live()
        pipeline.check_space(version)
        encoder = QueryEncoder(pipeline)
    else:
        versions = index.versions()
        if version not in versions:
            raise ConfigError(f"there is no version {version!r} of the index; there are {', '.join(versions)}")
        encoder = encoder_of_space(pipeline, index.space_of(version))
    searcher = Searcher(index, version, encoder, open_reranking(pipeline.config) if rerank else None)
    try:
        yield searcher
    finally:
        searcher.close()
