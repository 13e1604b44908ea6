"""What `explain` answers."""

from __future__ import annotations

from typing import Literal

from jobs.bodies.base import Absent, Body

State = Literal["published", "pending", "quarantined", "purged", "held_back", "unknown"]
Verdict = Literal[
    "published", "waiting", "lost", "held_back", "quarantined", "ignored", "purged", "deleted", "empty", "absent"
]


class Held(Body):
    """A version of the index: ``row`` is in it, the ``ledger`` says so, and it is what is desired now (``current``).

    ``run_id`` wrote it; "" where the ledger does not know of it.
    """

    version: str
    live: bool
    row: bool
    ledger: bool
    current: bool
    run_id: str


class ExplainedChunk(Body):
    """A desired chunk. ``vector_run`` encoded its text, "" where there is no vector of it in ``space_id``."""

    chunk_id: str
    tokens: int
    content_hash: str
    meta_hash: str
    space_id: str
    vector_run: str
    indexes: tuple[Held, ...]
    text: Absent[str] = None


class Reading(Body):
    """A partition that the document was read from: ``owns`` its text now, or holds the same documents.

    ``run_id`` is that of its last reading, ``read_at`` when that run began, "" of a run that is not on record.
    """

    source_id: str
    partition: str
    owns: bool
    run_id: str
    read_at: str


class QuarantinedRecord(Body):
    """Why a record of it, or its whole partition, could not be processed; ``ignored``: there is no use for its kind."""

    source_id: str
    partition: str
    key: str
    step: str
    reason: str
    detail: str
    attempts: int
    first_seen: str
    last_seen: str
    ignored: bool = False


class PurgeRuleBody(Body):
    """A purge that covers it: what is of a version up to ``purged_at`` stays away."""

    run_id: str
    purged_at: str
    channel_id: str
    before: str | None


class RemovalBody(Body):
    """A source that says it is gone (``deleted``), or without text, since the version."""

    source_id: str
    partition: str
    deleted: bool
    version: str


class ExplainBody(Body):
    """`explain`: where a document is and why. Of another team's, as of one that was never seen, ``absent``.

    ``id`` is the document's. ``state`` puts the verdicts together: what a run or a repair has still to do is pending,
    what is not there and is not to be (deleted, ignored, empty, absent) is unknown. ``version`` is that of the text
    that counts (its last edit), ``created_at`` when it was written; null of what has no text here. ``left_over`` are
    rows in an index that is not to have them any more.
    """

    id: str
    team_id: str
    state: State
    verdict: Verdict
    because: str
    kind: str
    channel_id: str
    created_at: str | None
    version: str | None
    readings: tuple[Reading, ...]
    chunks: tuple[ExplainedChunk, ...]
    left_over: dict[str, tuple[str, ...]]
    quarantine: tuple[QuarantinedRecord, ...]
    purges: tuple[PurgeRuleBody, ...]
    removals: tuple[RemovalBody, ...]
