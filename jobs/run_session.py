"""A run: holds the lease, keeps the report, and recovers what an earlier run left undone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from jobs import termination
from jobs.extract.changes import Extraction
from jobs.extract.held_deletions import held_back
from jobs.maintenance.compact import compact_due
from jobs.maintenance.erase import finish_purges
from jobs.metrics.levels import missed
from jobs.pipeline import Pipeline
from jobs.report import Report, new_run_id, record, recorded
from jobs.run_details import RunDetails, keep_details, kept_details
from jobs.scope import Scope
from jobs.sources import open_sources
from jobs.state.integrity import record_versions, recorded_versions
from jobs.state.lease import Lease
from jobs.state.quarantine import EXTRACT
from jobs.state.run_target import RunTarget
from jobs.state.storage import remove_all
from jobs.state.watermark import drop_watermark, keep_watermark
from jobs.state.work_folder import check_disk, clear_work
from jobs.state.write_intents import recover_write_intents
from jobs.telemetry import tracing

# Commands that leave the index as it is, or as they plan. After any other, also one that was killed, a run plans.
_WATERMARK_STAYS = ("plan", "run", "verify")


@dataclass(frozen=True, slots=True)
class RunSession:
    """What the steps of one run share: the opened parts, the scope, the report that they fill, and the lease."""

    pipeline: Pipeline
    scope: Scope
    report: Report
    lease: Lease

    def extraction(self) -> Extraction:
        """What the run extracts: the configured sources, opened, in its scope."""
        pipeline, report = self.pipeline, self.report
        sources, chunking = open_sources(pipeline.config), pipeline.chunking()
        return Extraction(pipeline.state, sources, chunking, self.scope, report.run_id, report.started_at)

    def target(self, version: str) -> RunTarget:
        """What the run writes: a ``version`` of the index, in the configured space."""
        return self.pipeline.target(version, self.report.run_id)

    def keep_watermark(self) -> None:
        """Keep that the report's version lacks nothing. Call it after the last commit: the next run may find it so."""
        made = self.report
        keep_watermark(
            self.target(made.index), lease=self.lease.number, chunks=made.plan.total, index_rows=made.rows_after
        )

    def count_left_open(self) -> None:
        """Put into the report what the scope leaves open.

        The rows in quarantine, those that are ignored by their kind, and the documents that are held back; nothing that
        could not be read of a source that is not configured, which this run cannot mend.
        """
        columns = ["source_id", "step", "team_id", "channel_id", "kind", "created_at", "ignored"]
        mine = {one.source_id for one in open_sources(self.pipeline.config)}
        rows = self.pipeline.state.read("quarantine", columns).to_pylist()
        rows = [row for row in rows if row["step"] != EXTRACT or row["source_id"] in mine]
        found = [r for r in rows if self.scope.covers(r["team_id"], r["channel_id"], r["kind"], r["created_at"])]
        self.report.ignored = sum(bool(r["ignored"]) for r in found)
        self.report.quarantined = len(found) - self.report.ignored
        self.report.held_back = sum(one.documents for one in held_back(self.pipeline.state, self.scope))


@contextmanager
def open_session(
    pipeline: Pipeline, command: str, scope: Scope, wait: float, *, run_id: str = "", first: bool = True
) -> Iterator[RunSession]:
    """Hold the lease, keep the report, and record the run whatever happens in the block.

    A run of several processes gives all of them its ``run_id``, and says which is the ``first``: the others continue
    its report. What they left in its work folder stays until the report's status is no longer "running".

    Raises LeaseHeldError where another run holds the lease for more than ``wait`` seconds.
    """
    given = run_id
    run_id = given or new_run_id()
    name = f"embedmill {command}"
    about = {"embedmill__command": command, "embedmill__run_id": run_id, "embedmill__space_id": pipeline.space_id}
    with tracing.span(name, **about), _held(pipeline, command, scope, wait, run_id, given, first) as session:
        try:
            yield session
        finally:
            report = session.report
            tracing.note(embedmill__status=report.status, embedmill__index=report.index)


@contextmanager
def _held(  # noqa: PLR0913, PLR0917  (one caller, which has them all)
    pipeline: Pipeline, command: str, scope: Scope, wait: float, run_id: str, given: str, first: bool
) -> Iterator[RunSession]:
    now = int(time.time() * 1_000_000)
    report = Report(run_id, command, pipeline.space_id, pipeline.first_version, scope.body(), now)
    check_disk(pipeline.state.root, pipeline.config.limits.min_free_mb)
    with pipeline.writable(run_id, wait) as lease:
        state = pipeline.state
        report.lease_wait = round(lease.waited, 3) or None
        if lease.took_over:
            state.raise_fence()
        state.note_space(pipeline.space_id, pipeline.config.model.name, pipeline.encoder_id)
        if lease.took_over or command not in _WATERMARK_STAYS:
            drop_watermark(state.root)
        report.scratch_cleared = clear_work(state.root, keep="" if first else run_id)
        recover_write_intents(state)
        # While tables are rebuilt no text is known yet, so that every vector would seem to be of a purged one.
        if command not in ("purge", "takeover") and None not in recorded_versions(state.root).values():
            finish_purges(pipeline, lease)
        before = None if first else recorded(state, run_id)
        earlier: RunDetails | None = None
        if before is not None:
            report.go_on(before)
            earlier = kept_details(state.root, run_id)
        report.finished_at = report.started_at
        record(state, report, begun=True)  # a killed run is known by this row
        try:
            session = RunSession(pipeline, scope, report, lease)
            yield session
            if report.status != "running":
                lease.check()
                compact_due(state, report.upserted + report.deleted)
            if report.settled:  # last: compaction writes files anew, by which the next run would tell a change
                session.keep_watermark()
        except BaseException as error:
            report.error = type(error).__name__
            raise
        finally:
            report.finished_at = int(time.time() * 1_000_000)
            if lease.held():
                record(state, report)
                record_versions(state.root)
                _keep_details(pipeline, report, scope, earlier)
                clear_work(state.root, keep=run_id if given and report.status in ("running", "failed") else "")
            else:  # the other scratch is of the run that took over; the lost lease explains whatever failed here
                remove_all(state.work(run_id))
                lease.check()


def _keep_details(pipeline: Pipeline, report: Report, scope: Scope, earlier: RunDetails | None) -> None:
    """Keep what the run did when, and what it leaves of its promises."""
    if earlier is not None:
        report.details.add(earlier)
    whole = report.command == "run" and scope.covers_all and report.status != "running"
    if whole and not termination.came():
        with suppress(Exception):  # the run has ended as it did, whatever a look at it says
            report.details.missed = missed(pipeline)
    keep_details(pipeline.state.root, report.run_id, report.details)
