"""An answer as it is told to others, on the command line and over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.bodies.answers import HitBody, SearchBody
from jobs.scope import iso

if TYPE_CHECKING:
    from indexers.base import Hit
    from jobs.search.permalinks import Permalinks
    from jobs.search.searcher import Answer, Query, Searcher


def search_body(searcher: Searcher, query: Query, answer: Answer, links: Permalinks) -> SearchBody:
    """What a searcher answered to a query; asks the index whether it has words."""
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
