"""The command ``status``: runs, lag, quarantine and deletions that are held back."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc

from jobs.bodies.answers import IndexState, LastRun, Quarantine, QuarantinedBody, StatusBody, Version
from jobs.extract.held_deletions import held_back
from jobs.metrics.levels import levels
from jobs.pipeline import Pipeline
from jobs.report import BEGUN
from jobs.scope import iso
from jobs.state.lease import holder
from jobs.state.state_id import state_id

_SHOWN = 20  # of what is in quarantine, the newest


def status(pipeline: Pipeline) -> StatusBody:
    """What is where: tables, index versions, alias, last runs, lag (seconds since the last good run), quarantine.

    ``held_back`` are deletions that wait, because a record that could not be read may be what is missing.
    """
    state, writing = pipeline.state, holder(pipeline.state.root)
    names = ("sources", "chunks", "removals", "vectors", "published", "quarantine", "runs")
    runs = state.read("runs").sort_by([("started_at", "descending")]).to_pylist()
    good = [r for r in runs if r["command"] == "run" and r["status"] in ("ok", "partial")]
    columns = ["source_id", "partition", "key", "reason", "detail", "first_seen", "last_seen", "ignored"]
    quarantine = state.read("quarantine", columns)
    listed = quarantine.select(["reason", "ignored"]).to_pylist()
    bad = quarantine.filter(pc.invert(pc.fill_null(quarantine["ignored"], False)))
    newest = bad.sort_by([("last_seen", "descending")]).slice(0, _SHOWN).to_pylist()
    reasons = Counter(r["reason"] for r in listed if not r["ignored"])
    ignored = Counter(r["reason"] for r in listed if r["ignored"])
    versions = []
    if pipeline.has_index():
        index = pipeline.index()
        versions = [
            Version(name=v, rows=index.count(v), space_id=index.space_of(v), owner=index.owner_of(v))
            for v in index.versions()
        ]
    return StatusBody(
        space_id=pipeline.space_id,
        state_id=state_id(state.root),
        tables={name: state.count(name) for name in names},
        index=IndexState(
            alias=pipeline.config.index.name,
            live=pipeline.index().live() if versions else None,
            versions=tuple(versions),
        ),
        last_runs=tuple(
            LastRun(
                run_id=r["run_id"],
                command=r["command"],
                status=_status(r["status"], r["run_id"] == writing),
                started_at=iso(r["started_at"]),
            )
            for r in runs[:5]
        ),
        lag_seconds=round(time.time() - good[0]["started_at"] / 1e6, 1) if good else None,
        quarantine=Quarantine(
            total=reasons.total(),
            reasons=dict(sorted(reasons.items())),
            ignored=dict(sorted(ignored.items())),
            newest=tuple(map(_quarantined, newest)),
        ),
        held_back=tuple(one.body() for one in held_back(state)),
        levels=levels(pipeline),
    )


def _quarantined(row: Mapping[str, Any]) -> QuarantinedBody:
    return QuarantinedBody(
        source_id=row["source_id"],
        partition=row["partition"],
        key=row["key"],
        reason=row["reason"],
        detail=row["detail"] or "",
        first_seen=iso(row["first_seen"]),
    )


def _status(said: str, holds_lease: bool) -> str:
    """Of a run that has not said how it ended: "running" while it holds the lease, else "killed"."""
    if said != BEGUN:
        return said
    return "running" if holds_lease else "killed"
