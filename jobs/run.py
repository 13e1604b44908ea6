"""The commands as lists of their steps: plan, run, verify, purge, status and search over one opened mill."""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from embedding.chunking import CHUNKER_VERSION, Chunker, ChunkLimits
from embedding.encoders import EncoderSpec, open_encoder
from embedding.encoders.spec import Purpose
from embedding.errors import EmbedmillError, SpaceMismatchError
from embedding.slack_text import NORMALISER_VERSION
from embedding.space import Space, describe_space, model_path
from jobs.config import Config
from jobs.engines import check_disk, start_spark
from jobs.extract import ExtractReport, changed_partitions, extract
from jobs.lease import Lease
from jobs.plan import Plan, check_deletes, make_plan
from jobs.progress import Progress
from jobs.quarantine import replace_texts
from jobs.reader import Chunking
from jobs.scope import Scope, iso
from jobs.sources import open_sources
from jobs.state import State

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from embedding.encoders.remote import Cost
    from indexers.base import Hit, Index

# Below both, a run's Spark part takes seconds, and half of them went into compiling code that then runs once.
SMALL_BYTES = 64_000_000
SMALL_CHUNKS = 200_000
DEFAULT_TOKENS_PER_SECOND = 4_500  # sentence-transformers on two cores; replaced by what the last run measured


