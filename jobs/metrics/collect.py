"""The values of the series, all of them from the state: nothing has to be remembered between two commands."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow.compute as pc

from jobs.bodies.base import ScopeBody
from jobs.bodies.run import RunReport
from jobs.extract.held_deletions import held_back
from jobs.maintenance.compact import sizes
from jobs.report import BEGUN
from jobs.state.lease import holder

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

DAY = 86_400.0
MONTH = 30 * DAY
GOOD = ("ok", "partial")

_EVERYTHING = ScopeBody()
ENOUGH_TOKENS = 10_000  # that a run must encode to tell a speed
_REPORTS = 500  # newest runs whose reports are read: 30 days of one an hour take 720, most of which encode little


class Sample(NamedTuple):
    """One value of a series, with the values of its labels in their order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ran:
    """A run: times in seconds since 1970; ``report`` is None of one that is under way or was killed."""

    run_id: str
    command: str
    status: str
    started: float
    finished: float
    report: RunReport | None


def collect(pipeline: Pipeline, *, lease_refused: bool = False, now: float | None = None) -> Iterator[Sample]:
    """Every value that can be told. Cost: the newest runs, the quarantine, the logs of the tables."""
    now = time.time() if now is None else now
    config, runs = pipeline.config, _runs(pipeline)
    yield Sample("info", 1, (_version(), pipeline.space_id, config.index.name))
    yield Sample("lease_refused", float(lease_refused))
    yield from _of_runs(runs, holder(pipeline.state.root), now)
    yield from _of_speed([ran for ran in runs if ran.started > now - MONTH], config.model.usd_per_hour, now)
    yield from _of_state(pipeline, now)
    targets = config.slo
    for name, target in (
        ("lag_target_seconds", None if targets.lag_hours is None else targets.lag_hours * 3600),
        ("coverage_target_ratio", targets.coverage),
        (
            "held_deletion_target_seconds",
            None if targets.held_deletion_hours is None else targets.held_deletion_hours * 3600,
        ),
    ):
        if target is not None:
            yield Sample(name, target)


# -- runs --------------------------------------------------------------------------------------------------------------


def _runs(pipeline: Pipeline) -> list[_Ran]:
    """The newest runs, the newest first."""
    told = pipeline.state.read("runs", ["run_id", "command", "status", "started_at", "finished_at", "report"])
    order = pc.sort_indices(told, sort_keys=[("started_at", "descending")])
    rows: list[Mapping[str, Any]] = told.take(order[:_REPORTS]).to_pylist()
    return [
        _Ran(
            row["run_id"],
            row["command"],
            row["status"],
            row["started_at"] / 1e6,
            row["finished_at"] / 1e6,
            None if row["status"] == BEGUN else RunReport.model_validate_json(row["report"], extra="ignore"),
        )
        for row in rows
    ]


def _of_runs(runs: Sequence[_Ran], writing: str, now: float) -> Iterator[Sample]:
    recent = [ran for ran in runs if ran.started > now - MONTH]
    killed = Counter(ran.command for ran in recent if ran.status == BEGUN and ran.run_id != writing)
    failed = Counter((ran.command, _error(ran)) for ran in recent if ran.status == "failed")
    yield from (Sample("failed_runs", count, at) for at, count in failed.items())
    for command in sorted({ran.command for ran in runs}):
        ours = [ran for ran in runs if ran.command == command]
        yield Sample("killed_runs", killed[command], (command,))
        if good := [ran for ran in ours if ran.status in GOOD]:
            yield Sample("last_success_timestamp_seconds", good[0].started, (command,))
        ended = [ran for ran in ours if ran.report is not None]
        if ended:
            yield Sample("last_finish_timestamp_seconds", ended[0].finished, (command,))
            yield Sample("last_run_ok", float(ended[0].status in GOOD), (command,))
            report = ended[0].report
            assert report is not None
            if ended[0].status == "failed":
                yield Sample("last_error", 1, (command, _error(ended[0])))
            yield from _of_report(command, report)
    through = _indexed_through(runs)
    if through is not None:
        yield Sample("indexed_through_timestamp_seconds", through)
        yield Sample("lag_seconds", now - through)
    checked = next((ran.report for ran in runs if ran.report and ran.report.differences is not None), None)
    if checked is not None and checked.differences is not None:
        yield from (Sample("verify_differences", count, (kind,)) for kind, count in checked.differences.items())
        yield Sample("verify_repaired_rows", checked.index_rows.upserted + checked.index_rows.deleted)


