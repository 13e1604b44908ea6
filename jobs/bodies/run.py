"""The run report, and the bodies that add to it: `run`, `plan`, `step`, `reindex`."""

from __future__ import annotations

from typing import Literal

from jobs.bodies.base import Absent, Body, Number, ScopeBody
from jobs.bodies.purge import Receipt


class Documents(Body):
    """``read`` in this run; ``quarantined`` and ``ignored`` in the scope now; ``rejected`` by this run.

    ``skipped`` counts records that are no documents, by reason. ``held_back`` are documents in the scope that may be
    gone, and stay until what hides them can be read.
    """

    read: int
    quarantined: int
    ignored: int = 0
    rejected: int
    skipped: dict[str, int]
    held_back: int = 0


class Partitions(Body):
    """Source partitions (files, days): ``listed``, and ``opened`` of them because they had changed."""

    listed: int
    opened: int


class Chunks(Body):
    """``embedded`` were sent to the encoder, ``reused`` had a stored vector, ``updated`` changed metadata only.

    ``renamed`` are rows that had to be embedded only because a name before their text is new.
    """

    total: int
    embedded: int
    reused: int
    updated: int
    deleted: int
    unchanged: int
    renamed: int = 0


class Tokens(Body):
    """``embedded`` tokens; ``unknown_texts`` are texts of next to nothing but unknown tokens."""

    embedded: int
    unknown_texts: int = 0


class EndpointCostBody(Body):
    """What one endpoint was asked: ``name`` is its number, backend and model.

    ``failures`` are requests without a valid answer, ``hedged`` those that were sent to it while another was still
    asked, ``opened`` says how often it was left out for its failures.
    """

    name: str
    requests: int
    failures: int
    tokens: int
    usd: Number
    hedged: int
    opened: int


class CostBody(Body):
    """What a managed model was asked; ``usd`` is an estimate. ``endpoints`` divides it, where there are several."""

    requests: int
    retries: int
    texts: int
    tokens: int
    usd: Number
    endpoints: tuple[EndpointCostBody, ...] = ()


class IndexRows(Body):
    """Rows written, rows deleted, and rows of the version afterwards."""

    upserted: int
    deleted: int
    after: int


class Seconds(Body):
    """Time of each step; ``total`` is from start to end, waits between steps included."""

    extract: float
    plan: float
    embed: float
    publish: float
    total: float


RunStatus = Literal["ok", "partial", "failed", "running"]


class RunReport(Body):
    """`run`: what it did. Kept in the table ``runs`` for every command that writes.

    ``error`` is the class of what ended it, ``lease_wait`` the seconds that it waited for another run, ``differences``
    the rows that a verify leaves different, by kind, ``encode_seconds`` the time from the first shard to the last.
    """

    run_id: str
    command: str
    status: RunStatus
    space_id: str
    index: str
    scope: ScopeBody
    started_at: str
    finished_at: str
    documents: Documents
    partitions: Partitions
    chunks: Chunks
    tokens: Tokens
    cost: Absent[CostBody] = None
    receipt: Absent[Receipt] = None
    index_rows: IndexRows
    seconds: Seconds
    error: Absent[str] = None
    lease_wait: Absent[float] = None
    differences: Absent[dict[str, int]] = None
    encode_seconds: Absent[float] = None

    @property
    def tokens_per_second(self) -> float | None:
        """Speed of encoding, from the first shard to the last; None where nothing was encoded.

        Of a run of an earlier release it is that of the whole step.
        """
        took = self.encode_seconds or self.seconds.embed
        return self.tokens.embedded / took if took and self.tokens.embedded else None


class Estimate(Body):
    """Of encoding what the plan embeds, by the speed of the last run and the configured prices."""

    seconds: float
    usd: float


class PlanBody(RunReport):
    """`plan`: the report's counts are what a run would do."""

    estimate: Estimate


class StepBody(RunReport):
    """`step`: the report so far. ``estimate`` is of the step "plan"; ``empty``: nothing is left to embed or publish."""

    estimate: Absent[Estimate] = None
    step: Literal["extract", "plan", "embed", "publish"]
    empty: bool


class GateCheck(Body):
    """One question of the gate: ``value`` against ``limit``."""

    name: str
    passed: bool
    value: Number
    limit: Number
    detail: str


class Drift(Body):
    """How the answers of a new model differ from the live version's, over ``queries`` queries; a report only."""

    queries: int
    overlap_at_10: Absent[float] = None
    best_score_before: Absent[float] = None
    best_score_after: Absent[float] = None


class Gate(Body):
    """All checks before the alias moves."""

    passed: bool
    checks: tuple[GateCheck, ...]
    drift: Absent[Drift] = None


class ReindexBody(RunReport):
    """`reindex`: ``previous`` is the version that was live, null where there was none."""

    gate: Gate
    activated: bool
    previous: str | None
