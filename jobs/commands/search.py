"""The command ``search``: ask the live version one query."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.bodies.answers import HitBody, SearchBody
from jobs.pipeline import Pipeline
from jobs.scope import iso
from jobs.search.permalinks import Permalinks
from jobs.search.searcher import Query, open_searcher

if TYPE_CHECKING:
    from indexers.base import Hit


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
            hits=tuple(_hit(hit, links.of(hit)) for hit in answer.hits),
            mode=query.mode,
            words=query.mode != "hybrid" or searcher.matches_words(),
            reranked=answer.reranked,
            rerank_reason=answer.reason or None,
        )


def _hit(hit: Hit, permalink: str) -> HitBody:
    return HitBody(
        chunk_id=hit.chunk_id,
        score=round(hit.score, 6),
        team_id=hit.team_id,
        channel_id=hit.channel_id,
        kind=hit.kind,
        doc_id=hit.doc_id,
        text=hit.text,
        created_at=iso(hit.created_at),
        author=hit.author,
        channel_name=hit.channel_name,
        thread_id=hit.thread_id,
        title=hit.title,
        visibility=hit.visibility,
        permalink=permalink,
        mentions=hit.mentions,
        has_file=hit.has_file,
        language=hit.language,
    )
