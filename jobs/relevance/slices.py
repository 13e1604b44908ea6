"""Slices of a golden set: groups of its questions by what their answers or they themselves are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from embedding.text.language import languages_of
from jobs.relevance.golden import Question
from jobs.relevance.measure import Held
from jobs.relevance.metrics import Mask

_DAY = 86_400_000_000  # µs
_WORDS = ((3, "1-3 words"), (8, "4-8 words"), (16, "9-16 words"))
_AGES = ((7, "0-7 days"), (30, "8-30 days"), (180, "31-180 days"), (365, "181-365 days"))


def slices_of(questions: Sequence[Question], held: Mapping[str, Held]) -> dict[str, dict[str, Mask]]:
    """Masks of the questions (bool, shape (questions,)) by slice and group, groups in a fixed order.

    ``kind`` and ``age`` are of the relevant documents that the index holds; age is that of the newest of them, counted
    back from the newest in the whole set, so that a slice holds the same questions every day. ``language`` is that of
    the question (ISO 639-1), "unsure" of a few words.
    """
    newest = max((one.created_at for one in held.values()), default=0)
    groups = {
        "kind": [_kind(q, held) for q in questions],
        "age": [_age(q, held, newest) for q in questions],
        "length": [_group(len(q.query.split()), _WORDS, "17 words and more") for q in questions],
        "language": [code or "unsure" for code in languages_of([q.query for q in questions])],
    }
    if any(q.category is not None for q in questions):
        groups["category"] = [q.category if q.category is not None else "none" for q in questions]
    order = {label: place for place, (_, label) in enumerate((*_AGES, *_WORDS))}
    found: dict[str, dict[str, Mask]] = {}
    for name, labels in groups.items():
        known = sorted({label for label in labels if label}, key=lambda label: (order.get(label, len(order)), label))
        found[name] = {label: np.array([one == label for one in labels]) for label in known}
    return found


def _kind(question: Question, held: Mapping[str, Held]) -> str:
    kinds = {held[d].kind for d, grade in question.relevant.items() if grade > 0 and d in held}
    return kinds.pop() if len(kinds) == 1 else "several" if kinds else ""


def _age(question: Question, held: Mapping[str, Held], newest: int) -> str:
    created = [held[d].created_at for d, grade in question.relevant.items() if grade > 0 and d in held]
    return _group((newest - max(created)) // _DAY, _AGES, "over 365 days") if created else ""


def _group(value: int, groups: Sequence[tuple[int, str]], rest: str) -> str:
    return next((label for limit, label in groups if value <= limit), rest)
