"""What a plan will cost: seconds of encoding, and dollars."""

from __future__ import annotations

import json

from jobs.config_sections import Model
from jobs.plan.plan import Plan
from jobs.state.store import State

DEFAULT_TOKENS_PER_SECOND = 4_500  # sentence-transformers on two cores; replaced by what the last run measured


def estimate(state: State, model: Model, made: Plan) -> dict[str, float]:
    """What closing a plan would take: ``seconds`` of encoding and ``usd``, from the last run's speed and the prices."""
    seconds = made.tokens / step_tokens_per_second(state)
    usd = seconds / 3600 * model.usd_per_hour
    usd += made.tokens / 1e6 * model.remote.usd_per_million_tokens if model.remote else 0.0
    return {"seconds": round(seconds, 1), "usd": round(usd, 4)}


def step_tokens_per_second(state: State) -> float:
    """Of the last run that encoded enough to tell, by its whole step ``embed``, the start of engines included.

    That is what is paid for; the speed of encoding alone is ``RunReport.tokens_per_second``.
    """
    runs = state.read("runs", ["started_at", "report"]).sort_by([("started_at", "descending")])
    for row in runs.to_pylist():
        report = json.loads(row["report"])
        if report["tokens"]["embedded"] > 10_000 and report["seconds"]["embed"] > 0:
            return float(report["tokens"]["embedded"] / report["seconds"]["embed"])
    return DEFAULT_TOKENS_PER_SECOND
