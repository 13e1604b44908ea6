"""Rollback: point the alias at the version that was live before, once nothing in it is gone from the sources.

Since the cutover no run has written to that version: it holds what was deleted, edited or purged meanwhile. Those rows
are removed before the alias moves, by the tables alone and without an engine; the next run brings in what is new.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from embedding.errors import ConfigError
from embedding.ids import document_ids
from jobs.bodies.answers import RollbackBody
from jobs.pipeline import Pipeline
from jobs.plan.deletion_guard import Loss, check_deletes
from jobs.plan.plan import Plan
from jobs.run_session import open_session
from jobs.scope import Scope
from jobs.state.staging import StagedFile, begin_staging, commit_staged, write_staged
from jobs.state.storage import StatePath
from jobs.state.store import State
from jobs.state.team_rows import count_by_team, group_teams, read_teams
from jobs.steps import publish_rows
from jobs.versions import go_live, own_index, served_versions

_KEY = ["team_id", "chunk_id"]
_DOCUMENT = ["team_id", "doc_id"]


def rollback(pipeline: Pipeline, *, allow_mass_delete: bool = False, wait: float = 0.0) -> RollbackBody:
    """Clean the version that was live before and point the alias at it. Starts no engine, so it takes seconds.

    ``removed`` counts rows whose document is gone, or is another one, by what the sources showed last. Raises
    MassDeleteError where many of them are gone that the live version still has: no run was let delete those.

    Raises ConfigError where no version was live before this one.
    """
    with open_session(pipeline, "rollback", Scope(), wait) as session:
        report, lease = session.report, session.lease
        index = pipeline.index()
        own_index(pipeline)
        live, served = index.live(), served_versions(pipeline)
        earlier = served[: served.index(live)] if live else []
        if live is None or not earlier:
            raise ConfigError(f"no version was live before {live or 'the first run'}; nothing was changed")
        report.index = version = earlier[-1]
        space = index.space_of(version)
        move = Move(version, cut_of(pipeline, space), live, cut_of(pipeline, index.space_of(live)))
        count, losses = plan_deletes(pipeline.state, move, pipeline.state.work(report.run_id) / "deletes")
        if not allow_mass_delete:
            check_deletes(losses, pipeline.config.limits)
        if count:
            publish_rows(session, version, Plan(delete=count))
        lease.check()
        go_live(pipeline, version)
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
    return pipeline.state.spaces().get(space_id, {}).get("cut") or pipeline.state.cut or ""


@dataclass(frozen=True, slots=True)
class Move:
    """From the ``live`` version back to ``version``, and the way in which the texts of each are cut."""

    version: str
    cut: str
    live: str
    live_cut: str


def plan_deletes(state: State, move: Move, folder: StatePath) -> tuple[int, list[Loss]]:
    """Stage the rows to delete (team_id, chunk_id) in ``folder``; returns their number and what each team loses.

    Memory holds a few teams at a time.
    """
    begin_staging(folder)
    files, losses = list[StagedFile](), list[Loss]()
    for teams in group_teams(count_by_team(state, "published", {"index": move.version})):
        doomed = outdated(state, move, teams)
        losses += pending_losses(state, move, teams, doomed)
        files += write_staged(doomed.to_batches(), folder, doomed.schema)
    return commit_staged(folder, files).rows, losses


def outdated(state: State, move: Move, teams: Sequence[str]) -> pa.Table:
    """Rows of the version (team_id, chunk_id) of these teams that are not what the sources showed last.

    That is in the chunks of the live version's cut, which runs keep up to date. Of another cut a document is known
    by its version, and by its text where that is one chunk in both.
    """
    ledger = read_teams(state, "published", teams, [*_KEY, "content_hash"], {"index": move.version})
    then = _chunks(state, move.cut, teams)
    current = then if move.cut == move.live_cut else _unchanged(then, _chunks(state, move.live_cut, teams))
    key = [*_KEY, "content_hash"]
    return ledger.join(current.select(key), keys=key, join_type="left anti").select(_KEY).combine_chunks()


def pending_losses(state: State, move: Move, teams: Sequence[str], doomed: pa.Table) -> list[Loss]:
    """What ``doomed`` rows (team_id, chunk_id) take from each team and source: documents gone, and still shown live.

    No run has deleted those; all others are edits, or were deleted by a run that passed the guard.
    """
    here = read_teams(state, "published", teams, [*_KEY, "source_id"], {"index": move.version})
    shown = document_ids(read_teams(state, "published", teams, ["chunk_id"], {"index": move.live})["chunk_id"])
    goes = here.join(doomed.append_column("goes", pa.array([1] * len(doomed), pa.int64())), keys=_KEY)
    documents = document_ids(goes["chunk_id"])
    gone = pc.invert(pc.is_in(documents, _chunks(state, move.live_cut, teams)["doc_id"]))
    pending = pc.and_(pc.is_valid(goes["goes"]), pc.and_(gone, pc.is_in(documents, shown)))
    goes = goes.append_column("pending", pending.cast(pa.int64()))
    grouped = goes.group_by(["team_id", "source_id"]).aggregate([("chunk_id", "count"), ("pending", "sum")])
    return [
        Loss(r["team_id"], r["source_id"] or "", r["chunk_id_count"], r["pending_sum"]) for r in grouped.to_pylist()
    ]


def _chunks(state: State, cut: str, teams: Sequence[str]) -> pa.Table:
    return read_teams(state.of_cut(cut), "chunks", teams, [*_KEY, "doc_id", "version", "content_hash"])


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
