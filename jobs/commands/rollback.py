"""Rollback: point the alias at the version before the live one, once nothing in it is gone from the sources.

Since the cutover no run has written to that version: it holds what was deleted, edited or purged meanwhile. Those rows
are removed before the alias moves, by the tables alone and without an engine; the next run brings in what is new.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedding.errors import ConfigError
from embedding.ids import document_ids
from jobs.bodies.answers import RollbackBody
from jobs.pipeline import Pipeline
from jobs.plan.deletion_guard import Loss, check_deletes
from jobs.plan.plan import Plan
from jobs.run_session import open_session
from jobs.scope import Scope
from jobs.state.store import State
from jobs.steps import publish_rows
from jobs.versions import own_index

_KEY = ["team_id", "chunk_id"]
_DOCUMENT = ["team_id", "doc_id"]


def rollback(pipeline: Pipeline, *, allow_mass_delete: bool = False, wait: float = 0.0) -> RollbackBody:
    """Clean the version before the live one and point the alias at it. Starts no engine, so it takes seconds.

    ``removed`` counts rows whose document is gone, or is another one, by what the sources showed last. Raises
    MassDeleteError where many of them are gone that the live version still has: no run was let delete those.
    """
    with open_session(pipeline, "rollback", Scope(), wait) as session:
        report, lease = session.report, session.lease
        index = pipeline.index()
        own_index(pipeline)
        live, versions = index.live(), index.versions()
        earlier = versions[: versions.index(live)] if live else []
        if live is None or not earlier:
            raise ConfigError(f"there is no version before {live or 'the first run'}; nothing was changed")
        report.index = version = earlier[-1]
        space = index.space_of(version)
        live_cut = cut_of(pipeline, index.space_of(live))
        doomed = outdated(pipeline.state, version, cut_of(pipeline, space), live_cut)
        if not allow_mass_delete:
            losses = pending_losses(pipeline.state, doomed, version, live, live_cut)
            check_deletes(losses, pipeline.config.limits)
        if len(doomed):
            folder = pipeline.state.work(report.run_id) / "deletes"
            folder.mkdir()
            pq.write_table(doomed, folder / "rows.parquet")
            publish_rows(session, version, Plan(delete=len(doomed)))
        lease.check()
        index.point_alias(version)
        report.rows_after = index.count(version)
        report.status = "ok"
    model = pipeline.state.spaces().get(space, {}).get("model", "")
    return RollbackBody(
        run_id=report.run_id,
        index=version,
        previous=live,
        space_id=space,
        model=model,
        configured=space == pipeline.space_id,
        removed=report.deleted,
        rows=report.rows_after,
    )


def cut_of(pipeline: Pipeline, space_id: str) -> str:
    """The way of cutting texts of a space; the configuration's of one that the state does not know."""
    return pipeline.state.spaces().get(space_id, {}).get("cut") or pipeline.space.chunking_id


def outdated(state: State, version: str, cut: str, live_cut: str) -> pa.Table:
    """Rows of a version (team_id, chunk_id), whose texts are cut one way, that are not what the sources showed last.

    That is in the chunks of the live version's cut, which runs keep up to date. Of another cut a document is known
    by its version, and by its text where that is one chunk in both.
    """
    ledger = state.read("published", [*_KEY, "content_hash"], pc.field("index") == version)
    then = _chunks(state, cut)
    current = then if cut == live_cut else _unchanged(then, _chunks(state, live_cut))
    key = [*_KEY, "content_hash"]
    return ledger.join(current.select(key), keys=key, join_type="left anti").select(_KEY).combine_chunks()


def pending_losses(state: State, doomed: pa.Table, version: str, live: str, live_cut: str) -> list[Loss]:
    """What ``doomed`` rows of a version take from each team and source of documents that are gone and still shown live.

    No run has deleted those; all others are edits, or were deleted by a run that passed the guard.
    """
    ledger = state.read("published", ["index", *_KEY, "source_id"], pc.field("index").isin([version, live]))
    here = ledger.filter(pc.equal(ledger["index"], version))
    shown = document_ids(ledger.filter(pc.equal(ledger["index"], live))["chunk_id"])
    goes = here.join(doomed.append_column("goes", pa.array([1] * len(doomed), pa.int64())), keys=_KEY)
    documents = document_ids(goes["chunk_id"])
    gone = pc.invert(pc.is_in(documents, _chunks(state, live_cut)["doc_id"]))
    pending = pc.and_(pc.is_valid(goes["goes"]), pc.and_(gone, pc.is_in(documents, shown)))
    goes = goes.append_column("pending", pending.cast(pa.int64()))
    grouped = goes.group_by(["team_id", "source_id"]).aggregate([("chunk_id", "count"), ("pending", "sum")])
    return [
        Loss(r["team_id"], r["source_id"] or "", r["chunk_id_count"], r["pending_sum"]) for r in grouped.to_pylist()
    ]


def _chunks(state: State, cut: str) -> pa.Table:
    return state.of_cut(cut).read("chunks", [*_KEY, "doc_id", "version", "content_hash"])


def _unchanged(then: pa.Table, now: pa.Table) -> pa.Table:
    """Chunks of one cut whose document has the same version in the other."""
    pairs = then.join(_by_document(then), keys=_DOCUMENT).join(
        _by_document(now), keys=_DOCUMENT, right_suffix="_now", join_type="inner"
    )
    single = pc.and_(pc.equal(pairs["chunks"], 1), pc.equal(pairs["chunks_now"], 1))
    same_text = pc.or_(pc.invert(single), pc.equal(pairs["text"], pairs["text_now"]))
    return pairs.filter(pc.and_(pc.equal(pairs["newest"], pairs["newest_now"]), same_text))


def _by_document(chunks: pa.Table) -> pa.Table:
    grouped = chunks.group_by(_DOCUMENT).aggregate([("version", "max"), ("chunk_id", "count"), ("content_hash", "min")])
    return grouped.rename_columns([*_DOCUMENT, "newest", "chunks", "text"])
