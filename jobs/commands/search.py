"""The command ``search``: encode a query and ask the live version."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedding.chunking import Chunker
from embedding.encoders.choose import open_encoder
from embedding.encoders.remote.encoder import RemoteEncoder
from embedding.errors import EmbedmillError
from embedding.models.packaged import tokenizer_file
from indexers.base import SearchRequest
from jobs.bodies.answers import HitBody, SearchBody
from jobs.pipeline import Pipeline
from jobs.scope import iso

if TYPE_CHECKING:
    from indexers.base import Hit


CANDIDATES = 50  # of each list that a hybrid search fuses


@dataclass(frozen=True, slots=True)
class Query:
    """A text to search for in one team: ``channels`` empty and ``kind`` None are all of them, ``k`` hits at most.

    ``hybrid`` ranks by words as well.
    """

    text: str
    team: str
    channels: tuple[str, ...] = ()
    kind: str | None = None
    k: int = 10
    hybrid: bool = False


def search(pipeline: Pipeline, query: Query) -> SearchBody:
    """Nearest chunks through the alias.

    Raises EmbedmillError where there is no index yet, SpaceMismatchError where it is of another space.
    """
    if not pipeline.has_index() or pipeline.index().live() is None:
        raise EmbedmillError(f"there is no index {pipeline.config.index.name!r} yet; run `embedmill run` first")
    version = pipeline.live()
    pipeline.check_space(version)
    with pipeline.progress.phase("loading the model"):
        encoder = open_encoder(pipeline.encoder("query"))
    tokens = Chunker(tokenizer_file(pipeline.model), pipeline.limits).split_batch([query.text])
    import numpy as np

    try:
        vector = encoder.encode([query.text], np.array([sum(s.tokens for s in tokens[0]) or 1]))[0]
    finally:
        if isinstance(encoder, RemoteEncoder):
            encoder.close()
    # The version that was checked, and not the alias: that may have moved on to one of another space.
    request = SearchRequest(query.team, query.channels, (query.kind,) if query.kind else (), query.k)
    index = pipeline.index()
    if query.hybrid:
        request = replace(request, k=max(query.k, CANDIDATES))
        hits = _fused(index.search(version, vector, request), index.match(version, query.text, request))[: query.k]
    else:
        hits = index.search(version, vector, request)
    return SearchBody(space_id=pipeline.space_id, index=version, hits=tuple(_hit(hit) for hit in hits))


def _fused(dense: list[Hit], lexical: list[Hit]) -> list[Hit]:
    """Both lists in one, best first: scores of each are scaled to 0 to 1 and added, those by words twice."""
    hits: dict[str, Hit] = {}
    scores: defaultdict[str, float] = defaultdict(float)
    for found, weight in ((dense, 1.0), (lexical, 2.0)):
        lowest = min((hit.score for hit in found), default=0.0)
        span = max((hit.score for hit in found), default=0.0) - lowest
        for hit in found:
            hits[hit.chunk_id] = hit
            scores[hit.chunk_id] += weight * ((hit.score - lowest) / span if span else 1.0)
    return [replace(hits[key], score=scores[key]) for key in sorted(scores, key=lambda key: (-scores[key], key))]


def _hit(hit: Hit) -> HitBody:
    return HitBody(
        chunk_id=hit.chunk_id,
        score=round(hit.score, 6),
        team_id=hit.team_id,
        channel_id=hit.channel_id,
        kind=hit.kind,
        doc_id=hit.doc_id,
        text=hit.text,
        created_at=iso(hit.created_at),
    )
