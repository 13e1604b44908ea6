"""The command ``search``: ask the live version one query."""

from __future__ import annotations

from jobs.bodies.answers import SearchBody
from jobs.pipeline import Pipeline
from jobs.search.permalinks import Permalinks
from jobs.search.search_body import search_body
from jobs.search.searcher import Query, open_searcher


def search(pipeline: Pipeline, query: Query, *, rerank: bool = True) -> SearchBody:
    """Nearest chunks through the alias, reranked where that is configured and not declined.

    Raises ConfigError where there is no index yet or for a mode that it does not have, SpaceMismatchError where it is
    of another space.
    """
    with open_searcher(pipeline, rerank=rerank) as searcher:
        [answer] = searcher.search([query])
        return search_body(searcher, query, answer, Permalinks(pipeline.config.sources))
