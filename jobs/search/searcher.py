"""Searching: the index and the query encoder opened once, the space checked once, then any number of queries."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedding.errors import ConfigError, EncoderError
from indexers.base import SearchRequest
from jobs.config_sections import Search, SearchMode
from jobs.pipeline import Pipeline
from jobs.search.fusion import Lists, Weights, fuse
from jobs.search.query_encoder import QueryEncoder, encoder_of_space
from jobs.search.rerank import Reranking, open_reranking

if TYPE_CHECKING:
    from indexers.base import Hit, Index

Vectors = npt.NDArray[np.float32]
BATCH = 256  # queries encoded at once


@dataclass(frozen=True, slots=True)
class Query:
    """A text to search for in one team, ``k`` hits at most. A filter that is empty or None finds all.

    ``mode`` ranks by vectors, by words, or by both. ``authors`` are ids, ``thread_id`` the document that began
    a thread, ``since`` and ``until`` bound the time of creation (µs, half open). With ``public`` also what is public is
    found, beside what is in ``channels``. ``mentions`` are ids of people of whom one is named, ``has_file`` asks for
    what came with a file, ``languages`` (ISO 639-1) for texts of which the language is one of these.
    """

    text: str
    team: str
    channels: tuple[str, ...] = ()
    kind: str | None = None
    k: int = 10
    mode: SearchMode = "dense"
    authors: tuple[str, ...] = ()
    thread_id: str | None = None
    since: int | None = None
    until: int | None = None
    public: bool = False
    mentions: tuple[str, ...] = ()
    has_file: bool = False
    languages: tuple[str, ...] = ()

    def request(self, most: int, *, conversations: bool = False) -> SearchRequest:
        """What an index is asked for: rows of messages and files, or of conversations."""
        kinds = (self.kind,) if self.kind else ("message", "file")
        return SearchRequest(
            team_id=self.team,
            channels=self.channels,
            kinds=("thread",) if conversations else kinds,
            k=most,
            author_ids=() if conversations else self.authors,
            thread_id=self.thread_id,
            since=self.since,
            until=self.until,
            public=self.public,
            mentions=self.mentions,
            has_file=self.has_file,
            languages=self.languages,
        )


@dataclass(frozen=True, slots=True)
class Answer:
    """Hits, best first. ``reranked`` is None where no reranker is configured; ``reason`` says why it is False."""

    hits: list[Hit]
    reranked: bool | None = None
    reason: str = ""


class Searcher:
    """Answers queries over one version. ``space_id`` is the version's, ``encoder`` that of its space."""

    def __init__(
        self,
        index: Index,
        version: str,
        encoder: QueryEncoder,
        settings: Search,
        reranking: Reranking | None = None,
    ) -> None:
        self.version = version
        self._settings = settings
        self.space_id = index.space_of(version)
        self.reranking = reranking
        self._index = index
        self.encoder = encoder

    def search(self, queries: Sequence[Query]) -> Iterator[Answer]:
        """Answer queries in their order; they are encoded BATCH at a time."""
        for start in range(0, len(queries), BATCH):
            batch = queries[start : start + BATCH]
            vectors = self.encode([query.text for query in batch], {query.mode for query in batch})
            for query, vector in zip(batch, vectors, strict=True):
                yield self.answer(query, vector)

    def encode(self, texts: Sequence[str], modes: Collection[SearchMode]) -> Vectors:
        """Vectors of queries, float32 of shape (len(texts), dim); of width 0 where no mode ranks by vectors."""
        return self.encoder.encode(texts) if set(modes) - {"lexical"} else np.zeros((len(texts), 0), np.float32)

    def answer(self, query: Query, vector: Vectors, *, rerank: bool = True) -> Answer:
        """Answer one query, whose vector is a row of ``encode``, reranked where that is configured and not declined."""
        if self.reranking is None or not rerank:
            return Answer(self.hits(query, vector, query.k))
        answer = self.rerank(query, self.hits(query, vector, self.reranking.wanted(query.k)))
        return Answer(answer.hits[: query.k], answer.reranked, answer.reason)

    def hits(self, query: Query, vector: Vectors, most: int) -> list[Hit]:
        """The first ``most`` hits, best first.

        Raises ConfigError for a mode that the index does not have, EncoderError for a query that has no vector (NaN).
        """
        if query.mode != "lexical" and not np.isfinite(vector).all():
            raise EncoderError("the query cannot be encoded: the model has no vector for it; try --lexical")
        if query.mode == "dense":
            return self._index.search(self.version, vector, query.request(most))
        if query.mode == "lexical":
            return self._index.match(self.version, query.text, query.request(most))
        return self._fused(query, vector, most)

    def matches_words(self) -> bool:
        """Whether the version has an index of words."""
        return self._index.matches_words(self.version)

    def _fused(self, query: Query, vector: Vectors, most: int) -> list[Hit]:
        full = max(most, self._settings.candidates)
        rows, talks = query.request(full), query.request(full, conversations=True)
        words = self.matches_words()
        asks_talks = self._settings.conversation_weight > 0 and query.kind != "file"
        lists = Lists(
            self._index.search(self.version, vector, rows),
            self._index.match(self.version, query.text, rows) if words else (),
            self._index.search(self.version, vector, talks) if asks_talks else (),
            self._index.match(self.version, query.text, talks) if asks_talks and words else (),
        )
        settings = self._settings
        weights = Weights(settings.dense_weight, settings.lexical_weight, settings.conversation_weight)
        return fuse(lists, weights, most, full, lambda keys: self._index.fetch(self.version, keys, rows))

    def rerank(self, query: Query, hits: list[Hit]) -> Answer:
        """Hits in the reranker's order; as they are where none is configured or it fails."""
        if self.reranking is None:
            return Answer(hits)
        done = self.reranking.apply(query.text, hits)
        return Answer(done.hits, not done.reason, done.reason)

    def refusal(self, query: Query) -> str:
        """Why the version cannot be searched in the query's mode; "" where it can."""
        [vector] = self.encode([query.text], [query.mode])
        try:
            self.hits(query, vector, 1)
        except ConfigError as error:
            return str(error)
        except EncoderError:  # it is of this query, and the mode is there
            pass
        return ""

    def close(self) -> None:
        """Let go of encoder and reranker. The index is the pipeline's."""
        self.encoder.close()
        if self.reranking is not None:
            self.reranking.close()


@contextmanager
def open_searcher(
    pipeline: Pipeline, version: str | None = None, *, rerank: bool = True, seconds: float | None = None
) -> Iterator[Searcher]:
    """A searcher over the live version in the configured space, or over any ``version``, with the encoder of its space.

    The version is named and not the alias: that may move on to one of another space meanwhile. A remote model is asked
    for the texts of one call for so many ``seconds``; None: for as long as it may take. Raises ConfigError
    where there is no index yet, and for a version that is not there or whose model the configuration cannot give;
    SpaceMismatchError where the live one is of another space.
    """
    if version is None:
        version = pipeline.must_live()
        pipeline.check_space(version)
        encoder = QueryEncoder(pipeline, seconds)
    else:
        versions = pipeline.index().versions() if pipeline.has_index() else []
        if version not in versions:
            there = ", ".join(versions) or "none"
            raise ConfigError(f"there is no version {version!r} of the index; there are {there}")
        encoder = encoder_of_space(pipeline, pipeline.index().space_of(version), seconds)
    searcher = Searcher(
        pipeline.index(), version, encoder, pipeline.config.search, open_reranking(pipeline.config) if rerank else None
    )
    try:
        yield searcher
    finally:
        searcher.close()
