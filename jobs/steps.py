"""The steps that commands are made of: extract, plan, embed, publish. Each works on one ``RunSession``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from embedding.errors import EmbedmillError
from indexers.rows import INDEX_ROW
from jobs.extract.extract import extract
from jobs.plan.deletion_guard import guard_deletes
from jobs.plan.plan import Plan, make_plan, plan_changes
from jobs.report import Report
from jobs.run_session import RunSession
from jobs.scope import Scope
from jobs.state.quarantine import replace_texts
from jobs.state.row_counts import expect
from jobs.state.watermark import settled_but

if TYPE_CHECKING:
    from jobs.embed.stored_shard import StoredShard
    from jobs.pipeline import Pipeline
    from jobs.publish.publisher import Publisher, Writers
    from jobs.publish.row_writer import RowWriter
    from jobs.state.frames import Frames
    from jobs.state.parts import Part
    from jobs.state.run_target import RunTarget

WORKER_ROWS = 50_000  # are written by workers: of fewer their clients take longer to load than they gain
MOST_CHANGES = 200_000  # rows of chunks that are compared by themselves, in memory; of more the whole tables are


def never() -> bool:
    """For work that does not give way to other runs."""
    return False


def _keep_waiting(shard: str, parts: Sequence[Part]) -> None:
    """For shards that are published later."""


def extract_sources(session: RunSession, *, to_embed: bool) -> None:
    """Bring the text tables up to date with the sources; ``to_embed`` where what changed is encoded next."""
    pipeline, report = session.pipeline, session.report

    def frames(reading: int) -> Frames:
        if to_embed and reading:  # what changed has texts to encode, nearly always
            pipeline.start_encoding(reading)
        return pipeline.frames(reading)

    with report.timed("extract"), pipeline.progress.phase("extract"):
        report.extracted = extract(frames, session.extraction())
    session.count_left_open()


def plan_scope(session: RunSession, version: str) -> None:
    """Write down what a version lacks of the text tables."""
    pipeline, report = session.pipeline, session.report
    target, shard_tokens = session.target(version), pipeline.config.model.tokens_of_shard
    with report.timed("plan"), pipeline.progress.phase("plan"):
        report.plan = _plan_of_changes(session, target) or make_plan(
            pipeline.frames(whole=True), target, session.scope, shard_tokens=shard_tokens
        )


def _plan_of_changes(session: RunSession, target: RunTarget) -> Plan | None:
    """The plan of a version that lacked nothing after an earlier run, by what changed since; None where it is not."""
    found = settled_but(target) if session.scope == Scope() else None
    if found is None or found[0].index_rows != session.pipeline.rows_of(target.version):
        return None
    kept, changed = found
    if changed is None:
        return Plan(total=kept.chunks, unchanged=kept.chunks, published=kept.chunks)
    if changed.at_most > MOST_CHANGES:
        return None
    pipeline = session.pipeline
    rows, shard_tokens = changed.read(), pipeline.config.model.tokens_of_shard
    return plan_changes(pipeline.frames(), target, rows, kept.chunks, shard_tokens=shard_tokens)


def guard(session: RunSession) -> None:
    """Raise MassDeleteError where the report's plan deletes more than the limits allow."""
    pipeline, report = session.pipeline, session.report
    if report.plan.delete:
        guard_deletes(pipeline.frames(), session.target(report.index), report.plan.delete, pipeline.config.limits)


def embed_texts(
    session: RunSession,
    *,
    stored: Callable[[str, Sequence[Part]], None] = _keep_waiting,
    stop: Callable[[], bool] = never,
    with_ray: bool = False,
) -> int | None:
    """Encode the plan's texts; returns how many planned rows have no vector, None where ``stop`` asked to leave off.

    ``stored`` is told of each shard whose vectors are committed; ``with_ray`` where other work starts Ray, too.
    """
    from jobs.embed import batch_files
    from jobs.embed.spending import SPENT, Spending

    pipeline, report = session.pipeline, session.report
    remote = pipeline.config.model.remote
    batch = pipeline.batches()
    Spending(pipeline.state.work(report.run_id) / SPENT, remote.max_usd if remote else None).begin(
        report.cost.usd if report.cost else 0.0
    )
    failed: Mapping[tuple[str, str], str] = {}
    if report.plan.embed:
        with report.timed("embed"), pipeline.progress.bar("embed", report.plan.tokens, "tokens") as advance:
            shards: list[StoredShard] = []
            stopped = False
            for shard in _encoded(session, with_ray=with_ray):
                shards.append(shard)
                report.count_embedded([shard])  # as they come: a run that fails has encoded them all the same
                advance(shard.tokens)
                stored(shard.name, shard.parts)
                if batch is not None:
                    batch_files.remove_stored(batch, shard.timing["batch_jobs"])
                if stopped := stop():
                    break
        if stopped:
            return None
        failed = {key: reason for shard in shards for key, reason in shard.failed.items()}
        expect("embed", "texts", report.plan.embed, sum(shard.texts for shard in shards) + len(failed))
    if batch is not None:
        batch_files.remove_all(batch)  # nothing waits for a job any more, and none is under way
    return replace_texts(pipeline.state, failed, session.scope, run_id=report.run_id, now=report.started_at)


