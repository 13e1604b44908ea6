"""The values of the series, all of them from the state: nothing has to be remembered between two commands."""

from __future__ import annotations

import math
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, SupportsFloat

import orjson
import pyarrow.compute as pc

from jobs.bodies.base import ScopeBody
from jobs.bodies.run import RunReport
from jobs.engines.tested import installed
from jobs.extract.held_deletions import held_back
from jobs.maintenance.compact import sizes
from jobs.report import BEGUN
from jobs.state.lease import holder

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

DAY = 86_400.0
MONTH = 30 * DAY
GOOD = ("ok", "partial")
UNDER_WAY = (BEGUN, "running")

_EVERYTHING = ScopeBody()
_OUTCOMES = ("embedded", "reused", "updated", "deleted", "renamed")  # of a chunk that a run does something about
ENOUGH_TOKENS, ENOUGH_SECONDS = 10_000, 10.0  # that a run must encode to tell a speed
_AT_ONCE = 500  # runs whose reports are read together


class Sample(NamedTuple):
    """One value of a series, with the values of its labels in their order."""

    name: str
    value: float
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Ran:
    """A run: times in seconds since 1970."""

    run_id: str
    command: str
    status: str
    started: float
    finished: float

    @property
    def ended(self) -> bool:
        """Whether it said how it ended; a run of steps has not, between two of them."""
        return self.status not in UNDER_WAY


