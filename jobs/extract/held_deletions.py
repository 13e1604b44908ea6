"""Held deletions: those that wait, because a record that could not be read may be the document that is missing.

A document that its partition no longer shows is deleted, unless it may be there in a form that cannot be read. Which
documents that are is decided here from what was rejected, purely; what is held back is kept with the partition's row
in ``sources``, so that ``status`` and ``verify`` can say it: where, why, how many documents, and since when.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from jobs.bodies.answers import HeldBackBody
from jobs.scope import EVERYTHING, Scope, iso

if TYPE_CHECKING:
    from jobs.extract.extracted import RejectedRow
    from jobs.state.store import State
    from jobs.state.tables import SourceRow

At = tuple[str, str]  # source_id, partition


@dataclass(frozen=True, slots=True)
class HeldBack:
    """Documents of a partition whose text stays although it may be gone; ``since`` in µs, ``documents`` their number.

    ``reason`` is that of the record in quarantine, or of what kept the partition from being listed.
    """

    source_id: str
    partition: str
    reason: str
    since: int
    documents: int

    def body(self) -> HeldBackBody:
        """As ``status`` and ``verify`` say it, the time as ISO 8601."""
        return HeldBackBody(
            source_id=self.source_id,
            partition=self.partition,
            reason=self.reason,
            since=iso(self.since),
            documents=self.documents,
        )


def held_back(state: State, scope: Scope = EVERYTHING) -> list[HeldBack]:
    """What is held back as far as the last reading of each partition tells, oldest first.

    Of a ``scope`` its documents alone count. Where a partition that was not read to its end holds others too, they are
    as many at most: which of its documents are missing is not known. Cost: the rows of ``sources``; of a scope also
    those that ``chunks`` has of its teams, where anything is held back.
    """
    columns = ["source_id", "partition", "documents", "held_back", "unlisted", "unlisted_since"]
    rows = state.read("sources", columns, pc.field("held_back").is_valid() | pc.field("unlisted").is_valid())
    listed = rows.to_pylist()
    inside = None if scope.covers_all else _documents(state, scope, {(r["source_id"], r["partition"]) for r in listed})
    found = []
    for row in listed:
        at = row["source_id"], row["partition"]
        ours = None if inside is None else inside.get(at, set())
        said = json.loads(row["held_back"] or "{}")
        single = {doc for held in said.values() for doc in held["ids"]} if ours is not None else set()
        for reason, held in said.items():
            count = held["documents"]
            if ours is not None:
                rest = min(count - len(held["ids"]), len(ours - single))
                count = len(ours.intersection(held["ids"])) + rest
            found.append(HeldBack(*at, reason, held["since"], count))
        if row["unlisted"]:
            count = row["documents"] or 0
            count = count if ours is None else min(count, len(ours))
            found.append(HeldBack(*at, row["unlisted"], row["unlisted_since"], count))
    return sorted(
        (one for one in found if one.documents),
        key=lambda one: (one.since, one.source_id, one.partition, one.reason),
    )


def _documents(state: State, scope: Scope, places: Set[At]) -> dict[At, set[str]]:
    """The documents of a scope that ``chunks`` has of some partitions."""
    found: dict[At, set[str]] = {}
    if not places:
        return found
    names = ["source_id", "partition", "doc_id", "team_id", "channel_id", "kind", "created_at"]
    of = [("team_id", "in", sorted(scope.teams))] if scope.teams else []
    where = pc.field("partition").isin(sorted({partition for _, partition in places}))
    for batch in state.dataset("chunks", of).to_batches(names, where):
        for row in batch.to_pylist():
            at = row["source_id"], row["partition"]
            if at in places and scope.covers(row["team_id"], row["channel_id"], row["kind"], row["created_at"]):
                found.setdefault(at, set()).add(row["doc_id"])
    return found


# -- deciding ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Judged:
    """What the reading of a partition lets us conclude.

    ``covered``: what it owned and does not show is gone, but for the documents in ``named`` (reason by doc_id: their
    own record could not be read) and in ``waiting`` (missing since an earlier reading, and a suspect is still there).
    Else all that is missing stays. ``reason`` is that of the records that may be anything.
    """

    covered: bool
    reason: str
    named: Mapping[str, str]
    waiting: frozenset[str]
    digests: tuple[str, ...]
    suspects: tuple[str, ...]

    @property
    def holds(self) -> bool:
        """Whether anything that is missing may stay."""
        return not self.covered or bool(self.named) or bool(self.waiting)


def judge(row: SourceRow | None, whole: bool, rejects: Sequence[RejectedRow]) -> Judged:
    """Decide what follows from a reading with these ``rejects`` (rows of EXTRACTED), ``whole`` or not.

    ``row`` is what ``sources`` says of the last one. A record that names no document and was there at the last whole
    reading cannot be a document that was still read then: only records that are new since may be what is missing.
    """
    faults = [r for r in rejects if not r["ignored"]]
    named = {r["doc_id"]: r["reason"] for r in faults if r["doc_id"]}
    anything = [r for r in faults if not r["doc_id"]]
    before = (row and row["digests"]) or ()
    suspects, held = set((row and row["suspects"]) or ()), frozenset((row and row["held"]) or ())
    if not whole:
        reason = next((r["reason"] for r in anything if r["whole"] or not r["digest"]), "unreadable")
        return Judged(False, reason, named, held, tuple(before), tuple(sorted(suspects)))
    now = Counter(r["digest"] for r in anything)
    new = now - Counter(before) if row is not None else Counter()  # where nothing was known, nothing can be missing
    suspects = (suspects & set(now)) | set(new)
    reason = next((r["reason"] for r in anything if r["digest"] in suspects), "")
    return Judged(
        covered=not new,
        reason=reason,
        named=named,
        waiting=held if suspects else frozenset(),
        digests=tuple(sorted(now.elements())),
        suspects=tuple(sorted(suspects)),
    )


@dataclass(frozen=True, slots=True)
class Kept:
    """Documents that stayed although their partition does not show them, of one reason: their number.

    ``ids`` where single documents are held and not the partition, and ``waiting`` those of them that wait for a suspect
    to go.
    """

    reason: str
    documents: int
    ids: tuple[str, ...]
    waiting: tuple[str, ...]


def held_back_columns(
    row: SourceRow | None, judged: Judged, whole: bool, kept: Iterable[Kept], let_go: Collection[str], now: int
) -> dict[str, object]:
    """The columns of ``sources`` that say what is left open.

    ``let_go`` are documents that another reading or event decided. ``now`` is the time of the run (µs).
    """
    before = json.loads((row and row["held_back"]) or "{}")
    waiting: set[str] = set(() if whole else (row and row["held"]) or ()).difference(let_go)
    said: dict[str, dict[str, object]] = {}
    for one in sorted(kept, key=lambda one: one.reason):
        since = before.get(one.reason, {}).get("since", now)
        said[one.reason] = {"since": since, "documents": one.documents, "ids": sorted(one.ids)}
        waiting |= set(one.waiting)
    return {
        "named": sorted(judged.named) or None,
        "digests": list(judged.digests),
        "suspects": list(judged.suspects),
        "held": sorted(waiting) or None,
        "held_back": json.dumps(said) if said else None,
        "unlisted": None,
        "unlisted_since": None,
    }


def ids_held(row: SourceRow) -> set[str]:
    """The documents that a row of ``sources`` names as held back."""
    said = json.loads(row["held_back"] or "{}").values()
    return set(row["held"] or ()).union(*(one["ids"] for one in said))


def without(row: SourceRow, documents: Collection[str]) -> SourceRow:
    """A row of ``sources`` once these documents are held back no more."""
    said = {}
    for reason, one in json.loads(row["held_back"] or "{}").items():
        ids = [doc for doc in one["ids"] if doc not in documents]
        if left := one["documents"] - len(one["ids"]) + len(ids):
            said[reason] = one | {"documents": left, "ids": ids}
    held = sorted(set(row["held"] or ()).difference(documents))
    return {**row, "held": held or None, "held_back": json.dumps(said) if said else None}


def drop_held(state: State, documents: Set[str]) -> bool:
    """Take documents out of what is held back, of every cut; returns whether any was there."""
    found = False
    for cut in state.values("sources", "cut"):
        one = state.of_cut(cut)
        rows = []
        for row in one.read("sources").to_pylist():
            named = set(row["named"] or ())
            if named & documents or ids_held(row) & documents:
                rows.append({**without(row, documents), "named": sorted(named - documents) or None, "_delete": False})
        one.change("sources", rows)
        found |= bool(rows)
    return found


def note_unlisted(
    state: State,
    known: Mapping[At, SourceRow],
    unlisted: Mapping[At, str],
    listed: Iterable[At],
    *,
    now: int,
    run_id: str,
) -> None:
    """Note which partitions the listing could not tell of, by reason, and those that are listed again.

    ``known`` are the rows of ``sources``, and are kept up to date.
    """
    changed = []
    for at, reason in unlisted.items():
        if known[at]["unlisted"] != reason:
            since = known[at]["unlisted_since"] if known[at]["unlisted"] else now
            known[at].update({"unlisted": reason, "unlisted_since": since, "run_id": run_id})
            changed.append(at)
    for at in listed:
        if at in known and known[at]["unlisted"]:
            known[at].update({"unlisted": None, "unlisted_since": None, "run_id": run_id})
            changed.append(at)
    state.change("sources", [{**known[at], "_delete": False} for at in changed])