def _encoded(session: RunSession, *, with_ray: bool) -> Iterator[StoredShard]:
    """The plan's shards of texts, each when its vectors are committed."""
    from jobs.embed import embed

    pipeline, run_id, check = session.pipeline, session.report.run_id, session.lease.check
    made = session.report.plan
    if not with_ray and pipeline.encodes_alone(made.shards, made.tokens):
        return embed.embed_alone(
            pipeline.state,
            pipeline.encoder_process(),
            run_id=run_id,
            space_id=pipeline.space_id,
            before_commit=check,
        )
    return embed.embed(
        pipeline.config,
        pipeline.state,
        pipeline.encoding(),
        run_id=run_id,
        space_id=pipeline.space_id,
        before_commit=check,
    )


def apply_plan(session: RunSession, version: str, *, stop: Callable[[], bool]) -> bool:
    """Embed and publish what was planned; False where ``stop`` asked to leave off after a shard, with rows left.

    First the rows whose vectors are stored, while what encodes still starts; then those of each shard of texts while
    the next one is encoded; deletes last.
    """
    from jobs.publish.shard_queue import ShardQueue

    report = session.report
    missing = _prepare(session, version, report.plan, ready=True)
    session.pipeline.end_frames()  # embedding and publishing take hours, and do not compare
    with _publisher(session, version, report.plan) as publisher:
        with report.timed("publish"):
            if not publisher.publish_ready(stop):
                return False
        with ShardQueue(publisher, stop, report.plan.shards) as queue:
            with_ray = _by_workers(session.pipeline, report.plan)
            left_out = embed_texts(session, stored=queue.enqueue, stop=queue.stopped, with_ray=with_ray)
            with report.timed("publish"):
                if left_out is None or not queue.wait():
                    return False
                publisher.finish()
        _expect(missing + publisher.left_out, left_out)
        expect("publish", "rows to write", report.plan.writes - left_out, publisher.upserted)
        with report.timed("publish"):
            return _deleted(publisher, report.plan, stop)


def publish_rows(
    session: RunSession, version: str, made: Plan, left_out: int = 0, *, stop: Callable[[], bool] = never
) -> bool:
    """Carry out a plan whose texts are all encoded; ``left_out`` of its rows are known to have no vector.

    False where ``stop`` asked to leave off after a shard, with rows left.
    """
    report = session.report
    _expect(_prepare(session, version, made, ready=False), left_out)
    with _publisher(session, version, made) as publisher, report.timed("publish"):
        if not publisher.publish_ready(stop):
            return False
        publisher.finish()
        expect("publish", "rows to write", made.writes - left_out, publisher.upserted)
        return _deleted(publisher, made, stop)


def _deleted(publisher: Publisher, made: Plan, stop: Callable[[], bool]) -> bool:
    """Carry out the plan's deletes; False where ``stop`` asked to leave off."""
    if not publisher.delete_rows(stop):
        return False
    expect("publish", "rows to delete", made.delete, publisher.deleted)
    return True


def _prepare(session: RunSession, version: str, made: Plan, *, ready: bool) -> int:
    from jobs.publish.prepare import prepare

    pipeline, report = session.pipeline, session.report
    if not made.writes:
        return 0
    rows = pipeline.config.index.shard_rows
    with report.timed("publish"), pipeline.progress.phase("prepare rows"):
        return prepare(pipeline.frames(), session.target(version), shard_rows=rows, ready=ready)


def _expect(missing: int, left_out: int) -> None:
    if missing != left_out:
        raise EmbedmillError(
            f"{missing - left_out} planned rows have no stored vector; run again, and report this if it stays"
        )


@contextmanager
def _publisher(session: RunSession, version: str, made: Plan) -> Iterator[Publisher]:
    """What publishes a plan. At the end the index is flushed, and what was written is in the report."""
    from jobs.publish.publisher import Publisher
    from jobs.publish.row_writer import RowWriter

    pipeline, report, target = session.pipeline, session.report, session.target(version)
    writer = RowWriter.of(target, pipeline.config.index.shard_rows, session.lease.proof.check)
    with pipeline.progress.bar("publish", made.writes + made.delete, "rows") as advance:
        writers = _workers(pipeline, writer) if _by_workers(pipeline, made) else None
        publisher = Publisher(pipeline.index(), target, writer, progress=advance, writers=writers)
        try:
            yield publisher
            with report.timed("publish"):
                publisher.finish()
                publisher.flush()
        finally:
            publisher.close()
            report.upserted += publisher.upserted
            report.deleted += publisher.deleted


def _by_workers(pipeline: Pipeline, made: Plan) -> bool:
    """Whether workers of Ray write the rows of a plan: many, for a server."""
    return made.writes >= WORKER_ROWS and not pipeline.index().capabilities().embedded


def _workers(pipeline: Pipeline, writer: RowWriter) -> Writers:
    """Workers that write rows."""
    from jobs.publish.workers import PublishWorkers

    index = pipeline.index()
    index.upsert(writer.version, INDEX_ROW.empty_table())  # what comes before a first row, once and not by each of them
    return PublishWorkers(pipeline.start_ray, pipeline.config.index_address(), writer, index.capabilities().writers)


def final_status(report: Report) -> Literal["partial", "ok"]:
    """The status of a run that did all it could."""
    return "partial" if report.quarantined else "ok"
