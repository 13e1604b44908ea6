"""The gate's question on relevance: does a new version answer the golden set as well as the live one?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embedding.errors import ConfigError
from jobs.config_sections import SearchMode
from jobs.pipeline import Pipeline
from jobs.relevance.golden import GoldenSet, read_golden
from jobs.relevance.measure import answerable, held_documents, measure
from jobs.relevance.metrics import CUT, Floats
from jobs.search.searcher import Query, open_searcher


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

    A live version without that mode is asked by vectors, as its users are. One that cannot be asked at all (its model
    is not here any more) lets nothing pass: without its figure nothing says that answers do not get worse.
    """
    mode, most = pipeline.config.search.mode, pipeline.config.gate.max_ndcg_drop
    try:
        new, _ = _ndcg(pipeline, golden, version, [mode])
    except ConfigError as error:
        return Drop(False, 0.0, None, 0, f"{version} cannot be asked: {error}")
    mean = _mean(new)
    if live is None:
        return Drop(True, mean, None, len(new), f"{100 * mean:.1f} % of {golden.name} ({mode}); no version is live yet")
    try:
        old, found = _ndcg(pipeline, golden, live, [mode, "dense"])
    except ConfigError as error:
        fix = "the alias stays; to move it without the comparison, leave gate.golden out"
        return Drop(False, mean, None, len(new), f"{live} cannot be asked: {error}; {fix}")
    asked = ~(np.isnan(new) & np.isnan(old))
    if not asked.any():
        return Drop(False, 0.0, 0.0, 0, f"no question of {golden.name} has a relevant document in either version")
    count, after, before = int(asked.sum()), _mean(new[asked]), _mean(old[asked])
    modes = mode if found == mode else f"{mode}, and {found} there"
    said = f"{100 * after:.1f} % in {version}, {100 * before:.1f} % in {live} over {count:,} questions ({modes})"
    return Drop(after >= before - most, after, before, count, f"{said}; may fall by {100 * most:g}")


def _mean(values: Floats) -> float:
    return float(np.nan_to_num(values).mean())


def _ndcg(
    pipeline: Pipeline, golden: GoldenSet, version: str, modes: Sequence[SearchMode]
) -> tuple[Floats, SearchMode]:
    """nDCG@10 of each question in the first of the modes that the version has, and that mode.

    NaN where the version holds none of a question's documents; shape (questions,). Raises ConfigError for a version
    that has none of the modes.
    """
    questions, first = golden.questions, golden.questions[0]
    with open_searcher(pipeline, version) as searcher:
        refused = ""
        for mode in modes:
            refused = searcher.refusal(Query(first.query, first.team, first.channels, mode=mode))
            if not refused:
                shares = answerable(questions, held_documents(pipeline.state, version, questions))
                found = measure(searcher, questions, [mode], CUT, pipeline.progress)[mode].ndcg
                return np.where(shares > 0, found, np.nan), mode
    raise ConfigError(refused)