class _Runs:
    """The runs, the newest first, and the reports of those that are asked for."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._state = pipeline.state
        told = self._state.read("runs", ["run_id", "command", "status", "started_at", "finished_at"])
        self.all = [
            _Ran(r["run_id"], r["command"], r["status"], r["started_at"] / 1e6, r["finished_at"] / 1e6)
            for r in told.sort_by([("started_at", "descending")]).to_pylist()
        ]
        self._reports: dict[str, RunReport] = {}

    def reports(self, runs: Sequence[_Ran]) -> Iterator[tuple[_Ran, RunReport]]:
        """Each with its report, read some at a time."""
        for start in range(0, len(runs), _AT_ONCE):
            some = runs[start : start + _AT_ONCE]
            missing = [ran.run_id for ran in some if ran.run_id not in self._reports]
            if missing:
                rows = self._state.read("runs", ["run_id", "report"], pc.field("run_id").isin(missing))
                for row in rows.to_pylist():
                    self._reports[row["run_id"]] = RunReport.model_validate_json(row["report"], extra="ignore")
            yield from ((ran, self._reports[ran.run_id]) for ran in some)

    def newest(self, command: str, holds: Callable[[RunReport], bool]) -> tuple[_Ran, RunReport] | None:
        """The newest good run of a command for whose report something holds; looks no further than that."""
        good = [ran for ran in self.all if ran.command == command and ran.status in GOOD]
        return next(((ran, report) for ran, report in self.reports(good) if holds(report)), None)


def collect(pipeline: Pipeline, *, lease_refused: bool = False, now: float | None = None) -> Iterator[Sample]:
    """Every value that can be told. Cost: the newest runs, the quarantine, the logs of the tables."""
    now = time.time() if now is None else now
    config, runs = pipeline.config, _Runs(pipeline)
    writing = holder(pipeline.state.root)
    held = next((now - ran.started for ran in runs.all if ran.run_id == writing), 0.0)
    yield Sample("info", 1, (installed("embedmill"), pipeline.space_id))
    yield Sample("lease_refused", float(lease_refused))
    yield Sample("lease_held_seconds", held)
    yield from _of_runs(runs, writing, now)
    yield from _totals(pipeline)
    yield from _of_speed(runs, config.model.usd_per_hour, now)
    yield from _of_state(pipeline, now, settled=_settled(runs))
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


def _of_runs(runs: _Runs, writing: str, now: float) -> Iterator[Sample]:
    failed = [ran for ran in runs.all if ran.started > now - MONTH and ran.status == "failed"]
    errors = Counter((ran.command, report.error or "unknown") for ran, report in runs.reports(failed))
    yield from (Sample("failed_runs", count, at) for at, count in errors.items())
    for command in sorted({ran.command for ran in runs.all}):
        ours = [ran for ran in runs.all if ran.command == command]
        # The newest may go on: what is under way, or waits for its next step.
        gone = [ran for n, ran in enumerate(ours) if ran.status == BEGUN or ran.status == "running" and n]
        killed = [ran for ran in gone if ran.started > now - DAY and ran.run_id != writing]
        yield Sample("killed_runs", len(killed), (command,))
        if good := [ran for ran in ours if ran.status in GOOD]:
            yield Sample("last_success_timestamp_seconds", good[0].started, (command,))
        if ended := [ran for ran in ours if ran.ended]:
            [(newest, report)] = runs.reports(ended[:1])
            yield Sample("last_finish_timestamp_seconds", newest.finished, (command,))
            yield Sample("last_run_ok", float(newest.status in GOOD), (command,))
            if newest.status == "failed":
                yield Sample("last_error", 1, (command, report.error or "unknown"))
            yield from _of_report(command, report)
    if (whole := runs.newest("run", over_everything)) is not None:
        yield Sample("indexed_through_timestamp_seconds", whole[0].started)
        yield Sample("lag_seconds", now - whole[0].started)
    checks = [ran for ran in runs.all if ran.command == "verify" and ran.ended]
    for _, report in runs.reports(checks):
        if report.differences is not None and over_everything(report):
            yield from (Sample("verify_differences", count, (kind,)) for kind, count in report.differences.items())
            yield Sample("ghosts", report.differences.get("ghost", 0))
            yield Sample("verify_repaired_rows", report.index_rows.upserted + report.index_rows.deleted)
            break


def _totals(pipeline: Pipeline) -> Iterator[Sample]:
    """What all runs on record did, added up; read without their models, for they may be many."""
    chunks: Counter[str] = Counter(dict.fromkeys(_OUTCOMES, 0))
    tokens = 0
    # A plan does nothing, and what goes on may still plan anew.
    done = ~pc.field("status").isin(UNDER_WAY) & (pc.field("command") != "plan")
    costs = []
    for text in pipeline.state.read("runs", ["report"], done)["report"]:
        said = orjson.loads(text.as_py())
        chunks.update({outcome: said["chunks"].get(outcome, 0) for outcome in _OUTCOMES})
        tokens += said["tokens"]["embedded"]
        of_service = (said.get("cost") or {}).get("usd")
        costs.append(_usd(said["seconds"]["embed"], of_service, pipeline.config.model.usd_per_hour))
    yield from (Sample("chunks_total", count, (outcome,)) for outcome, count in chunks.items())
    yield Sample("tokens_total", tokens)
    yield Sample("cost_usd_total", round(math.fsum(costs), 6))  # the same in whatever order the rows come


def over_everything(report: RunReport) -> bool:
    """Whether a run looked at all sources."""
    return report.scope == _EVERYTHING


def _settled(runs: _Runs) -> bool:
    """Whether the text tables are as the newest run left them when it ended: no plan, and no step, came after."""
    newest = next((ran for ran in runs.all if ran.command in ("run", "plan")), None)
    return newest is not None and newest.command == "run" and newest.ended


def _of_report(command: str, report: RunReport) -> Iterator[Sample]:
    for step, seconds in report.seconds.model_dump().items():
        yield Sample("run_duration_seconds", seconds, (command, step))
    documents = report.documents
    for outcome in ("read", "quarantined", "ignored", "rejected"):
        yield Sample("last_run_documents", getattr(documents, outcome), (command, outcome))
    for outcome in (*_OUTCOMES, "unchanged"):
        yield Sample("last_run_chunks", getattr(report.chunks, outcome), (command, outcome))
    yield Sample("last_run_tokens", report.tokens.embedded, (command,))
    yield Sample("last_run_index_rows", report.index_rows.upserted, (command, "upserted"))
    yield Sample("last_run_index_rows", report.index_rows.deleted, (command, "deleted"))
    yield Sample("lease_wait_seconds", report.lease_wait or 0.0, (command,))
    if report.cost is not None:
        yield Sample("last_run_service_requests", report.cost.requests, (command, "answered"))
        yield Sample("last_run_service_requests", report.cost.retries, (command, "sent again"))
        for endpoint in report.cost.endpoints:
            for outcome, count in (
                ("answered", endpoint.requests),
                ("failed", endpoint.failures),
                ("hedged", endpoint.hedged),
                ("opened", endpoint.opened),
            ):
                yield Sample("last_run_endpoint_requests", count, (command, endpoint.name, outcome))


def _of_speed(runs: _Runs, usd_per_hour: float, now: float) -> Iterator[Sample]:
    """Speed and cost of the newest run that encoded enough, beside those of the runs before it."""
    recent = [ran for ran in runs.all if ran.ended and ran.started > now - MONTH][:_AT_ONCE]
    told = [
        (ran, report)
        for ran, report in runs.reports(recent)
        if report.tokens.embedded >= ENOUGH_TOKENS and (report.encode_seconds or 0.0) >= ENOUGH_SECONDS
    ]
    if not told:
        return
    speeds = [report.tokens_per_second or 0.0 for _, report in told]
    best = max(speed for (ran, _), speed in zip(told, speeds, strict=True) if ran.started > told[0][0].started - DAY)
    yield Sample("encoder_tokens_per_second", speeds[0])
    yield Sample("encoder_share_of_best_ratio", speeds[0] / best)
    yield Sample("encoder_share_of_median_ratio", speeds[0] / statistics.median(speeds))
    costs = [_usd(report.seconds.embed, report.cost.usd if report.cost else None, usd_per_hour) for _, report in told]
    newest = told[0][1]
    yield Sample("last_run_cost_usd", costs[0], (told[0][0].command,))
    if newest.chunks.embedded:
        yield Sample("cost_usd_per_million_vectors", costs[0] / newest.chunks.embedded * 1e6)
    if (middle := statistics.median(costs)) > 0:
        yield Sample("cost_share_of_median_ratio", costs[0] / middle)


def _usd(embed_seconds: float, of_service: SupportsFloat | None, per_hour: float) -> float:
    return embed_seconds / 3600 * per_hour + float(of_service or 0.0)


# -- state -------------------------------------------------------------------------------------------------------------


def _of_state(pipeline: Pipeline, now: float, *, settled: bool) -> Iterator[Sample]:
    state = pipeline.state
    listed = state.read("quarantine", ["reason", "ignored"]).to_pylist()
    reasons = Counter(row["reason"] for row in listed if not row["ignored"])
    yield Sample("quarantined", reasons.total())
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
        if desired and settled:  # else it is what the next step, or the next run, is about to do
            yield Sample("coverage_ratio", min(1.0, published / desired))
    for team in dict.fromkeys(pipeline.config.telemetry.teams):
        yield Sample("team_chunks", state.dataset("chunks", [("team_id", "in", [team])]).count_rows(), (team,))
    for table, (files, size) in sizes(state).items():
        yield Sample("state_files", files, (table,))
        yield Sample("state_bytes", size, (table,))


def _live(pipeline: Pipeline) -> str | None:
    """The live version; None also where the index does not answer: then nothing is said of it."""
    try:
        return pipeline.index().live() if pipeline.has_index() else None
    except Exception:
        return None
