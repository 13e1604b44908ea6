"""The steps of a run as processes of their own: extract, plan, embed, publish. The same work as ``run``.

What passes between them lies in the state: the tables, the report in ``runs``, and the plan in the run's work folder.
A step holds the lease while it works and no longer, so other runs may come between two steps. Whoever writes for
another run clears that folder. A step takes the plan out of it, and makes a new one where there is none: nothing is
carried out that was planned on other tables than there are, or that a killed try has carried out in part.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jobs.durable import replace_file
from jobs.plan import NO_LIMIT, Budget, Plan
from jobs.reindex import AGAIN_SECONDS, version_to_build
from jobs.run import (
    close_plan,
    embed_texts,
    ensure_live,
    estimate,
    extract_sources,
    guard,
    never,
    plan_body,
    plan_scope,
    publish_rows,
    settled,
)

if TYPE_CHECKING:
    from jobs.lease import Lease
    from jobs.mill import Mill
    from jobs.report import Report
    from jobs.scope import Scope


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan on its way to the next step: of which ``scope``, version and space, and what was done of it.

    ``left_out`` rows have no vector although all was embedded; None before that. ``embedded`` texts the run had
    encoded when it was made.
    """

    plan: Plan
    scope: dict[str, object]
    index: str
    space_id: str
    embedded: int
    left_out: int | None = None


def step(
    mill: Mill, name: str, scope: Scope, *, run_id: str, build: bool = False, allow_mass_delete: bool = False,
    budget: Budget = NO_LIMIT, wait: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """Do the step ``name``, and what before it has to be done again. ``build`` works on the version of a reindex.

    Returns the run report so far, with ``step`` and ``empty`` (nothing is left to embed or publish); of "plan" the
    counts of what is to be done, with an estimate. A build gives way to other runs between two shards.
    """
    command = "reindex" if build else "run"
    while True:
        with mill.writing(command, scope, wait, run_id=run_id, first=name == "extract") as (report, lease):
            report.index = version_to_build(mill, mill.index().live()) if build else ensure_live(mill)
            done, empty = True, False
            if name == "extract":
                extract_sources(mill, scope, report, to_embed=False)
            else:
                planned = _take(mill, report, scope) if name != "plan" else None
                if planned is None:
                    planned = _plan(mill, report, scope, allow_mass_delete or build, budget)
                report.plan = planned.plan
                empty = not report.plan.writes and not report.plan.delete
                if name != "plan":
                    done = _close(mill, report, lease, scope, planned, publish=name == "publish", build=build)
                report.plan = replace(report.plan, reuse=max(0, report.plan.reuse - planned.embedded))
            report.quarantined, report.ignored = mill.quarantined(scope)
            report.status = "running"
            if empty or name == "publish" and done:
                report.rows_after = mill.index().count(report.index)
                report.status = settled(report)
        if done:
            body = plan_body(mill, report) if name == "plan" else report.to_json()
            return body | {"step": name, "empty": empty}
        mill.close()  # an embedded index serves one process at a time
        lease.give_way()
        wait = AGAIN_SECONDS


def _plan(mill: Mill, report: Report, scope: Scope, allow_mass_delete: bool, budget: Budget) -> Planned:
    shutil.rmtree(mill.state.work(report.run_id))
    plan_scope(mill, scope, report, report.index)
    if not allow_mass_delete:
        guard(mill, report)
    budget.check(report.plan, lambda: estimate(mill, report.plan))
    planned = Planned(report.plan, scope.to_json(), report.index, mill.space_id, report.embedded)
    _keep(mill, report, planned)
    return planned


def _close(
    mill: Mill, report: Report, lease: Lease, scope: Scope, planned: Planned, *, publish: bool, build: bool
) -> bool:  # fmt: skip
    """Embed, and publish where asked to; False where a build gave way with something left to do."""
    stop = lease.wanted if build else never
    _file(mill, report).unlink(missing_ok=True)  # from here on it is carried out in part
    left_out = planned.left_out
    if publish:
        if left_out is None:
            return close_plan(mill, scope, report, lease, report.index, stop=stop)
        return publish_rows(mill, report, lease, report.index, planned.plan, left_out, stop=stop)
    if left_out is None:
        left_out = embed_texts(mill, scope, report, lease, stop=stop)
        if left_out is None:
            return False
    _keep(mill, report, replace(planned, left_out=left_out))
    return True


def _file(mill: Mill, report: Report) -> Path:
    return mill.state.work(report.run_id) / "plan.json"


def _keep(mill: Mill, report: Report, planned: Planned) -> None:
    replace_file(_file(mill, report), json.dumps(asdict(planned)).encode())


def _take(mill: Mill, report: Report, scope: Scope) -> Planned | None:
    """The plan that an earlier step of this run made for the same, if nobody has written since."""
    try:
        found = json.loads(_file(mill, report).read_text())
    except FileNotFoundError:
        return None
    planned = Planned(Plan(**found.pop("plan")), **found)
    same = (planned.scope, planned.index, planned.space_id) == (scope.to_json(), report.index, mill.space_id)
    return planned if same else None
