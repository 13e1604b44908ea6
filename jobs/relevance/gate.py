"""The gate's question on relevance: does a new version answer the golden set as well as the live one?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedding.errors import ConfigError
from jobs.pipeline import Pipeline
from jobs.relevance.golden import GoldenSet, read_golden
from jobs.relevance.measure import answerable, held_documents, measure
from jobs.relevance.metrics import Floats
from jobs.search.searcher import open_searcher


@dataclass(frozen=True, slots=True)
class Drop:
    """nDCG@10 of both versions over the same ``questions``; ``live`` is None where it has no figure."""

    passed: bool
    new: float
    live: float | None
    questions: int
    detail: str


def gate_golden(pipeline: Pipeline) -> GoldenSet | None:
    """The golden set of [gate], None where it names none. Raises ConfigError for one that cannot be read."""
    name = pipeline.config.gate.golden
    return read_golden(pipeline.config.path(name)) if name else None


def relevance_drop(pipeline: Pipeline, golden: GoldenSet, version: str, live: str | None) -> Drop:
    """Ask both versions in the configured mode, and decide by ``gate.max_ndcg_drop``.

    A live version that cannot be asked (its model is not here any more) lets nothing pass: without its figure nothing
    says that answers do not get worse.
    """
    mode, most = pipeline.config.search.mode, pipeline.config.gate.max_ndcg_drop
    new = _ndcg(pipeline, golden, version)
    if live is None:
        mean = float(np.nan_to_num(new).mean())
        return Drop(True, mean, None, len(new), f"{100 * mean:.1f} % of {golden.name} ({mode}); no version is live yet")
    try:
        old = _ndcg(pipeline, golden, live)
    except ConfigError as error:
        mean = float(np.nan_to_num(new).mean())
        fix = "the alias stays; to move it without the comparison, leave gate.golden out"
        return Drop(False, mean, None, len(new), f"{live} cannot be asked: {error}; {fix}")
    asked = ~(np.isnan(new) & np.isnan(old))
    if not asked.any():
        return Drop(False, 0.0, 0.0, 0, f"no question of {golden.name} has a relevant document in either version")
    after, before = float(np.nan_to_num(new[asked]).mean()), float(np.nan_to_num(old[asked]).mean())
    said = (
        f"{100 * after:.1f} % in {version}, {100 * before:.1f} % in {live} over {int(asked.sum()):,} questions ({mode})"
    )
    return Drop(after >= before - most, after, before, int(asked.sum()), f"{said}; may fall by {100 * most:g}")


def _ndcg(pipeline: Pipeline, golden: GoldenSet, version: str) -> Floats:
    """nDCG@10 of each question, NaN where the version holds none of its documents; shape (questions,)."""
    mode = pipeline.config.search.mode
    with open_searcher(pipeline, version) as searcher:
        shares = answerable(golden.questions, held_documents(pipeline.state, version, golden.questions))
        found = measure(searcher, golden.questions, [mode], 10, pipeline.progress)[mode].ndcg
    return np.where(shares > 0, found, np.nan)
