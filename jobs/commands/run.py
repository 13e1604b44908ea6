"""The command ``run``: extract, plan, embed and publish one scope."""

from __future__ import annotations

from jobs.pipeline import Pipeline
from jobs.plan.estimate import estimate
from jobs.plan.plan import NO_LIMIT, Budget
from jobs.report import Report
from jobs.run_session import open_session
from jobs.scope import Scope
from jobs.steps import apply_plan, extract_sources, final_status, guard, never, plan_scope
from jobs.versions import ensure_live


def run(
    pipeline: Pipeline, scope: Scope, *, allow_mass_delete: bool = False, budget: Budget = NO_LIMIT, wait: float = 0.0
) -> Report:
    """Extract, plan, embed, publish."""
    with open_session(pipeline, "run", scope, wait) as session:
        report = session.report
        report.index = version = ensure_live(pipeline)
        extract_sources(session, to_embed=budget == NO_LIMIT)
        plan_scope(session, version)
        if not allow_mass_delete:
            guard(session)
        budget.check(report.plan, lambda: estimate(pipeline.state, pipeline.config.model, report.plan))
        apply_plan(session, version, stop=never)
        report.rows_after = pipeline.index().count(version)
        session.count_left_open()
        report.status = final_status(report)
        report.settled = scope == Scope()
    return report
