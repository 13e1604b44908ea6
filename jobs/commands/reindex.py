"""Reindex: build a new version beside the live one, let the gate examine it, and move the alias.

A build is the same reconciliation as a run, toward another version. It can be killed and repeated, and it gives way
to other runs between shards: what they change, the next round brings into the build. The alias moves while the lease
is held and nothing is left to do, so that no change is missed.
"""

from __future__ import annotations

from dataclasses import replace

from embedding.errors import ConfigError
from jobs.bodies.run import ReindexBody
from jobs.pipeline import Pipeline
from jobs.plan.deletion_guard import check_deletes, cutover_losses
from jobs.relevance.gate import gate_golden
from jobs.report import Report
from jobs.run_session import open_session
from jobs.scope import Scope
from jobs.steps import apply_plan, extract_sources, final_status, plan_scope
from jobs.verify.gate import examine
from jobs.versions import AGAIN_SECONDS, go_live, version_to_build


def reindex(
    pipeline: Pipeline,
    scope: Scope,
    *,
    activate: bool | None = None,
    allow_mass_delete: bool = False,
    wait: float = 0.0,
) -> ReindexBody:
    """Build, examine, cut over. ``activate`` None moves the alias only where the scope is everything.

    Returns the run report with ``gate``, ``activated`` and ``previous`` (the version that was live). A version that
    the gate refuses stays beside the live one, and the next reindex goes on with it.

    Raises ConfigError where a part of the scope is to be activated, and for a golden set that cannot be read.
    """
    whole = scope == Scope()
    if activate and not whole:
        raise ConfigError("--activate: a version of a part cannot become the live one; leave the scope out")
    golden = gate_golden(pipeline) if whole else None  # a part answers a part of the questions
    before: Report | None = None
    while True:
        with open_session(pipeline, "reindex", scope, wait) as session:
            report, lease = session.report, session.lease
            live = pipeline.index().live()
            report.index = version = version_to_build(pipeline, live)
            extract_sources(session, to_embed=True)
            plan_scope(session, version)
            done = apply_plan(session, version, stop=lease.wanted)
            if before is not None:
                _add(report, before)
            report.rows_after = pipeline.index().count(version)
            session.count_left_open()
            if done:
                if whole and live is not None and not allow_mass_delete:
                    # A version that lacks many of the live one's documents is a mass delete by another way.
                    losses = cutover_losses(pipeline.frames(whole=True), pipeline.state, live=live, version=version)
                    check_deletes(losses, pipeline.config.limits, what="documents")
                with pipeline.progress.phase("gate"):
                    verdict = examine(pipeline, version, live, scope, run_id=report.run_id, golden=golden)
                move = verdict.passed and (whole if activate is None else activate)
                if move:
                    lease.check()
                    go_live(pipeline, version)
                report.status = final_status(report) if verdict.passed else "failed"
                break
            report.status = "partial"
        before = report
        pipeline.close()  # an embedded index serves one process at a time
        lease.give_way()
        wait = AGAIN_SECONDS
    return ReindexBody(**dict(report.body()), gate=verdict.body(), activated=move, previous=live)


def _add(report: Report, before: Report) -> None:
    """Count what earlier rounds did as well."""
    report.embedded += before.embedded
    report.tokens += before.tokens
    report.upserted += before.upserted
    report.deleted += before.deleted
    for step, seconds in before.seconds.items():
        report.seconds[step] = report.seconds.get(step, 0.0) + seconds
    if before.cost:
        report.cost = before.cost + report.cost if report.cost else before.cost
    report.plan = replace(report.plan, reuse=max(0, report.upserted - report.embedded - report.plan.update))
