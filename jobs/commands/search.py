"""The command ``search``: encode a query and ask the live version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from embedding.chunking import Chunker
from embedding.encoders.choose import open_encoder
from embedding.errors import EmbedmillError
from embedding.models.packaged import tokenizer_file
from jobs.pipeline import Pipeline
from jobs.scope import iso

if TYPE_CHECKING:
    from indexers.base import Hit


def search(
    pipeline: Pipeline,
    text: str,
    *,
    team: str,
    channels: Sequence[str] = (),
    kind: str | None = None,
    k: int = 10,
    hybrid: bool = False,
) -> dict[str, Any]:
    """Nearest chunks through the alias, with ``hybrid`` by words as well. Refuses an index of another space."""
    if not pipeline.has_index() or pipeline.index().live() is None:
        raise EmbedmillError(f"there is no index {pipeline.config.index.name!r} yet; run `embedmill run` first")
    version = pipeline.live()
    pipeline.check_space(version)
    with pipeline.progress.phase("loading the model"):
        encoder = open_encoder(pipeline.encoder("query"))
    tokens = Chunker(tokenizer_file(pipeline.model), pipeline.limits).split_batch([text])
    import numpy as np

    vector = encoder.encode([text], np.array([sum(s.tokens for s in tokens[0]) or 1]))[0]
    # The version that was checked, and not the alias: that may have moved on to one of another space.
    hits: list[Hit] = pipeline.index().search(
        version, vector, team_id=team, channels=channels, kind=kind, k=k, text=text if hybrid else None
    )
    return {"space_id": pipeline.space_id, "index": version, "hits": [_hit(h) for h in hits]}


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "chunk_id": hit.chunk_id,
        "score": round(hit.score, 6),
        "team_id": hit.team_id,
        "channel_id": hit.channel_id,
        "kind": hit.kind,
        "doc_id": hit.doc_id,
        "text": hit.text,
        "created_at": iso(hit.created_at),
    }
