"""Which partitions must be read: new, changed, gone, or sharing documents with one of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from embedding.records import Rejected
from jobs.extract.held_deletions import At
from jobs.extract.partition_reader import (
    Chunking,
)
from jobs.extract.source_state import partition_fingerprint
from jobs.scope import Scope
from jobs.sources.base import NameMap, Partition, Source
from jobs.state.store import State


@dataclass(frozen=True, slots=True)
class _Work:
    """Which partitions to read, and which are gone; which are known and could not be ``listed``, by reason.

    ``looked`` are the sources that were listed; what others had rejected stays.
    """

    read: list[tuple[int, Partition]]
    gone: list[At]
    rejected: list[tuple[Source, Rejected]]
    looked: frozenset[str]
    listed: frozenset[At]
    unlisted: Mapping[At, str]


def changed_partitions(state: State, sources: Sequence[Source], chunking: Chunking) -> int:
    """How many partitions differ from what was read last; opens none."""
    known = {(r["source_id"], r["partition"]): r for r in state.read("sources").to_pylist()}
    work = choose_partitions(sources, known, chunking, Scope())
    return len(work.read) + len(work.gone)


def choose_partitions(
    sources: Sequence[Source], known: Mapping[At, Mapping[str, object]], chunking: Chunking, scope: Scope
) -> _Work:
    """Choose the partitions that must be read for a scope, and those that are gone."""
    chosen: dict[At, tuple[int, Partition]] = {}
    listed: dict[At, tuple[int, Partition]] = {}
    gone: list[At] = []
    rejected: list[tuple[Source, Rejected]] = []
    looked: set[str] = set()
    unlisted: dict[At, str] = {}
    by_source: dict[str, list[At]] = {}
    for at in known:
        by_source.setdefault(at[0], []).append(at)
    for number, source in enumerate(sources):
        if scope.teams and source.team_id is not None and source.team_id not in scope.teams:
            continue
        if scope.kind is not None and source.kind != scope.kind:
            continue
        listing = source.listing()
        looked.add(source.source_id)
        names = NameMap(source.names)
        rejected += [(source, r) for r in listing.rejected]
        for partition in listing.partitions:
            at = (source.source_id, partition.key)
            listed[at] = (number, partition)
            if scope.may_hold(source, partition) and changed(known.get(at), partition, source, names, chunking):
                chosen[at] = (number, partition)
        # A listing with nothing in it is a fault, whatever it says of itself: an empty root is never a deletion.
        complete = listing.complete and bool(listing.partitions)
        # What was refused (a file or a folder that is now a link out of the root) is not gone, only out of reach.
        refused = {r.key: r.reason for r in listing.rejected}
        for at in by_source.get(source.source_id, ()):
            if at in listed:
                continue
            if reason := below(at[1], refused):
                unlisted[at] = reason
            elif not complete:
                unlisted[at] = next(iter(refused.values()), "nothing_listed")
            elif not scope.channels and scope.since is None and scope.until is None:
                gone.append(at)
    _add_overlapping(chosen, listed, gone, known)
    return _Work(list(chosen.values()), gone, rejected, frozenset(looked), frozenset(listed), unlisted)


def below(key: str, refused: Mapping[str, str]) -> str:
    """Why a partition, or a folder that it lies in, was refused; empty where it was not."""
    folders = (key[:cut] for cut, letter in enumerate(key) if letter == "/")
    return next((refused[name] for name in (key, *folders) if name in refused), "")


def changed(
    row: Mapping[str, object] | None, partition: Partition, source: Source, names: NameMap, chunking: Chunking
) -> bool:
    """Whether a partition is not as it was read last, by its ``row`` of ``sources``."""
    return (
        row is None
        or bool(row["retry"])
        or row["fingerprint"] != partition_fingerprint(partition)
        or row["reader"] != f"{source.reader}:{chunking.version}"
        or row["refs_hash"] != names.fingerprint(row["refs"] or [])  # type: ignore[arg-type]
    )


def _add_overlapping(
    chosen: dict[At, tuple[int, Partition]],
    listed: Mapping[At, tuple[int, Partition]],
    gone: Sequence[At],
    known: Mapping[At, Mapping[str, object]],
) -> None:
    """Where two partitions hold one document, a change of either must look at both again."""
    moved = set(chosen) | set(gone)
    for at, row in known.items():
        others = {tuple(o.split("\0", 1)) for o in row["overlaps"] or []}  # type: ignore[attr-defined]
        group = others | {at}
        if others and group & moved:
            for member in group:
                if member in listed:
                    chosen[member] = listed[member]
