"""Reindex: build a new version beside the live one, let the gate examine it, and move the alias.

A build is the same reconciliation as a run, toward another version. It can be killed and repeated, and it gives way
to other runs between shards: what they change, the next round brings into the build. The alias moves while the lease
is held and nothing is left to do, so that no change is missed.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from embedding.errors import ConfigError
from indexers.base import version_number
from jobs.gate import examine
from jobs.guard import check_deletes, cutover_losses
from jobs.mill import Mill
from jobs.ownership import own_index
from jobs.report import Report
from jobs.run import close_plan, extract_sources, plan_scope, settled
from jobs.scope import Scope

AGAIN_SECONDS = 24 * 3600.0  # how long a build that gave way waits for its turn


def reindex(
    mill: Mill, scope: Scope, *, activate: bool | None = None, allow_mass_delete: bool = False, wait: float = 0.0
) -> dict[str, Any]:
    """Build, examine, cut over. ``activate`` None moves the alias only where the scope is everything.

    Returns the run report with ``gate``, ``activated`` and ``previous`` (the version that was live). A version that
    the gate refuses stays beside the live one, and the next reindex goes on with it.
    """
    whole = scope == Scope()
    if activate and not whole:
        raise ConfigError("--activate: a version of a part cannot become the live one; leave the scope out")
    before: Report | None = None
    while True:
        with mill.writing("reindex", scope, wait) as (report, lease):
            live = mill.index().live()
            report.index = version = version_to_build(mill, live)
            extract_sources(mill, scope, report, to_embed=True)
            plan_scope(mill, scope, report, version)
            done = close_plan(mill, scope, report, lease, version, stop=lease.wanted)
            if before is not None:
                _add(report, before)
            report.rows_after = mill.index().count(version)
            report.quarantined, report.ignored = mill.quarantined(scope)
            if done:
                if whole and live is not None and not allow_mass_delete:
                    # A version that lacks many of the live one's documents is a mass delete by another way.
                    losses = cutover_losses(mill.spark(), mill.state, live=live, version=version)
                    check_deletes(losses, mill.config.limits, what="documents")
                with mill.progress.phase("gate"):
                    verdict = examine(mill, version, live, scope, run_id=report.run_id)
                move = verdict.passed and (whole if activate is None else activate)
                if move:
                    lease.check()
                    mill.index().point_alias(version)
                report.status = settled(report) if verdict.passed else "failed"
                break
            report.status = "partial"
        before = report
        mill.close()  # an embedded index serves one process at a time
        lease.give_way()
        wait = AGAIN_SECONDS
    return report.to_json() | {"gate": verdict.to_json(), "activated": move, "previous": live}


def version_to_build(mill: Mill, live: str | None) -> str:
    """A version above the live one that an earlier reindex began in this space, or a new one."""
    index, name = mill.index(), mill.config.index.name
    own_index(mill)
    numbers = {v: version_number(name, v) or 0 for v in index.versions()}
    newer = [v for v, n in numbers.items() if live is None or n > numbers[live]]
    for version in reversed(newer):
        if index.space_of(version) == mill.space_id:
            index.create_version(version, space_id=mill.space_id, dim=mill.space.dim)  # a killed call may lack a part
            return version
    version = f"{name}__v{max(numbers.values(), default=0) + 1}"
    mill.ensure_version(version)
    return version


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
