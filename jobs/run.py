"""The commands as lists of their steps: plan, run, status and search over one opened mill."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from embedding.chunking import Chunker
from embedding.encoders import open_encoder
from embedding.errors import EmbedmillError
from embedding.space import tokenizer_file
from jobs.counted import expect
from jobs.extract import extract
from jobs.guard import guard_deletes
from jobs.held import held_back
from jobs.lease import Lease, holder
from jobs.mill import Mill
from jobs.ownership import own_index, state_id
from jobs.plan import NO_LIMIT, Budget, Plan, make_plan
from jobs.quarantine import replace_texts
from jobs.report import BEGUN, Report
from jobs.scope import Scope, iso
from jobs.sources import open_sources

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from indexers.base import Hit
    from jobs.publish import Publisher
    from jobs.state import Part


def never() -> bool:
    """For work that gives way to nobody."""
    return False


def _nobody(shard: str, parts: list[Part]) -> None:
    """For vectors that nobody waits for."""


# -- commands ----------------------------------------------------------------------------------------------------------


def extract_sources(mill: Mill, scope: Scope, report: Report, *, to_embed: bool) -> None:
    """Bring the text tables up to date with the sources; ``to_embed`` where what changed is encoded next."""

    def spark(reading: int) -> SparkSession:
        if to_embed and reading:  # what changed has texts to encode, nearly always
            mill.start_encoding()
        return mill.spark(reading)

    with report.timed("extract"), mill.progress.phase("extract"):
        report.extracted = extract(
            spark, mill.state, open_sources(mill.config), mill.chunking(), scope, run_id=report.run_id,
            now=report.started_at,
        )  # fmt: skip
    report.quarantined, report.ignored = mill.quarantined(scope)


def plan_scope(mill: Mill, scope: Scope, report: Report, version: str) -> None:
    """Write down what a version lacks of the text tables."""
    with report.timed("plan"), mill.progress.phase("plan"):
        report.plan = make_plan(
            mill.spark(), mill.state, scope, run_id=report.run_id, index=version, space_id=mill.space_id,
            shard_tokens=mill.config.model.shard_tokens,
        )  # fmt: skip


def guard(mill: Mill, report: Report) -> None:
    """Raise MassDeleteError where the report's plan deletes more than the limits allow."""
    guard_deletes(
        mill.spark(), mill.state, report.plan.delete, mill.config.limits, run_id=report.run_id, index=report.index
    )


def embed_texts(
    mill: Mill, scope: Scope, report: Report, lease: Lease,
    *, stored: Callable[[str, list[Part]], None] = _nobody, stop: Callable[[], bool] = never,
) -> int | None:  # fmt: skip
    """Encode the plan's texts; returns how many planned rows have no vector, None where ``stop`` asked to leave off.

    ``stored`` is told of each shard whose vectors are committed.
    """
    failed: Mapping[tuple[str, str], str] = {}
    if report.plan.embed:
        with report.timed("embed"), mill.progress.bar("embed", report.plan.tokens, "tokens") as advance:
            from jobs.embed import embed

            encoded = embed(
                mill.config, mill.state, mill.encoding(), run_id=report.run_id, space_id=mill.space_id,
                before_commit=lease.check, stored=stored, stop=stop, progress=advance,
            )  # fmt: skip
        report.embedded += encoded.texts
        report.tokens += encoded.tokens
        report.unreadable += encoded.unreadable
        if encoded.cost:
            report.cost = report.cost + encoded.cost if report.cost else encoded.cost
        failed = encoded.failed
        if encoded.stopped:
            return None
        expect("embed", "texts", report.plan.embed, encoded.texts + len(failed))
    return replace_texts(mill.state, failed, scope, run_id=report.run_id, now=report.started_at)


def close_plan(
    mill: Mill, scope: Scope, report: Report, lease: Lease, version: str, *, stop: Callable[[], bool]
) -> bool:
    """Embed and publish what was planned; False where ``stop`` asked to leave off after a shard, with rows left.

    First the rows whose vectors are stored, while what encodes still starts; then those of each shard of texts while
    the next one is encoded; deletes last.
    """
    from jobs.publish import Follower

    missing = _prepare(mill, report, report.plan, ready=True)
    with _publisher(mill, report, lease, version, report.plan) as publisher:
        with report.timed("publish"):
            if not publisher.prepared(stop):
                return False
        with Follower(publisher, stop, report.plan.shards) as follower:
            left_out = embed_texts(mill, scope, report, lease, stored=follower.stored, stop=follower.stopped)
            with report.timed("publish"):
                if left_out is None or not follower.wait():
                    return False
        _expect(missing + publisher.left_out, left_out)
        expect("publish", "rows to write", report.plan.writes - left_out, publisher.upserted)
        with report.timed("publish"):
            return _deleted(publisher, report.plan, stop)


