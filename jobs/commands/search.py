"""The command ``search``: ask the live version one query."""

from __future__ import annotations

from jobs.bodies.answers import SearchBody
from jobs.pipeline import Pipeline
from jobs.search.hit_body import hit_body
from jobs.search.permalinks import Permalinks
from jobs.search.searcher import Query, open_searcher


def search(pipeline: Pipeline, query: Query, *, rerank: bool = True) -> SearchBody:
    """Nearest chunks through the alias, reranked where that is configured and not declined.

    Raises EmbedmillError where there is no index yet, SpaceMismatchError where it is of another space, ConfigError for
    a mode that it does not have.
    """
    with open_searcher(pipeline, rerank=rerank) as searcher:
        [answer] = searcher.search([query])
        links = Permalinks(pipeline.config.sources)
        return SearchBody(
            space_id=searcher.space_id,
            index=searcher.version,
            hits=tuple(hit_body(hit, links.of(hit)) for hit in answer.hits),
            mode=query.mode,
            words=query.mode != "hybrid" or searcher.matches_words(),
            reranked=answer.reranked,
            rerank_reason=answer.reason or None,
        )
