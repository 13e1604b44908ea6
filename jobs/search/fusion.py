"""Relative score fusion: ranked lists of one query become one list.

The scores of a list are brought to 0 to 1 by its own best and worst; a hit's score is the weighted mean of what its
lists say, and nothing where it is in none. Ranks alone would lose how much better the first is than the second: on
questions over chat that costs a sixth of nDCG@10.

A conversation speaks for the messages that it holds. Each of them gets its best conversation's score.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from embedding.ids import chunk_id

if TYPE_CHECKING:
    from indexers.base import Hit


@dataclass(frozen=True, slots=True)
class Weights:
    """What vectors and words count, and what a conversation counts of that beside the message itself."""

    dense: float
    lexical: float
    conversation: float


@dataclass(frozen=True, slots=True)
class Lists:
    """Hits of one query, each list best first: of rows by ``dense`` and ``lexical``, of conversations the same."""

    dense: Sequence[Hit] = ()
    lexical: Sequence[Hit] = ()
    dense_conversations: Sequence[Hit] = ()
    lexical_conversations: Sequence[Hit] = ()


def relative(hits: Sequence[Hit], *, full: int, floor: float | None = None) -> dict[str, float]:
    """Scores from 0 to 1 by chunk id, 1 of the best.

    0 is the worst of a list of ``full`` length. A shorter one shows all that was found, and rows that are not in it
    have the score ``floor``, where it is known.
    """
    if not hits:
        return {}
    best, worst = hits[0].score, hits[-1].score
    if floor is not None and len(hits) < full:
        worst = min(worst, floor)
    span = best - worst
    return {hit.chunk_id: (hit.score - worst) / span if span > 0 else 1.0 for hit in hits}


def members(hit: Hit) -> list[str]:
    """Documents that a conversation holds, in order."""
    found: list[str] = json.loads(hit.meta).get("messages", [])
    return found


def fuse(
    lists: Lists, weights: Weights, k: int, full: int, fetch: Callable[[Sequence[str]], Sequence[Hit]]
) -> list[Hit]:
    """The ``k`` best hits of some lists of at most ``full`` rows; ``score`` is from 0 to 1.

    ``fetch`` reads rows by chunk id: messages that only their conversation found. What cannot be in a conversation, a
    file or a message of no channel, is not worse off for that: its own score counts in its place.
    """
    by_rows = [
        (weights.dense, relative(lists.dense, full=full)),
        (weights.lexical, relative(lists.lexical, full=full, floor=0.0)),
    ]
    by_conversations = [
        (weights.dense, _spread(lists.dense_conversations, relative(lists.dense_conversations, full=full))),
        (
            weights.lexical,
            _spread(lists.lexical_conversations, relative(lists.lexical_conversations, full=full, floor=0.0)),
        ),
    ]
    total = weights.dense * bool(lists.dense or lists.dense_conversations)
    total += weights.lexical * bool(lists.lexical or lists.lexical_conversations)
    known = {hit.chunk_id: hit for hit in [*lists.dense, *lists.lexical]}
    talked = _weighted(by_conversations, total)
    own = _weighted(by_rows, total)
    scores: dict[str, float] = {}
    for key in known.keys() | {chunk_id(doc, 0) for doc in talked}:
        hit = known.get(key)
        alone = hit is not None and (hit.kind != "message" or not hit.channel_id)
        doc = hit.doc_id if hit is not None else key.removesuffix("#0")
        said = own.get(key, 0.0) if alone else talked.get(doc, 0.0)
        scores[key] = (own.get(key, 0.0) + weights.conversation * said) / (1 + weights.conversation)
    ranked = sorted(scores, key=lambda key: (-scores[key], key))
    # Of what only conversations name a few may be gone, or may not be shown: more are read than are needed.
    unread = [key for key in ranked[: 2 * k] if key not in known]
    known |= {hit.chunk_id: hit for hit in fetch(unread)} if unread else {}
    return [replace(known[key], score=scores[key]) for key in ranked if key in known][:k]


def _spread(conversations: Sequence[Hit], scores: Mapping[str, float]) -> dict[str, float]:
    """The score of the best conversation by each document that it holds."""
    found: dict[str, float] = {}
    for hit in reversed(conversations):  # the best last, and it stays
        found |= dict.fromkeys(members(hit), scores[hit.chunk_id])
    return found


def _weighted(parts: Sequence[tuple[float, Mapping[str, float]]], total: float) -> dict[str, float]:
    """The weighted mean of scores by key, where a missing one is 0."""
    found: dict[str, float] = {}
    for weight, scores in parts:
        for key, score in scores.items():
            found[key] = found.get(key, 0.0) + weight * score / total
    return found
