"""Asking the questions of a golden set and scoring the answers, question by question."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from embedding.errors import EncoderError
from embedding.ids import document_ids
from jobs.config_sections import SearchMode
from jobs.relevance.golden import Question
from jobs.relevance.metrics import (
    CUT,
    Floats,
    Mask,
    distinct_documents,
    gains_of,
    ideal_dcg,
    ndcg,
    recall,
    reciprocal_rank,
)
from jobs.search.searcher import BATCH, Query, Searcher

if TYPE_CHECKING:
    from jobs.search.searcher import Vectors
    from jobs.state.store import State
    from jobs.telemetry.progress import Progress

METRICS = ("ndcg", "recall", "mrr")
MOST_HITS = 1_024  # of one search, asked for so that documents of many chunks do not crowd out others


@dataclass(frozen=True, slots=True)
class Held:
    """What the index holds of a document, by the ledger: its kind and when it was created (µs since 1970)."""

    kind: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Measured:
    """Scores of each question in one mode, shape (questions,): at 10, and recall at the k that was asked for too."""

    ndcg: Floats
    recall: Floats
    mrr: Floats
    recall_at_k: Floats

    def columns(self, rows: Mask) -> Floats:
        """Metrics of some questions (a mask), in the order of METRICS; shape (questions of the mask, 3)."""
        return np.stack([self.ndcg, self.recall, self.mrr], axis=1)[rows]


def held_documents(state: State, version: str, questions: Sequence[Question]) -> dict[str, Held]:
    """Which of the relevant documents a version holds. Streams the ledger of their teams, keeps what was asked for."""
    wanted = {doc_id for question in questions for doc_id in question.relevant}
    teams = sorted({question.team for question in questions})
    ledger = state.dataset("published", [("index", "=", version), ("team_id", "in", teams)])
    found: dict[str, Held] = {}
    for ours in ledger.to_batches(columns=["chunk_id", "kind", "created_at"]):
        documents = document_ids(ours["chunk_id"])
        rows = zip(documents.to_pylist(), ours["kind"].to_pylist(), ours["created_at"].to_pylist(), strict=True)
        found |= {doc_id: Held(kind, created) for doc_id, kind, created in rows if doc_id in wanted}
    return found


def measure(
    searcher: Searcher, questions: Sequence[Question], modes: Sequence[SearchMode], k: int, progress: Progress
) -> dict[SearchMode, Measured]:
    """Ask every question in every mode for ``max(k, 10)`` documents. Each question is encoded once."""
    depth = max(k, CUT)
    gains = {mode: np.zeros((len(questions), depth)) for mode in modes}
    with progress.phase(f"asking {len(questions):,} questions of {searcher.version}"):
        for start in range(0, len(questions), BATCH):
            batch = questions[start : start + BATCH]
            vectors = searcher.encode([question.query for question in batch], modes)
            for row, (question, vector) in enumerate(zip(batch, vectors, strict=True), start):
                for mode in modes:
                    ranked = ranked_documents(searcher, question, vector, mode, depth)
                    gains[mode][row] = gains_of(ranked, question.relevant, depth)
    ideal = np.array([ideal_dcg(q.relevant.values()) for q in questions])
    relevant = np.array([sum(grade > 0 for grade in q.relevant.values()) for q in questions], np.float64)
    return {mode: _scored(gains[mode], ideal, relevant, k) for mode in modes}


def _scored(gains: Floats, ideal: Floats, relevant: Floats, k: int) -> Measured:
    return Measured(ndcg(gains, ideal), recall(gains, relevant), reciprocal_rank(gains), recall(gains, relevant, k))


def ranked_documents(
    searcher: Searcher, question: Question, vector: Vectors, mode: SearchMode, depth: int
) -> list[str]:
    """The first ``depth`` different documents, each at the rank of its best chunk; none for what has no vector."""
    query = Query(question.query, question.team, question.channels, k=depth, mode=mode)
    most = depth if searcher.reranking is None else searcher.reranking.wanted(depth)
    while True:
        try:
            hits = searcher.hits(query, vector, most)
        except EncoderError:
            return []
        enough = len(distinct_documents((hit.doc_id for hit in hits), depth)) == depth
        if enough or len(hits) < most or most >= MOST_HITS:
            return distinct_documents((hit.doc_id for hit in searcher.rerank(query, hits).hits), depth)
        most = min(MOST_HITS, 2 * most)


def answerable(questions: Sequence[Question], held: Collection[str]) -> Floats:
    """Share of each question's relevant documents that the index holds; NaN where it names none; shape (questions,)."""
    shares = []
    for question in questions:
        wanted = [doc_id for doc_id, grade in question.relevant.items() if grade > 0]
        shares.append(sum(doc_id in held for doc_id in wanted) / len(wanted) if wanted else np.nan)
    return np.array(shares, np.float64)
