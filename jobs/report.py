"""The run report: what a command did, as the contract has it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from jobs.bodies import run as bodies
from jobs.extract.extract import ExtractReport
from jobs.plan.plan import Plan
from jobs.run_details import RunDetails, StepTime
from jobs.scope import iso, parse_moment
from jobs.telemetry import tracing

if TYPE_CHECKING:
    from embedding.encoders.remote.cost import Cost
    from jobs.bodies.base import ScopeBody
    from jobs.bodies.purge import Receipt
    from jobs.embed.stored_shard import StoredShard
    from jobs.state.store import State


BEGUN = "begun"  # the status in ``runs`` of one that is under way, or was killed


def new_run_id() -> str:
    """The time to the second, and what tells two runs of one second apart."""
    return time.strftime("%Y%m%dT%H%M%S", time.gmtime()) + "-" + secrets.token_hex(3)


@dataclass(slots=True)
class Report:
    """The run report of the contract, and the figures beside it that a person or a test asks for."""

    run_id: str
    command: str
    space_id: str
    index: str
    scope: ScopeBody
    started_at: int
    status: bodies.RunStatus = "failed"
    finished_at: int = 0
    extracted: ExtractReport = field(default_factory=ExtractReport)
    plan: Plan = field(default_factory=Plan)
    embedded: int = 0
    tokens: int = 0
    unreadable: int = 0  # of the embedded texts, those that the model's tokenizer knows next to nothing of
    upserted: int = 0
    deleted: int = 0
    rows_after: int = 0
    quarantined: int = 0
    ignored: int = 0  # rows in quarantine for whose kind there is no use
    held_back: int = 0  # documents that may be gone, and stay
    cost: Cost | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    scratch_cleared: int = 0  # folders of earlier runs that were found as this one began
    receipt: Receipt | None = None  # of a purge
    details: RunDetails = field(default_factory=RunDetails)
    error: str | None = None  # class of what ended it
    lease_wait: float | None = None  # seconds, of one that had to wait
    differences: Mapping[str, int] | None = None  # that a verify leaves
    encoded_before: float = 0.0  # encode_seconds of earlier processes of this run
    settled: bool = False  # all that it should do was done: of everything, nothing is left over

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Add what the block takes to the step's seconds."""
        start = time.monotonic()
        try:
            with tracing.span(step):
                yield
        finally:
            took = time.monotonic() - start
            self.seconds[step] = self.seconds.get(step, 0.0) + took
            now = time.time_ns()
            self.details.steps.append(StepTime(step, now - int(took * 1e9), now))

    def count_embedded(self, shards: Iterable[StoredShard]) -> None:
        """Add what was encoded and stored."""
        for shard in shards:
            self.details.add_shard(shard.timing, shard.texts, shard.tokens)
            self.embedded += shard.texts
            self.tokens += shard.tokens
            self.unreadable += shard.unreadable
            if shard.cost:
                self.cost = self.cost + shard.cost if self.cost else shard.cost

    @property
    def encode_seconds(self) -> float | None:
        """From the first shard to the last, whoever encoded them; None where there was none."""
        shards = self.details.shards
        took = (max(one.ended for one in shards) - min(one.began for one in shards)) / 1e9 if shards else 0.0
        return round(took + self.encoded_before, 3) or None

    def go_on(self, before: bodies.RunReport) -> None:
        """Take over what an earlier process of this run reported."""
        self.started_at = parse_moment(before.started_at, "started_at")
        self.index = before.index
        documents, partitions, chunks, rows = before.documents, before.partitions, before.chunks, before.index_rows
        self.extracted = ExtractReport(
            partitions.listed, partitions.opened, documents.read, documents.rejected, skipped=dict(documents.skipped)
        )
        self.quarantined, self.ignored = documents.quarantined, documents.ignored
        self.held_back = documents.held_back
        self.plan = Plan(
            chunks.total, 0, chunks.reused, chunks.updated, chunks.deleted, chunks.unchanged, renamed=chunks.renamed
        )
        self.embedded, self.tokens = chunks.embedded, before.tokens.embedded
        self.unreadable = before.tokens.unknown_texts
        self.upserted, self.deleted, self.rows_after = rows.upserted, rows.deleted, rows.after
        self.encoded_before = before.encode_seconds or 0.0
        self.seconds = before.seconds.model_dump(exclude={"total"})
        if before.cost:
            from embedding.encoders.remote.cost import Cost

            self.cost = Cost.of_json(before.cost.model_dump())

    def body(self) -> bodies.RunReport:
        """The report as the contract has it."""
        steps = {step: round(self.seconds.get(step, 0.0), 3) for step in ("extract", "plan", "embed", "publish")}
        return bodies.RunReport(
            run_id=self.run_id,
            command=self.command,
            status=self.status,
            space_id=self.space_id,
            index=self.index,
            scope=self.scope,
            started_at=iso(self.started_at),
            finished_at=iso(self.finished_at),
            documents=bodies.Documents(
                read=self.extracted.read,
                quarantined=self.quarantined,
                ignored=self.ignored,
                held_back=self.held_back,
                rejected=self.extracted.rejected,
                skipped=dict(sorted(self.extracted.skipped.items())),
            ),
            partitions=bodies.Partitions(listed=self.extracted.partitions, opened=self.extracted.opened),
            chunks=bodies.Chunks(
                total=self.plan.total,
                embedded=self.embedded,
                reused=self.plan.reuse,
                updated=self.plan.update,
                deleted=self.plan.delete,
                unchanged=self.plan.unchanged,
                renamed=self.plan.renamed,
            ),
            tokens=bodies.Tokens(embedded=self.tokens, unknown_texts=self.unreadable),
            cost=bodies.CostBody.model_validate(asdict(self.cost)) if self.cost else None,
            receipt=self.receipt,
            index_rows=bodies.IndexRows(upserted=self.upserted, deleted=self.deleted, after=self.rows_after),
            error=self.error,
            lease_wait=self.lease_wait,
            encode_seconds=self.encode_seconds,
            differences=None if self.differences is None else dict(self.differences),
            seconds=bodies.Seconds(**steps, total=round((self.finished_at - self.started_at) / 1e6, 3)),
        )


def record(state: State, report: Report, *, begun: bool = False) -> None:
    """Keep a run's report in ``runs``; one of the same run_id is replaced. Call it only while holding the lease."""
    body = report.body()
    row = {
        "run_id": report.run_id,
        "command": report.command,
        "status": BEGUN if begun else report.status,
        "started_at": report.started_at,
        "finished_at": report.finished_at,
        "report": (body.model_copy(update={"status": "running"}) if begun else body).to_json(),
        "_delete": False,
    }
    state.change("runs", [row])


def recorded(state: State, run_id: str) -> bodies.RunReport | None:
    """The report that a run has kept; None of a run that has kept none. Fields of a later release are passed over."""
    rows = state.read("runs", ["run_id", "report"], pc.field("run_id") == run_id).to_pylist()
    return bodies.RunReport.model_validate_json(rows[0]["report"], extra="ignore") if rows else None