@dataclass(slots=True)
class Report:
    """The run report of the contract, and the figures beside it that a person or a test asks for."""

    run_id: str
    command: str
    space_id: str
    index: str
    scope: dict[str, object]
    started_at: int
    status: str = "failed"
    finished_at: int = 0
    extracted: ExtractReport = field(default_factory=ExtractReport)
    plan: Plan = field(default_factory=Plan)
    embedded: int = 0
    upserted: int = 0
    deleted: int = 0
    rows_after: int = 0
    quarantined: int = 0
    cost: Cost | None = None
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The report as the contract has it."""
        seconds = {k: round(self.seconds.get(k, 0.0), 3) for k in ("extract", "plan", "embed", "publish")}
        return {
            "run_id": self.run_id,
            "command": self.command,
            "status": self.status,
            "space_id": self.space_id,
            "index": self.index,
            "scope": self.scope,
            "started_at": iso(self.started_at),
            "finished_at": iso(self.finished_at),
            "documents": {
                "read": self.extracted.read,
                "quarantined": self.quarantined,
                "rejected": self.extracted.rejected,
                "skipped": dict(sorted(self.extracted.skipped.items())),
            },
            "partitions": {"listed": self.extracted.partitions, "opened": self.extracted.opened},
            "chunks": {
                "total": self.plan.total,
                "embedded": self.embedded,
                "reused": self.plan.reuse,
                "updated": self.plan.update,
                "deleted": self.plan.delete,
                "unchanged": self.plan.unchanged,
            },
            "tokens": {"embedded": self.plan.tokens if self.embedded else 0},
            **({"cost": asdict(self.cost)} if self.cost else {}),
            "index_rows": {"upserted": self.upserted, "deleted": self.deleted, "after": self.rows_after},
            "seconds": {**seconds, "total": round((self.finished_at - self.started_at) / 1e6, 3)},
        }


class Mill:
    """Everything a command works with: configuration, state, sources, space, index and progress."""

    def __init__(self, config: Config, progress: Progress) -> None:
        self.config = config
        self.progress = progress
        self.state = State(config.state_root, hash_key=config.state.hash_key.get_secret_value())
        self.model = model_path(config.model.name)
        self.limits, self.space = describe(config, self.model)
        self.space_id = self.space.space_id
        self._index: Index | None = None
        self._spark: SparkSession | None = None

    # -- parts -------------------------------------------------------------------------------------------------------

    def index(self) -> Index:
        """The index, opened on first use."""
        if self._index is None:
            from indexers import open_index

            target = self.config.index
            self._index = open_index(target.kind, self.config.index_uri, target.name, target.token.get_secret_value())
        return self._index

    def has_index(self) -> bool:
        """Whether there is an index to ask; a Milvus Lite file that does not exist yet is not created by asking."""
        return "://" in self.config.index_uri or Path(self.config.index_uri).exists()

    @property
    def first_version(self) -> str:
        """The name of an index's first version."""
        return f"{self.config.index.name}__v1"

    def live(self) -> str:
        """The version behind the alias, or the name that the first one gets."""
        return (self.index().live() if self.has_index() else None) or self.first_version

    def check_space(self, version: str) -> None:
        """Refuse an index of another space, naming both."""
        found = self.index().space_of(version)
        if found != self.space_id:
            raise SpaceMismatchError(
                f"index {version} holds space {found}, the configuration asks for {self.space_id} "
                f"({self.config.model.name}); restore model.* or reindex"
            )

    def spark(self, reading: int = 0) -> SparkSession:
        """Spark, started on first use, for work that reads so many bytes of the sources."""
        if self._spark is None:
            small = reading < SMALL_BYTES and self.state.count("chunks") < SMALL_CHUNKS
            with self.progress.phase("starting Spark"):
                self._spark = start_spark(self.config, self.state.engines, self.state.engine_log, small=small)
        return self._spark

    def encoder(self, purpose: Purpose = "document") -> EncoderSpec:
        """What encodes for this configuration; precision, and ``auto``, are settled where it is used."""
        model = self.config.model
        return EncoderSpec(
            model.backend, self.model, self.config.model_cache / self.space.model_id, self.space.max_tokens,
            self.space.dim, model.threads or os.cpu_count() or 1, model.batch_tokens, purpose=purpose,
            remote=model.remote,
        )  # fmt: skip

    def chunking(self) -> Chunking:
        """What executors cut text with."""
        tokenizer = self.model / "tokenizer.json"
        return Chunking(str(tokenizer), self.limits, self.state.hash_key, self.space.chunker)

    def close(self) -> None:
        """Let go of the index."""
        if self._index is not None:
            self._index.close()

    @contextmanager
    def writing(self, command: str, scope: Scope, wait: float) -> Iterator[tuple[Report, Lease]]:
        """Hold the lease, keep the report, and record the run whatever happens in the block."""
        now = int(time.time() * 1_000_000)
        run_id = time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)
        report = Report(run_id, command, self.space_id, self.first_version, scope.to_json(), now)
        check_disk(self.state.root, self.config.limits.min_free_mb)
        with Lease(self.state.root, run_id=run_id, seconds=self.config.state.lease_seconds, wait=wait) as lease:
            self.state.claim_space(self.space_id, self.config.model.name)
            self.state.clear_work()
            try:
                yield report, lease
            finally:
                report.finished_at = int(time.time() * 1_000_000)
                self._record(report)
                self.state.clear_work()

    def _record(self, report: Report) -> None:
        row = {
            "run_id": report.run_id, "command": report.command, "status": report.status,
            "started_at": report.started_at, "finished_at": report.finished_at,
            "report": json.dumps(report.to_json()), "_delete": False,
        }  # fmt: skip
        self.state.change("runs", [row])

    def quarantined(self, scope: Scope) -> int:
        """Rows of the scope in quarantine."""
        columns = ["team_id", "channel_id", "kind", "created_at"]
        rows = self.state.read("quarantine", columns).to_pylist()
        return sum(scope.covers(r["team_id"], r["channel_id"], r["kind"], r["created_at"]) for r in rows)

    def tokens_per_second(self) -> float:
        """Speed of the last run that encoded enough to tell."""
        for row in (
            self.state.read("runs", ["started_at", "report"]).sort_by([("started_at", "descending")]).to_pylist()
        ):
            report = json.loads(row["report"])
            if report["tokens"]["embedded"] > 10_000 and report["seconds"]["embed"] > 0:
                return float(report["tokens"]["embedded"] / report["seconds"]["embed"])
        return DEFAULT_TOKENS_PER_SECOND


