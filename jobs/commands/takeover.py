"""The command ``takeover``: make this state the owner of every version of its index."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.bodies.answers import Taken, TakeoverBody
from jobs.run_session import open_session
from jobs.scope import Scope
from jobs.state.state_id import own_id

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline


def takeover(pipeline: Pipeline, *, wait: float = 0.0) -> TakeoverBody:
    """Record this state as the owner of every version, of other states' ones too. Changes no row.

    Returns by version who owned it before ("" for none).
    """
    with open_session(pipeline, "takeover", Scope(), wait) as session:
        report, lease = session.report, session.lease
        index, ours = pipeline.index(), own_id(pipeline.state.root)
        before = {version: index.owner_of(version) for version in index.versions()}
        for version, owner in before.items():
            if owner != ours:
                lease.check()
                index.set_owner(version, ours)
        report.index = index.live() or ""
        report.status = "ok"
    return TakeoverBody(
        run_id=report.run_id,
        index=report.index or None,
        state_id=ours,
        versions=tuple(Taken(name=version, owner_before=owner) for version, owner in before.items()),
        taken=sum(owner != ours for owner in before.values()),
    )
