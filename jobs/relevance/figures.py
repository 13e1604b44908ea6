"""Figures for people and machines, made from the scores of single questions. Pure: arrays in, bodies out."""

from __future__ import annotations

import numpy as np

from jobs.bodies.evaluation import DifferenceBody, Differences, Interval, Intervals, PerQuery, Scores
from jobs.relevance.comparison import Difference, compare
from jobs.relevance.measure import METRICS, Measured
from jobs.relevance.metrics import CUT, Floats, Mask, bootstrap

_DIGITS = 6


def scores(measured: Measured, rows: Mask, k: int) -> Scores:
    """Means and intervals over some questions (a mask); no interval where there is none."""
    columns = measured.columns(rows)
    at_k = {str(k): _rounded(measured.recall_at_k[rows].mean() if rows.any() else 0.0)} if k != CUT else None
    if not len(columns):
        return Scores(queries=0, ndcg=0.0, recall=0.0, mrr=0.0, recall_at=at_k)
    low, high = bootstrap(columns)
    of = {name: (_rounded(low[n]), _rounded(high[n])) for n, name in enumerate(METRICS)}
    means = {name: _rounded(columns[:, n].mean()) for n, name in enumerate(METRICS)}
    return Scores(queries=len(columns), **means, recall_at=at_k, intervals=Intervals(**of))


def per_query(measured: Measured, rows: Mask) -> PerQuery:
    """Values of every question; null for those outside the mask."""
    found = masked(measured, rows)
    columns = [tuple(None if np.isnan(v) else v for v in found[:, n].tolist()) for n in range(len(METRICS))]
    return PerQuery(ndcg=columns[0], recall=columns[1], mrr=columns[2])


def differences(before: Floats, after: Floats) -> Differences:
    """Compare two systems over the same questions, shape (questions, 3) each, columns as in METRICS.

    A question that is in no figure of one of them (NaN) scores 0 there, one of neither is left out: a system that lost
    a document is worse for it.
    """
    either = ~(np.isnan(before[:, 0]) & np.isnan(after[:, 0]))
    old, new = np.nan_to_num(before[either]), np.nan_to_num(after[either])
    found = [_body(compare(old[:, n], new[:, n])) for n in range(len(METRICS))]
    return Differences(ndcg=found[0], recall=found[1], mrr=found[2])


def masked(measured: Measured, rows: Mask) -> Floats:
    """Metrics of every question as columns, NaN outside the mask; shape (questions, 3).

    Rounded as in a saved answer: what one side alone is rounded by would be a difference in the same direction for
    every question, which any test takes for a real one.
    """
    everything = np.ones(len(rows), np.bool_)
    found: Floats = np.where(rows[:, None], measured.columns(everything), np.nan)
    return found.round(_DIGITS)


def _body(found: Difference) -> DifferenceBody:
    interval: Interval = (_rounded(found.low), _rounded(found.high))
    return DifferenceBody(
        queries=found.questions,
        before=_rounded(found.before),
        after=_rounded(found.after),
        difference=_rounded(found.difference),
        interval=interval,
        p_value=_rounded(found.p_value),
        verdict=found.verdict,
    )


def _rounded(value: float) -> float:
    return round(float(value), _DIGITS)
