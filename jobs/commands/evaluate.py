"""The command ``evaluate``: ask a golden set of a version, and compare the answers with those of another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from embedding.errors import ConfigError
from indexers.base import version_number
from jobs.bodies.evaluation import Against, Differences, EvaluateBody, Golden, PerQueries, RerankBody
from jobs.config_sections import SearchMode
from jobs.pipeline import Pipeline
from jobs.relevance.figures import differences, masked, per_query, scores
from jobs.relevance.golden import GoldenSet
from jobs.relevance.measure import Held, Measured, answerable, held_documents, measure
from jobs.relevance.metrics import Floats, Mask
from jobs.relevance.saved import read_saved
from jobs.relevance.slices import slices_of
from jobs.search.searcher import Query, Searcher, open_searcher

MODES: tuple[SearchMode, ...] = ("dense", "lexical", "hybrid")


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of an evaluation.

    ``index`` and ``against`` are versions, ``against`` also the file of an earlier answer. ``mode`` None measures all.
    """

    index: str | None = None
    against: str | None = None
    k: int = 10
    mode: SearchMode | None = None
    rerank: bool = True
    text: bool = False


@dataclass(frozen=True, slots=True)
class _Answers:
    """What one version answered. ``rows`` marks the questions that its figures are of."""

    version: str
    space_id: str
    held: dict[str, Held]
    shares: Floats
    rows: Mask
    modes: dict[SearchMode, Measured]
    unavailable: dict[str, str]
    rerank: RerankBody | None


def evaluate(pipeline: Pipeline, golden: GoldenSet, asked: Asked) -> EvaluateBody:
    """Measure the live version, or the one of ``asked.index``, in every mode that it has.

    Raises ConfigError where no question has a relevant document in the index, where the mode that is asked for is not
    there, and for a version whose model the configuration cannot give.
    """
    mode = asked.mode or pipeline.config.search.mode
    found = _ask(pipeline, golden, asked, asked.index)
    if mode not in found.modes:
        raise ConfigError(f"--mode: {found.version} cannot be asked in mode {mode}: {found.unavailable[mode]}")
    questions, shares = golden.questions, found.shares
    return EvaluateBody(
        index=found.version,
        space_id=found.space_id,
        mode=mode,
        golden=Golden(
            name=golden.name,
            digest=golden.digest,
            questions=len(questions),
            weak=golden.weak,
            not_in_index=int((shares == 0).sum()),
            partly_in_index=int(((shares > 0) & (shares < 1)).sum()),
            without_relevant=int(np.isnan(shares).sum()),
        ),
        overall=scores(found.modes[mode], found.rows, asked.k),
        modes={name: scores(measured, found.rows, asked.k) for name, measured in found.modes.items()},
        unavailable=found.unavailable,
        slices={
            name: {label: scores(found.modes[mode], mask & found.rows, asked.k) for label, mask in groups.items()}
            for name, groups in slices_of(questions, found.held).items()
        },
        rerank=found.rerank,
        against=_compared(pipeline, golden, asked, found, mode) if asked.against else None,
        per_query=PerQueries(
            ids=tuple(question.id for question in questions),
            texts=tuple(question.query for question in questions) if asked.text else None,
            modes={name: per_query(measured, found.rows) for name, measured in found.modes.items()},
        ),
    )


def _ask(pipeline: Pipeline, golden: GoldenSet, asked: Asked, version: str | None) -> _Answers:
    questions = golden.questions
    with open_searcher(pipeline, version, rerank=asked.rerank) as searcher:
        held = held_documents(pipeline.state, searcher.version, questions)
        shares = answerable(questions, held)
        if not (shares > 0).any():
            raise ConfigError(
                f"{golden.name}: no question has a relevant document in {searcher.version}; compare its ids with the "
                "doc_id of `embedmill search --json`, and see --doc-id for a BEIR folder"
            )
        modes, unavailable = _available(searcher, golden, [asked.mode] if asked.mode else MODES)
        measured = measure(searcher, questions, modes, asked.k, pipeline.progress)
        reranking = searcher.reranking
        rerank = reranking and RerankBody(
            name=reranking.name, asked=reranking.asked, failed=reranking.failed, reason=reranking.reason or None
        )
        return _Answers(
            searcher.version, searcher.space_id, held, shares, shares > 0, measured, unavailable, rerank or None
        )


def _available(
    searcher: Searcher, golden: GoldenSet, modes: Sequence[SearchMode]
) -> tuple[list[SearchMode], dict[str, str]]:
    """The modes that the version has, and why it lacks the others."""
    first = golden.questions[0]
    refused = {mode: searcher.refusal(Query(first.query, first.team, first.channels, mode=mode)) for mode in modes}
    return [mode for mode in modes if not refused[mode]], {mode: why for mode, why in refused.items() if why}


def _compared(pipeline: Pipeline, golden: GoldenSet, asked: Asked, found: _Answers, mode: SearchMode) -> Against:
    """The answers in ``found`` beside those of ``asked.against``, in the modes that both have."""
    against = asked.against or ""
    if version_number(pipeline.config.index.name, against) is not None:
        other = _ask(pipeline, golden, asked, against)
        file, version, space_id = None, other.version, other.space_id
        before = {name: masked(measured, other.rows) for name, measured in other.modes.items()}
    else:
        saved = read_saved(Path(against), golden.digest)
        file, version, space_id = Path(against).name, saved.index, saved.space_id
        before = {name: saved.columns(name) for name in MODES if name in saved.per_query.modes}
    if mode not in before:
        raise ConfigError(f"--against: {against} has no answers in mode {mode}; choose another with --mode")
    modes: dict[str, Differences] = {
        name: differences(before[name], masked(measured, found.rows))
        for name, measured in found.modes.items()
        if name in before
    }
    return Against(
        index=version, space_id=space_id, file=file, mode=mode, verdict=modes[mode].ndcg.verdict, modes=modes
    )
