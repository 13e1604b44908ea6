"""The steps of a run as processes of their own: extract, plan, embed, publish. The same work as ``run``.

What passes between them lies in the state: the tables, the report in ``runs``, and the plan in the run's work folder.
A step holds the lease while it works and no longer, so other runs may come between two steps. A command that writes
for another run clears that folder. A step takes the plan out of it, and makes a new one where there is none: nothing is
carried out that was planned on other tables than there are, or that a killed try has carried out in part.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Literal

from jobs.bodies.run import StepBody
from jobs.commands.plan import plan_body
from jobs.plan.estimate import estimate
from jobs.plan.plan import NO_LIMIT, Budget, Plan
from jobs.run_session import RunSession, open_session
from jobs.scope import Scope
from jobs.state.storage import StatePath, remove_all, replace_file
from jobs.steps import (
    apply_plan,
    embed_texts,
    extract_sources,
    final_status,
    guard,
    never,
    plan_scope,
    publish_rows,
)
from jobs.versions import AGAIN_SECONDS, ensure_live, version_to_build

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan on its way to the next step: of which ``scope``, version and space, and what was done of it.

    ``left_out`` rows have no vector although all was embedded; None before that. ``embedded`` texts the run had
    encoded when it was made.
    """

    plan: Plan
    scope: str  # as JSON
    index: str
    space_id: str
    embedded: int
    left_out: int | None = None


StepName = Literal["extract", "plan", "embed", "publish"]


@dataclass(frozen=True, slots=True)
class StepRequest:
    """Which step of which run. ``build`` works on the version of a reindex; ``wait`` is seconds for the lease."""

    name: StepName
    run_id: str
    build: bool = False
    allow_mass_delete: bool = False
    budget: Budget = NO_LIMIT
    wait: float = 0.0


def step(pipeline: Pipeline, scope: Scope, asked: StepRequest) -> StepBody:
    """Do one step, and what before it has to be done again.

    Returns the run report so far, with ``step`` and ``empty`` (nothing is left to embed or publish); of "plan" the
    counts of what is to be done, with an estimate. A build gives way to other runs between two shards.
    """
    name, run_id, build, wait = asked.name, asked.run_id, asked.build, asked.wait
    command = "reindex" if build else "run"
    while True:
        with open_session(pipeline, command, scope, wait, run_id=run_id, first=name == "extract") as session:
            report, lease = session.report, session.lease
            report.index = version_to_build(pipeline, pipeline.index().live()) if build else ensure_live(pipeline)
            done, empty = True, False
            if name == "extract":
                extract_sources(session, to_embed=False)
            else:
                planned = _take(session) if name != "plan" else None
                if planned is None:
                    planned = _plan(session, asked.allow_mass_delete or build, asked.budget)
                report.plan = planned.plan
                empty = not report.plan.writes and not report.plan.delete
                if name != "plan":
                    done = _apply(session, planned, publish=name == "publish", build=build)
                report.plan = replace(report.plan, reuse=max(0, report.plan.reuse - planned.embedded))
            session.count_left_open()
            report.status = "running"
            if empty or name == "publish" and done:
                report.rows_after = pipeline.index().count(report.index)
                report.status = final_status(report)
                report.settled = scope == Scope() and not build
        if done:
            body = plan_body(pipeline, report) if name == "plan" else report.body()
            return StepBody(**dict(body), step=name, empty=empty)
        pipeline.close()  # an embedded index serves one process at a time
        lease.give_way()
        wait = AGAIN_SECONDS


def _plan(session: RunSession, allow_mass_delete: bool, budget: Budget) -> Planned:
    remove_all(session.pipeline.state.work(session.report.run_id))
    plan_scope(session, session.report.index)
    if not allow_mass_delete:
        guard(session)
    budget.check(
        session.report.plan,
        lambda: estimate(session.pipeline.state, session.pipeline.config.model, session.report.plan),
    )
    planned = Planned(
        session.report.plan,
        session.scope.body().to_json(),
        session.report.index,
        session.pipeline.space_id,
        session.report.embedded,
    )
    _keep(session, planned)
    return planned


def _apply(session: RunSession, planned: Planned, *, publish: bool, build: bool) -> bool:
    """Embed, and publish where asked to; False where a build gave way with something left to do."""
    stop = session.lease.wanted if build else never
    _file(session).unlink(missing_ok=True)  # from here on it is carried out in part
    left_out = planned.left_out
    if publish:
        if left_out is None:
            return apply_plan(session, session.report.index, stop=stop)
        return publish_rows(session, session.report.index, planned.plan, left_out, stop=stop)
    if left_out is None:
        left_out = embed_texts(session, stop=stop)
        if left_out is None:
            return False
    _keep(session, replace(planned, left_out=left_out))
    return True


def _file(session: RunSession) -> StatePath:
    return session.pipeline.state.work(session.report.run_id) / "plan.json"


def _keep(session: RunSession, planned: Planned) -> None:
    replace_file(_file(session), json.dumps(asdict(planned)).encode())


def _take(session: RunSession) -> Planned | None:
    """The plan that an earlier step of this run made for the same, if no other run has written since."""
    try:
        found = json.loads(_file(session).read_text())
    except FileNotFoundError:
        return None
    planned = Planned(Plan(**found.pop("plan")), **found)
    same = (planned.scope, planned.index, planned.space_id) == (
        session.scope.body().to_json(),
        session.report.index,
        session.pipeline.space_id,
    )
    return planned if same else None
