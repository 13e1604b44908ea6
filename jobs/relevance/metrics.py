"""nDCG, recall and MRR of ranked documents, by trec_eval's definitions, and their bootstrap intervals.

Pure: arrays in, arrays out. A question is a row of ``gains``, the grades of the documents at its ranks, best first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

CUT = 10  # of nDCG and MRR, and the recall that is always given
RESAMPLES = 2_000
LEVEL = 0.95
SEED = 20_261_128
_CELLS = 4_000_000  # of one block of resamples: 32 MB


def distinct_documents(doc_ids: Iterable[str], most: int) -> list[str]:
    """The first ``most`` different documents, each at its best rank."""
    found = dict.fromkeys(doc_ids)
    return list(found)[:most]


def gains_of(ranked: Sequence[str], relevant: Mapping[str, int], depth: int) -> Floats:
    """Grades of the first ``depth`` documents, 0 for one that is not relevant; shape (depth,)."""
    gains = np.zeros(depth)
    gains[: len(ranked[:depth])] = [relevant.get(doc_id, 0) for doc_id in ranked[:depth]]
    return gains


def ideal_dcg(grades: Iterable[int], cut: int = CUT) -> float:
    """The DCG of the best possible order: what divides a DCG into nDCG; 0 where nothing is relevant."""
    best = np.sort(np.fromiter(grades, np.float64))[::-1][:cut]
    return float(best @ _discounts(len(best)))


def ndcg(gains: Floats, ideal: Floats, cut: int = CUT) -> Floats:
    """Return nDCG at ``cut``, trec_eval's ``ndcg_cut``: the gain is the grade, the discount log2(rank + 1).

    Args:
        gains: shape (questions, depth), depth at least ``cut``.
        ideal: ``ideal_dcg`` of each question, shape (questions,).
        cut: ranks that count.

    Returns:
        Shape (questions,); 0 where nothing is relevant.
    """
    got = gains[:, :cut] @ _discounts(cut)
    return np.divide(got, ideal, out=np.zeros(len(got)), where=ideal > 0)


def recall(gains: Floats, relevant: Floats, cut: int = CUT) -> Floats:
    """Share of the relevant documents among the first ``cut``. ``relevant`` is their number, shape (questions,)."""
    found = (gains[:, :cut] > 0).sum(axis=1).astype(np.float64)
    return np.divide(found, relevant, out=np.zeros(len(found)), where=relevant > 0)


def reciprocal_rank(gains: Floats, cut: int = CUT) -> Floats:
    """1 / rank of the first relevant document among the first ``cut``, 0 where there is none; shape (questions,)."""
    hit = gains[:, :cut] > 0
    first = hit.argmax(axis=1)
    return np.where(hit.any(axis=1), 1.0 / (first + 1.0), 0.0)


def bootstrap(values: Floats, level: float = LEVEL, *, seed: int = SEED, resamples: int = RESAMPLES) -> Floats:
    """Percentile intervals of the means, by drawing questions with replacement.

    Args:
        values: shape (questions, columns).
        level: share of the resampled means that lie inside.
        seed: of the draws; the same seed and shape draw the same questions.
        resamples: how many means are drawn.

    Returns:
        Low and high, shape (2, columns); NaN where there is no question.
    """
    if not len(values):
        return np.full((2, values.shape[1]), np.nan)
    means = np.concatenate(list(_resampled(values, seed, resamples)))
    tail = (1.0 - level) / 2.0
    return np.quantile(means, [tail, 1.0 - tail], axis=0)


def _resampled(values: Floats, seed: int, resamples: int) -> Iterator[Floats]:
    random, count = np.random.default_rng(seed), len(values)
    block = max(1, _CELLS // count)
    for start in range(0, resamples, block):
        rows = random.integers(0, count, size=(min(block, resamples - start), count))
        # How often each question was drawn, times the values: one product for all columns.
        drawn = np.stack([np.bincount(row, minlength=count) for row in rows])
        yield drawn @ values / count


def _discounts(cut: int) -> Floats:
    return 1.0 / np.log2(np.arange(2, cut + 2, dtype=np.float64))