def publish_rows(
    mill: Mill, report: Report, lease: Lease, version: str, made: Plan, left_out: int = 0,
    *, stop: Callable[[], bool] = never,
) -> bool:  # fmt: skip
    """Carry out a plan whose texts are all encoded; ``left_out`` of its rows are known to have no vector.

    False where ``stop`` asked to leave off after a shard, with rows left.
    """
    _expect(_prepare(mill, report, made, ready=False), left_out)
    with _publisher(mill, report, lease, version, made) as publisher, report.timed("publish"):
        if not publisher.prepared(stop):
            return False
        expect("publish", "rows to write", made.writes - left_out, publisher.upserted)
        return _deleted(publisher, made, stop)


def _deleted(publisher: Publisher, made: Plan, stop: Callable[[], bool]) -> bool:
    """Carry out the plan's deletes; False where ``stop`` asked to leave off."""
    if not publisher.deletes(stop):
        return False
    expect("publish", "rows to delete", made.delete, publisher.deleted)
    return True


def _prepare(mill: Mill, report: Report, made: Plan, *, ready: bool) -> int:
    from jobs.publish import prepare

    if not made.writes:
        return 0
    rows = mill.config.index.shard_rows
    with report.timed("publish"), mill.progress.phase("prepare rows"):
        return prepare(
            mill.spark(), mill.state, run_id=report.run_id, space_id=mill.space_id, shard_rows=rows, ready=ready
        )


def _expect(missing: int, left_out: int) -> None:
    if missing != left_out:
        raise EmbedmillError(
            f"{missing - left_out} planned rows have no stored vector; run again, and report this if it stays"
        )


@contextmanager
def _publisher(mill: Mill, report: Report, lease: Lease, version: str, made: Plan) -> Iterator[Publisher]:
    """What publishes a plan. At the end the index is flushed, and what was written is in the report."""
    from jobs.publish import Publisher

    with mill.progress.bar("publish", made.writes + made.delete, "rows") as advance:
        publisher = Publisher(
            mill.index(), mill.state, version, run_id=report.run_id, space_id=mill.space_id,
            shard_rows=mill.config.index.shard_rows, before_commit=lease.check, progress=advance,
        )  # fmt: skip
        yield publisher
        with report.timed("publish"):
            publisher.flush()
        report.upserted += publisher.upserted
        report.deleted += publisher.deleted


def plan(mill: Mill, scope: Scope, *, wait: float = 0.0) -> dict[str, Any]:
    """Extract and diff; change no index. Returns the plan with an estimate of time (seconds) and cost (USD)."""
    with mill.writing("plan", scope, wait) as (report, _):
        report.index = version = mill.live()
        if mill.has_index() and version in mill.index().versions():
            mill.check_space(version)
        extract_sources(mill, scope, report, to_embed=False)
        plan_scope(mill, scope, report, version)
        report.status = settled(report)
    return plan_body(mill, report)


def settled(report: Report) -> str:
    """The status of a run that did all it could."""
    return "partial" if report.quarantined else "ok"


def estimate(mill: Mill, made: Plan) -> dict[str, float]:
    """What closing a plan would take: ``seconds`` of encoding and ``usd``, from the last run's speed and the prices."""
    seconds = made.tokens / mill.tokens_per_second()
    remote = mill.config.model.remote
    usd = seconds / 3600 * mill.config.model.usd_per_hour
    usd += made.tokens / 1e6 * remote.usd_per_million_tokens if remote else 0.0
    return {"seconds": round(seconds, 1), "usd": round(usd, 4)}


def plan_body(mill: Mill, report: Report) -> dict[str, Any]:
    """The report of a run that has only planned: its counts are what is to be done."""
    made = report.plan
    body = report.to_json()
    body["chunks"]["embedded"] = made.embed
    body["tokens"]["embedded"] = made.tokens
    body["index_rows"]["after"] = made.total
    body["estimate"] = estimate(mill, made)
    return body


