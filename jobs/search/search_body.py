"""A hit as it is told to others, on the command line and over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.bodies.answers import HitBody
from jobs.scope import iso

if TYPE_CHECKING:
    from indexers.base import Hit


def hit_body(hit: Hit, permalink: str) -> HitBody:
    """The hit with the address that it is found at, "" where there is none."""
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
