"""The metrics are those of other implementations, and their intervals hold the mean as often as they say."""

from __future__ import annotations

import numpy as np
import pytest

from jobs.relevance.metrics import (
    Floats,
    bootstrap,
    distinct_documents,
    gains_of,
    ideal_dcg,
    ndcg,
    recall,
    reciprocal_rank,
)

RANDOM = np.random.default_rng(3)
CORPUS = [f"d{n:02}" for n in range(30)]
QUESTIONS = 40


def scored(ranked: list[list[str]], relevant: list[dict[str, int]], k: int = 10) -> tuple[Floats, Floats, Floats]:
    gains = np.stack([gains_of(documents, grades, 20) for documents, grades in zip(ranked, relevant, strict=True)])
    ideal = np.array([ideal_dcg(grades.values()) for grades in relevant])
    known = np.array([sum(grade > 0 for grade in grades.values()) for grades in relevant], np.float64)
    return ndcg(gains, ideal), recall(gains, known, k), reciprocal_rank(gains)


def system() -> list[list[str]]:
    return [[CORPUS[n] for n in RANDOM.permutation(len(CORPUS))[:20]] for _ in range(QUESTIONS)]


def judged(highest: int) -> list[dict[str, int]]:
    picked = [RANDOM.permutation(len(CORPUS))[: RANDOM.integers(1, 14)] for _ in range(QUESTIONS)]
    return [{CORPUS[n]: int(RANDOM.integers(1, highest + 1)) for n in some} for some in picked]


def test_without_grades_they_are_those_of_sentence_transformers() -> None:
    from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

    ranked, relevant = system(), judged(1)
    names = [f"q{n}" for n in range(QUESTIONS)]
    theirs = InformationRetrievalEvaluator(
        dict.fromkeys(names, ""),
        dict.fromkeys(CORPUS, ""),
        dict(zip(names, map(set, relevant), strict=True)),
        precision_recall_at_k=[10, 15],
        write_csv=False,
    ).compute_metrics([[{"corpus_id": d, "score": -n} for n, d in enumerate(documents)] for documents in ranked])
    for k in (10, 15):
        found = [values.mean() for values in scored(ranked, relevant, k)]
        assert found == pytest.approx([theirs["ndcg@k"][10], theirs["recall@k"][k], theirs["mrr@k"][10]])


def test_with_grades_ndcg_is_that_of_scikit_learn() -> None:
    """Which knows no cut-off of its own ideal order but k, and takes the gain to be the grade, as trec_eval does."""
    from sklearn.metrics import ndcg_score

    ranked, relevant = system(), judged(4)
    truth = [[grades.get(document, 0) for document in CORPUS] for grades in relevant]
    order = [
        [20 - documents.index(document) if document in documents else 0 for document in CORPUS] for documents in ranked
    ]
    theirs = ndcg_score(truth, np.where(np.array(order) > 10, order, -np.inf).clip(-1), k=10, ignore_ties=True)
    assert scored(ranked, relevant)[0].mean() == pytest.approx(theirs)


def test_a_few_by_hand() -> None:
    relevant = {"a": 2, "b": 1, "hidden": 0}
    best, worse, none, hidden = scored([["a", "b"], ["x", "a"], ["x", "y"], ["hidden", "x"]], [relevant] * 4)[
        0
    ].tolist()
    assert (best, none, hidden) == (1.0, 0.0, 0.0)
    assert worse == pytest.approx((2 / np.log2(3)) / (2 + 1 / np.log2(3)))
    values = scored([["x", "a"], ["x", "b", "a"], []], [relevant] * 3)
    assert values[1].tolist() == [0.5, 1.0, 0.0] and values[2].tolist() == [0.5, 0.5, 0.0]


def test_a_document_counts_once_at_its_best_rank() -> None:
    assert distinct_documents(["a", "b", "a", "b", "c", "d"], 3) == ["a", "b", "c"]


def test_a_relevant_document_below_the_cut_is_not_found() -> None:
    ranked = [[f"x{n}" for n in range(10)] + ["a"]]
    assert [values.tolist() for values in scored(ranked, [{"a": 1}])] == [[0.0], [0.0], [0.0]]
    assert scored(ranked, [{"a": 1}], 11)[1].tolist() == [1.0]


def test_an_interval_holds_the_mean_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(11)
    inside = 0
    for seed in range(200):
        [low], [high] = bootstrap(random.beta(2, 3, size=(60, 1)), seed=seed, resamples=400)
        inside += low <= 0.4 <= high
    assert 0.90 <= inside / 200 <= 0.99


def test_an_interval_is_the_same_each_time() -> None:
    values = np.random.default_rng(1).random((50, 3))
    assert np.array_equal(bootstrap(values), bootstrap(values))
    assert np.isnan(bootstrap(np.zeros((0, 3)))).all()
