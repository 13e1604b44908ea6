"""The command ``plan``: the difference, and what closing it would cost. Writes nothing to the index."""

from __future__ import annotations

from jobs.bodies.run import Estimate, PlanBody
from jobs.pipeline import Pipeline
from jobs.plan.estimate import estimate
from jobs.report import Report
from jobs.run_session import open_session
from jobs.scope import Scope
from jobs.steps import extract_sources, final_status, plan_scope


def plan(pipeline: Pipeline, scope: Scope, *, wait: float = 0.0) -> PlanBody:
    """Extract and diff; change no index. Returns the plan with an estimate of time (seconds) and cost (USD)."""
    with open_session(pipeline, "plan", scope, wait) as session:
        report = session.report
        report.index = version = pipeline.live()
        if pipeline.has_index() and version in pipeline.index().versions():
            pipeline.check_space(version)
        extract_sources(session, to_embed=False)
        plan_scope(session, version)
        report.status = final_status(report)
    return plan_body(pipeline, report)


def plan_body(pipeline: Pipeline, report: Report) -> PlanBody:
    """The report of a run that has only planned: its counts are what is to be done."""
    made, body = report.plan, report.body()
    to_do = {
        "chunks": body.chunks.model_copy(update={"embedded": made.embed}),
        "tokens": body.tokens.model_copy(update={"embedded": made.tokens}),
        "index_rows": body.index_rows.model_copy(update={"after": made.total}),
    }
    cost = Estimate(**estimate(pipeline.state, pipeline.config.model, made))
    return PlanBody(**{**dict(body), **to_do}, estimate=cost)