def _indexed_through(runs: Sequence[_Ran]) -> float | None:
    """When the newest good run over everything began; None where there was none."""
    whole = [r for r in runs if r.command == "run" and r.status in GOOD and r.report and r.report.scope == _EVERYTHING]
    return whole[0].started if whole else None


def _error(ran: _Ran) -> str:
    return (ran.report and ran.report.error) or "unknown"


def _of_report(command: str, report: RunReport) -> Iterator[Sample]:
    for step, seconds in report.seconds.model_dump().items():
        yield Sample("step_seconds", seconds, (command, step))
    documents = report.documents
    for outcome in ("read", "quarantined", "ignored", "rejected"):
        yield Sample("documents", getattr(documents, outcome), (command, outcome))
    for outcome in ("embedded", "reused", "updated", "deleted", "unchanged", "renamed"):
        yield Sample("chunks", getattr(report.chunks, outcome), (command, outcome))
    yield Sample("encoded_tokens", report.tokens.embedded, (command,))
    yield Sample("index_rows_changed", report.index_rows.upserted, (command, "upserted"))
    yield Sample("index_rows_changed", report.index_rows.deleted, (command, "deleted"))
    yield Sample("lease_wait_seconds", report.lease_wait or 0.0, (command,))
    if report.cost is not None:
        yield Sample("service_requests", report.cost.requests, (command, "answered"))
        yield Sample("service_requests", report.cost.retries, (command, "sent again"))


def _of_speed(runs: Sequence[_Ran], usd_per_hour: float, now: float) -> Iterator[Sample]:
    """Speed and cost of the newest run that encoded enough, beside those of the runs before it."""
    told = [(ran, ran.report) for ran in runs if ran.report and ran.report.tokens.embedded >= ENOUGH_TOKENS]
    told = [(ran, report) for ran, report in told if report.seconds.embed > 0]
    if not told:
        return
    speeds = [report.tokens.embedded / report.seconds.embed for _, report in told]
    best = max(speed for (ran, _), speed in zip(told, speeds, strict=True) if ran.started > told[0][0].started - DAY)
    yield Sample("encoder_tokens_per_second", speeds[0])
    yield Sample("encoder_share_of_best_ratio", speeds[0] / best)
    yield Sample("encoder_share_of_median_ratio", speeds[0] / statistics.median(speeds))
    costs = [_usd(report, usd_per_hour) for _, report in told]
    newest = told[0][1]
    yield Sample("cost_usd", costs[0], (told[0][0].command,))
    if newest.chunks.embedded:
        yield Sample("cost_usd_per_million_vectors", costs[0] / newest.chunks.embedded * 1e6)
    if (middle := statistics.median(costs)) > 0:
        yield Sample("cost_share_of_median_ratio", costs[0] / middle)


def _usd(report: RunReport, per_hour: float) -> float:
    return report.seconds.embed / 3600 * per_hour + (float(report.cost.usd) if report.cost else 0.0)


# -- state -------------------------------------------------------------------------------------------------------------


def _of_state(pipeline: Pipeline, now: float) -> Iterator[Sample]:
    state = pipeline.state
    listed = state.read("quarantine", ["reason", "ignored"]).to_pylist()
    reasons = Counter(row["reason"] for row in listed if not row["ignored"])
    yield from (Sample("quarantine_records", count, (reason,)) for reason, count in sorted(reasons.items()))
    held = held_back(state)
    yield Sample("held_deletions", sum(one.documents for one in held))
    yield Sample("oldest_held_deletion_seconds", max((now - one.since / 1e6 for one in held), default=0.0))
    desired = state.count("chunks")
    yield Sample("desired_chunks", desired)
    version = _live(pipeline)
    if version is not None:
        published = state.count("published", pc.field("index") == version)
        yield Sample("published_chunks", published)
        if desired:
            yield Sample("coverage_ratio", min(1.0, published / desired))
    for team in pipeline.config.telemetry.teams:
        yield Sample("team_chunks", state.dataset("chunks", [("team_id", "in", [team])]).count_rows(), (team,))
    for table, (files, size) in sizes(state).items():
        yield Sample("table_files", files, (table,))
        yield Sample("table_bytes", size, (table,))


def _live(pipeline: Pipeline) -> str | None:
    """The live version by the index; by the state where the index does not answer."""
    try:
        return pipeline.index().live() if pipeline.has_index() else None
    except Exception:
        return next(iter(pipeline.state.served() or ()), None)


def _version() -> str:
    try:
        return version("embedmill")
    except PackageNotFoundError:
        return "none"
