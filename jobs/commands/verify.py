"""The command ``verify``: compare the index with the desired chunks, and repair it if asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jobs.bodies.answers import VerifyBody
from jobs.extract.changes import changed_partitions
from jobs.extract.held_deletions import held_back
from jobs.maintenance.rebuild import FILLED_BY_READING, rebuild
from jobs.plan.deletion_guard import guard_deletes
from jobs.plan.plan import Plan
from jobs.run_session import RunSession, open_session
from jobs.scope import Scope
from jobs.state.integrity import record_versions
from jobs.state.tables import TABLES
from jobs.state.watermark import drop_watermark
from jobs.steps import extract_sources, publish_rows
from jobs.verify.compare import compare, not_found, plan_repair, with_sources
from jobs.verify.conversation_check import check_conversations, make_anew
from jobs.verify.source_check import check_sources, read_anew
from jobs.versions import own_index

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline


def verify(
    pipeline: Pipeline, scope: Scope, *, repair: bool = False, allow_mass_delete: bool = False, wait: float = 0.0
) -> VerifyBody:
    """Compare index, ledger, desired state and sources; with ``repair`` rebuild damaged tables first, and mend.

    Raises MassDeleteError, before anything is changed, for a repair that would delete more than ``limits`` allow.

    Raises ConfigError where there is no index yet.
    """
    rebuilt = rebuild(pipeline, wait=wait) if repair else []
    with open_session(pipeline, "verify", scope, wait) as session:
        report = session.report
        deletes = finish_rebuild(session, rebuilt) if rebuilt else True
        report.index = version = pipeline.must_live()
        pipeline.check_space(version)
        if repair:
            drop_watermark(pipeline.state.root)
            own_index(pipeline)
        frames, target, extraction = pipeline.frames(whole=True), session.target(version), session.extraction()
        with pipeline.progress.phase("verify"):
            found, differing = compare(frames, target, pipeline.index(), scope)
        with pipeline.progress.phase("reading sources"):
            wrong, partitions = check_sources(frames, extraction, scan=target.work / "scan", sample=found.sample)
            said = check_conversations(frames, extraction)
        wrong = not_found(differing, [*wrong, *said])
        found = with_sources(found, wrong)
        mended = marked = 0
        if repair and found.total:
            gone = [one for one in wrong if one.gone]
            writes, deleted = plan_repair(frames, target, differing, gone, deletes=deletes)
            made = Plan(reuse=writes, delete=deleted)
            if not allow_mass_delete:
                guard_deletes(frames, target, deleted, pipeline.config.limits)
            marked = read_anew(target.state, wrong, gone if deletes else (), report.run_id)
            marked += make_anew(target.state, said, report.run_id)
            publish_rows(session, version, made)
            mended = report.upserted + report.deleted
        report.rows_after = pipeline.index().count(version)
        session.count_left_open()
        report.status = "ok" if found.total == mended else "failed"
        report.differences = dict.fromkeys(found.counts, 0) if found.total == mended else found.counts
        waiting = changed_partitions(extraction) - marked
        held = tuple(one.body() for one in held_back(target.state, scope))
    return VerifyBody(
        run_id=report.run_id,
        index=version,
        space_id=pipeline.space_id,
        scope=report.scope,
        status="ok" if found.total == 0 and not rebuilt else "repaired" if found.total == mended else "differs",
        checked=found.checked,
        sampled_vectors=found.sampled,
        sampled_source_partitions=partitions,
        differences=found.counts,
        examples=tuple(found.examples),
        repaired=mended,
        index_rows=report.rows_after,
        source_partitions_changed=waiting,
        source_partitions_marked=marked,
        held_back=held,
        rebuilt=tuple(rebuilt),
    )


def finish_rebuild(session: RunSession, names: list[str]) -> bool:
    """Read the sources where a rebuilt table needs it; returns whether ``chunks`` is all that they hold.

    It is not where a partition could not be read whose chunks were lost: what the index has of it must stay.
    """
    whole = True
    if FILLED_BY_READING & set(names):
        extract_sources(session, to_embed=False)
        whole = "chunks" not in names or not session.report.extracted.rejected
    record_versions(session.pipeline.state.root, rebuilt=TABLES)
    return whole
