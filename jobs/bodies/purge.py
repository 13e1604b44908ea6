"""The body of `purge`: the receipt."""

from __future__ import annotations

from pydantic import AliasChoices, Field

from jobs.bodies.base import Body, ScopeBody


class Removed(Body):
    """Rows that a purge removed, by where they were."""

    vectors: int
    chunks: int
    index: int
    ledger: int
    quarantine: int
    removals: int


class PurgedDocuments(Body):
    """``count`` documents; the first 1,000 hashed ids in order, and one digest of all of them."""

    count: int
    hashed_ids: tuple[str, ...]
    digest: str


class PurgedTables(Body):
    """State of the tables' old files, and how many were removed."""

    state: str
    files: int


class PurgedScratch(Body):
    """State of the work folders, and how many were removed."""

    state: str
    folders: int


class PurgedLog(Body):
    """State of a log."""

    state: str


class PurgedStorage(Body):
    """Whether the bytes are gone from the files too. ``index`` is by version."""

    tables: PurgedTables
    index: dict[str, str]
    scratch: PurgedScratch
    engines_log: PurgedLog = Field(
        validation_alias=AliasChoices("engines_log", "engines.log"), serialization_alias="engines.log"
    )


class Receipt(Body):
    """What a purge removed. ``unmatched`` are the first 1,000 ids that nothing was known of.

    ``models`` have been trained on some of it: how many of their documents, by model. They are marked. ``trainings``
    are folders of trainings that were not under way, removed on this machine.
    """

    removed: Removed
    documents: PurgedDocuments
    matched: int
    unmatched: tuple[str, ...]
    storage: PurgedStorage
    models: dict[str, int] = {}
    trainings: int = 0


class _PurgeHead(Body):
    run_id: str
    index: str
    scope: ScopeBody
    ids: int


class PurgeBody(Receipt, _PurgeHead):
    """`purge`: the receipt; ``ids`` documents were named."""