def run(
    mill: Mill, scope: Scope, *, allow_mass_delete: bool = False, budget: Budget = NO_LIMIT, wait: float = 0.0
) -> Report:  # fmt: skip
    """Extract, plan, embed, publish."""
    with mill.writing("run", scope, wait) as (report, lease):
        report.index = version = ensure_live(mill)
        extract_sources(mill, scope, report, to_embed=budget == NO_LIMIT)
        plan_scope(mill, scope, report, version)
        if not allow_mass_delete:
            guard(mill, report)
        budget.check(report.plan, lambda: estimate(mill, report.plan))
        close_plan(mill, scope, report, lease, version, stop=never)
        report.rows_after = mill.index().count(version)
        report.quarantined, report.ignored = mill.quarantined(scope)
        report.status = settled(report)
    return report


def ensure_live(mill: Mill) -> str:
    """The live version, made with its alias where there is none, of an index that is this state's."""
    index = mill.index()
    own_index(mill)
    version = index.live()
    if version is None:
        version = mill.first_version
        mill.ensure_version(version)
        index.point_alias(version)
    mill.check_space(version)
    return version


def search(
    mill: Mill, text: str, *, team: str, channels: Sequence[str] = (), kind: str | None = None, k: int = 10,
    hybrid: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Nearest chunks through the alias, with ``hybrid`` by words as well. Refuses an index of another space."""
    if not mill.has_index() or mill.index().live() is None:
        raise EmbedmillError(f"there is no index {mill.config.index.name!r} yet; run `embedmill run` first")
    version = mill.live()
    mill.check_space(version)
    with mill.progress.phase("loading the model"):
        encoder = open_encoder(mill.encoder("query"))
    tokens = Chunker(tokenizer_file(mill.model), mill.limits).split_batch([text])
    import numpy as np

    vector = encoder.encode([text], np.array([sum(s.tokens for s in tokens[0]) or 1]))[0]
    # The version that was checked, and not the alias: that may have moved on to one of another space.
    hits: list[Hit] = mill.index().search(
        version, vector, team_id=team, channels=channels, kind=kind, k=k, text=text if hybrid else None
    )
    return {"space_id": mill.space_id, "index": version, "hits": [_hit(h) for h in hits]}


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "chunk_id": hit.chunk_id, "score": round(hit.score, 6), "team_id": hit.team_id, "channel_id": hit.channel_id,
        "kind": hit.kind, "doc_id": hit.doc_id, "text": hit.text, "created_at": iso(hit.created_at),
    }  # fmt: skip


def status(mill: Mill) -> dict[str, Any]:
    """What is where: tables, index versions, alias, last runs, lag (seconds since the last good run), quarantine.

    ``held_back`` are deletions that wait, because a record that could not be read may be what is missing.
    """
    state, writing = mill.state, holder(mill.state.root)
    names = ("sources", "chunks", "removals", "vectors", "published", "quarantine", "runs")
    runs = state.read("runs").sort_by([("started_at", "descending")]).to_pylist()
    good = [r for r in runs if r["command"] == "run" and r["status"] in ("ok", "partial")]
    listed = state.read("quarantine", ["reason", "ignored"]).to_pylist()
    reasons = Counter(r["reason"] for r in listed if not r["ignored"])
    ignored = Counter(r["reason"] for r in listed if r["ignored"])
    versions = []
    if mill.has_index():
        index = mill.index()
        versions = [
            {"name": v, "rows": index.count(v), "space_id": index.space_of(v), "owner": index.owner_of(v)}
            for v in index.versions()
        ]
    return {
        "space_id": mill.space_id,
        "state_id": state_id(state.root),
        "tables": {name: state.count(name) for name in names},
        "index": {
            "alias": mill.config.index.name,
            "live": mill.index().live() if versions else None,
            "versions": versions,
        },
        "last_runs": [
            {
                "run_id": r["run_id"], "command": r["command"], "status": _status(r, writing),
                "started_at": iso(r["started_at"]),
            }
            for r in runs[:5]
        ],
        "lag_seconds": round(time.time() - good[0]["started_at"] / 1e6, 1) if good else None,
        "quarantine": {
            "total": reasons.total(), "reasons": dict(sorted(reasons.items())),
            "ignored": dict(sorted(ignored.items())),
        },
        "held_back": [one.to_json() for one in held_back(state)],
    }  # fmt: skip


def _status(row: Mapping[str, Any], writing: str) -> str:
    """Of a run that has not said how it ended: "running" while it holds the lease, else "killed"."""
    if row["status"] != BEGUN:
        return str(row["status"])
    return "running" if row["run_id"] == writing else "killed"
