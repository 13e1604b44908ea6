"""Service levels: what ``[slo]`` promises, and whether it is kept now. By the same values that Prometheus is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.bodies.answers import LevelBody
from jobs.metrics.collect import UNDER_WAY, collect, over_everything
from jobs.report import recorded
from jobs.run_details import kept_details

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

# By the key of [slo]: the series of what is, that of what is promised, and the unit of the key in theirs.
_LEVELS = {
    "lag_hours": ("lag_seconds", "lag_target_seconds", 3600.0),
    "coverage": ("coverage_ratio", "coverage_target_ratio", 1.0),
    "held_deletion_hours": ("oldest_held_deletion_seconds", "held_deletion_target_seconds", 3600.0),
}
_MOST_RUNS = 30  # that are looked at


def levels(pipeline: Pipeline) -> tuple[LevelBody, ...]:
    """The levels that are promised. One of which nothing is known, as before the first run, is missed."""
    now = _now(pipeline)
    if all(level.met for level in now):
        return now
    runs = _missed_by_runs(pipeline)
    return tuple(level.model_copy(update={"missed_runs": _first_without(level.name, runs)}) for level in now)


def missed(pipeline: Pipeline) -> list[str]:
    """The keys of the levels that are missed now."""
    return [level.name for level in _now(pipeline) if not level.met]


def _now(pipeline: Pipeline) -> tuple[LevelBody, ...]:
    if not pipeline.config.slo.model_fields_set:
        return ()
    found = {sample.name: sample.value for sample in collect(pipeline) if not sample.labels}
    told = []
    for name, (series, target, unit) in _LEVELS.items():
        if target in found:
            value, wanted = found.get(series), found[target]
            kept = value is not None and (value >= wanted if name == "coverage" else value <= wanted)
            shown = None if value is None else round(value / unit, 4)
            told.append(LevelBody(name=name, target=wanted / unit, value=shown, met=kept, missed_runs=0))
    return tuple(told)


def _missed_by_runs(pipeline: Pipeline) -> list[list[str]]:
    """What was missed when a run over everything ended, the newest run first, back to one that missed nothing."""
    runs = pipeline.state.read("runs", ["run_id", "command", "status", "started_at"])
    told: list[list[str]] = []
    for row in runs.sort_by([("started_at", "descending")]).to_pylist():
        if row["command"] != "run" or row["status"] in UNDER_WAY:
            continue
        report = recorded(pipeline.state, row["run_id"])
        if report is None or not over_everything(report):
            continue
        details = kept_details(pipeline.state.root, row["run_id"])
        if details is None or not details.missed:
            break
        told.append(details.missed)
        if len(told) == _MOST_RUNS:
            break
    return told


def _first_without(name: str, runs: list[list[str]]) -> int:
    return next((place for place, one in enumerate(runs) if name not in one), len(runs))