def describe(config: Config, model: Path) -> tuple[ChunkLimits, Space]:
    """The chunk limits and the embedding space of a configuration."""
    space = describe_space(model, chunker="", normaliser=NORMALISER_VERSION)
    if (remote := config.model.remote) is not None:
        space = replace(
            space, weights=f"{config.model.backend} {remote.model}", pooling="service", normalised=remote.normalise,
            max_tokens=remote.max_tokens, dim=remote.dim,
        )  # fmt: skip
    limits = ChunkLimits(
        max_tokens=space.max_tokens, overlap_tokens=min(config.model.overlap_tokens, space.max_tokens // 4)
    )
    cut = f"{CHUNKER_VERSION}:{limits.max_tokens}:{limits.overlap_tokens}:{limits.max_chars}"
    space = replace(space, chunker=cut)
    if config.model.backend == "hash":
        space = replace(space, weights="hash", pooling="hash")
    return limits, space


@contextmanager
def _timed(report: Report, step: str) -> Iterator[None]:
    start = time.monotonic()
    try:
        yield
    finally:
        report.seconds[step] = report.seconds.get(step, 0.0) + time.monotonic() - start


# -- commands ----------------------------------------------------------------------------------------------------------


def _extract_and_plan(mill: Mill, scope: Scope, report: Report, version: str) -> None:
    config, state = mill.config, mill.state
    sources = open_sources(config)
    with _timed(report, "extract"), mill.progress.phase("extract"):
        report.extracted = extract(
            mill.spark, state, sources, mill.chunking(), scope, run_id=report.run_id, now=report.started_at
        )
    with _timed(report, "plan"), mill.progress.phase("plan"):
        report.plan = make_plan(
            mill.spark(), state, scope, run_id=report.run_id, index=version, space_id=mill.space_id,
            shard_tokens=config.model.shard_tokens,
        )  # fmt: skip
    report.quarantined = mill.quarantined(scope)


def plan(mill: Mill, scope: Scope, *, wait: float = 0.0) -> dict[str, Any]:
    """Extract and diff; change no index. Returns the plan with an estimate of time (seconds) and cost (USD)."""
    with mill.writing("plan", scope, wait) as (report, _):
        report.index = version = mill.live()
        _extract_and_plan(mill, scope, report, version)
        report.status = "partial" if report.quarantined else "ok"
    made = report.plan
    seconds = made.tokens / mill.tokens_per_second()
    body = report.to_json()
    body["chunks"]["embedded"] = made.embed
    body["tokens"]["embedded"] = made.tokens
    body["index_rows"]["after"] = made.total
    remote = mill.config.model.remote
    usd = seconds / 3600 * mill.config.model.usd_per_hour
    usd += made.tokens / 1e6 * remote.usd_per_million_tokens if remote else 0.0
    body["estimate"] = {"seconds": round(seconds, 1), "usd": round(usd, 4)}
    return body


def run(mill: Mill, scope: Scope, *, allow_mass_delete: bool = False, wait: float = 0.0) -> Report:
    """Extract, plan, embed, publish."""
    config, state = mill.config, mill.state
    with mill.writing("run", scope, wait) as (report, lease):
        report.index = version = _ensure_version(mill)
        _extract_and_plan(mill, scope, report, version)
        if not allow_mass_delete:
            check_deletes(report.plan, config.limits)
        failed: Mapping[tuple[str, str], str] = {}
        if report.plan.embed:
            with _timed(report, "embed"), mill.progress.bar("embed", report.plan.tokens, "tokens") as advance:
                from jobs.embed import embed

                encoded = embed(
                    config, state, mill.encoder(), run_id=report.run_id, space_id=mill.space_id,
                    before_commit=lease.check, progress=advance,
                )  # fmt: skip
            report.embedded, report.cost, failed = encoded.texts, encoded.cost, encoded.failed
        left_out = replace_texts(state, failed, scope, run_id=report.run_id, now=report.started_at)
        with _timed(report, "publish"):
            report.upserted, report.deleted = _publish(mill, report, lease, version, report.plan, left_out)
        report.rows_after = mill.index().count(version)
        report.quarantined = mill.quarantined(scope)
        report.status = "partial" if report.quarantined else "ok"
    return report


def _ensure_version(mill: Mill) -> str:
    """The live version, made with its alias where there is none; an index that was lost empties its ledger."""
    index, state = mill.index(), mill.state
    version = index.live()
    if version is None:
        version = mill.first_version
        if version not in index.versions():
            if state.count("published", pc.field("index") == version):
                state.table("published").delete(f"`index` = '{version}'")
            index.create_version(version, space_id=mill.space_id, dim=mill.space.dim)
        mill.check_space(version)
        index.point_alias(version)
    mill.check_space(version)
    return version


def _publish(mill: Mill, report: Report, lease: Lease, version: str, made: Plan, left_out: int = 0) -> tuple[int, int]:
    from jobs.publish import prepare, publish

    if not made.writes and not made.delete:
        return 0, 0
    rows = mill.config.index.shard_rows
    with mill.progress.phase("prepare rows"):
        missing = prepare(mill.spark(), mill.state, run_id=report.run_id, space_id=mill.space_id, shard_rows=rows)
    if missing != left_out:
        raise EmbedmillError(
            f"{missing - left_out} planned rows have no stored vector; run again, and report this if it stays"
        )
    with mill.progress.bar("publish", made.writes + made.delete, "rows") as advance:
        return publish(
            mill.index(), mill.state, version, run_id=report.run_id, space_id=mill.space_id, shard_rows=rows,
            before_commit=lease.check, progress=advance,
        )  # fmt: skip


def verify(mill: Mill, scope: Scope, *, repair: bool = False, wait: float = 0.0) -> dict[str, Any]:
    """Compare index, ledger and desired state; with ``repair`` mend what differs."""
    from jobs.verify import compare, plan_repair

    with mill.writing("verify", scope, wait) as (report, lease):
        report.index = version = mill.live()
        if version not in mill.index().versions():
            raise EmbedmillError(f"there is no index {version} yet; run `embedmill run` first")
        mill.check_space(version)
        with mill.progress.phase("verify"):
            found, frame = compare(
                mill.spark(), mill.state, mill.index(), version, scope, run_id=report.run_id, space_id=mill.space_id
            )
        mended = 0
        if repair and found.total:
            writes, deletes = plan_repair(mill.spark(), mill.state, frame, version, run_id=report.run_id)
            made = Plan(reuse=writes, delete=deletes)
            with _timed(report, "publish"):
                report.upserted, report.deleted = _publish(mill, report, lease, version, made)
            mended = report.upserted + report.deleted
        report.rows_after = mill.index().count(version)
        report.quarantined = mill.quarantined(scope)
        report.status = "ok" if found.total == mended else "failed"
        waiting = changed_partitions(mill.state, open_sources(mill.config), mill.chunking())
    return {
        "run_id": report.run_id, "index": version, "space_id": mill.space_id, "scope": report.scope,
        "status": "ok" if found.total == 0 else "repaired" if found.total == mended else "differs",
        "checked": found.checked, "sampled_vectors": found.sampled, "differences": found.counts,
        "examples": found.examples, "repaired": mended, "index_rows": report.rows_after,
        "source_partitions_changed": waiting,
    }  # fmt: skip


def search(
    mill: Mill, text: str, *, team: str, channels: Sequence[str] = (), kind: str | None = None, k: int = 10
) -> dict[str, Any]:
    """Nearest chunks through the alias. Refuses an index of another space."""
    if not mill.has_index() or mill.index().live() is None:
        raise EmbedmillError(f"there is no index {mill.config.index.name!r} yet; run `embedmill run` first")
    version = mill.live()
    mill.check_space(version)
    with mill.progress.phase("loading the model"):
        encoder = open_encoder(mill.encoder("query"))
    tokens = Chunker(mill.model / "tokenizer.json", mill.limits).split_batch([text])
    import numpy as np

    vector = encoder.encode([text], np.array([sum(s.tokens for s in tokens[0]) or 1]))[0]
    hits: list[Hit] = mill.index().search(None, vector, team_id=team, channels=channels, kind=kind, k=k)
    return {"space_id": mill.space_id, "index": version, "hits": [_hit(h) for h in hits]}


def _hit(hit: Hit) -> dict[str, Any]:
    return {
        "chunk_id": hit.chunk_id, "score": round(hit.score, 6), "team_id": hit.team_id, "channel_id": hit.channel_id,
        "kind": hit.kind, "doc_id": hit.doc_id, "text": hit.text, "created_at": iso(hit.created_at),
    }  # fmt: skip


def status(mill: Mill) -> dict[str, Any]:
    """What is where: tables, index versions, alias, last runs, lag (seconds since the last good run), quarantine."""
    state = mill.state
    names = ("sources", "chunks", "vectors", "published", "quarantine", "runs")
    runs = state.read("runs").sort_by([("started_at", "descending")]).to_pylist()
    good = [r for r in runs if r["command"] == "run" and r["status"] in ("ok", "partial")]
    reasons: dict[str, int] = {}
    for reason in state.read("quarantine", ["reason"])["reason"].to_pylist():
        reasons[reason] = reasons.get(reason, 0) + 1
    versions = []
    if mill.has_index():
        index = mill.index()
        versions = [{"name": v, "rows": index.count(v), "space_id": index.space_of(v)} for v in index.versions()]
    return {
        "space_id": mill.space_id,
        "tables": {name: state.count(name) for name in names},
        "index": {
            "alias": mill.config.index.name,
            "live": mill.index().live() if versions else None,
            "versions": versions,
        },
        "last_runs": [
            {"run_id": r["run_id"], "command": r["command"], "status": r["status"], "started_at": iso(r["started_at"])}
            for r in runs[:5]
        ],
        "lag_seconds": round(time.time() - good[0]["started_at"] / 1e6, 1) if good else None,
        "quarantine": {"total": sum(reasons.values()), "reasons": dict(sorted(reasons.items()))},
    }  # fmt: skip
