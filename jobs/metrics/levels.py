"""Service levels: what ``[slo]`` promises, and whether it is kept now. By the same values that Prometheus is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.bodies.answers import LevelBody
from jobs.metrics.collect import collect

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

# By the key of [slo]: the series of what is, that of what is promised, and the unit of the key in theirs.
_LEVELS = {
    "lag_hours": ("lag_seconds", "lag_target_seconds", 3600.0),
    "coverage": ("coverage_ratio", "coverage_target_ratio", 1.0),
    "held_deletion_hours": ("oldest_held_deletion_seconds", "held_deletion_target_seconds", 3600.0),
}


def levels(pipeline: Pipeline) -> tuple[LevelBody, ...]:
    """The levels that are promised. One of which nothing is known, as before the first run, is missed."""
    if not pipeline.config.slo.model_fields_set:
        return ()
    found = {sample.name: sample.value for sample in collect(pipeline) if not sample.labels}
    told = []
    for name, (series, target, unit) in _LEVELS.items():
        if target in found:
            value, wanted = found.get(series), found[target]
            kept = value is not None and (value >= wanted if name == "coverage" else value <= wanted)
            shown = None if value is None else round(value / unit, 4)
            told.append(LevelBody(name=name, target=wanted / unit, value=shown, met=kept))
    return tuple(told)
