"""Which partitions must be read: new, changed, gone, or sharing documents with one of these."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from embedding.records import Rejected
from jobs.extract.cutting import Chunking
from jobs.extract.held_deletions import At, ids_held
from jobs.scope import Scope
from jobs.sources.base import Listing, NameMap, Partition, Source
from jobs.state.store import State
from jobs.state.tables import SourceRow


@dataclass(frozen=True, slots=True)
class Extraction:
    """What one run extracts: the scope of its sources, read into a state. ``now`` is the time of the run (µs)."""

    state: State
    sources: Sequence[Source]
    chunking: Chunking
    scope: Scope
    run_id: str
    now: int

    def known(self) -> dict[At, SourceRow]:
        """Read the rows of ``sources``: what each partition was when it was last read."""
        return {(r["source_id"], r["partition"]): r for r in self.state.read("sources").to_pylist()}


@dataclass(frozen=True, slots=True)
class SourceChanges:
    """How the listed sources differ from the ``known`` rows of the table ``sources``.

    ``read`` are the partitions to read, with the number of their source; ``gone`` those that are no longer there;
    ``unlisted`` those that are known and could not be listed, by reason. ``looked`` are the ids of the sources that
    were listed, ``rejected`` what their listings refused; what others had rejected stays. ``read_otherwise`` says that
    chunks were made in another way when some partition was last read. ``moving`` are the ids of the sources whose
    documents may move from one partition to another.
    """

    known: dict[At, SourceRow]
    read: list[tuple[int, Partition]]
    gone: list[At]
    rejected: list[tuple[Source, Rejected]]
    looked: frozenset[str]
    listed: frozenset[At]
    unlisted: Mapping[At, str]
    read_otherwise: bool = False
    moving: frozenset[str] = frozenset()

    @property
    def held(self) -> set[str]:
        """The documents that were held back before this run."""
        return set().union(*(ids_held(row) for row in self.known.values() if row["held_back"] or row["held"]))

    def unsure(self, read: Iterable[At], chunking: Chunking) -> list[At]:
        """Those of the partitions ``read`` that no run before has read in this way and to its end.

        What ``chunks`` holds of them may be a part of what was to be there.
        """
        known = {at: self.known.get(at) for at in read}
        return [at for at, row in known.items() if row is None or not row["fingerprint"] or not _read_by(row, chunking)]

    def held_elsewhere(self, read: Iterable[At]) -> dict[At, Sequence[str]]:
        """The unreadable documents of partitions that are neither in ``read`` nor gone."""
        done = {*read, *self.gone}
        return {at: row["named"] for at, row in self.known.items() if row["named"] and at not in done}


def partition_fingerprint(partition: Partition) -> str:
    """Fingerprint of a partition where it is now."""
    # A file's name need not be UTF-8.
    return f"{partition.fingerprint}:{partition.path}".encode("utf-8", "backslashreplace").decode()


def changed_partitions(extraction: Extraction) -> int:
    """How many partitions of the scope differ from what was read last; opens none."""
    work = choose_partitions(extraction.sources, extraction.known(), extraction.chunking, extraction.scope)
    return len(work.read) + len(work.gone)


def choose_partitions(
    sources: Sequence[Source], known: dict[At, SourceRow], chunking: Chunking, scope: Scope
) -> SourceChanges:
    """Choose the partitions that must be read for a scope, and those that are gone."""
    chosen: dict[At, tuple[int, Partition]] = {}
    listed: dict[At, tuple[int, Partition]] = {}
    gone: list[At] = []
    rejected: list[tuple[Source, Rejected]] = []
    looked: set[str] = set()
    moving: set[str] = set()
    unlisted: dict[At, str] = {}
    by_source: dict[str, list[At]] = {}
    for at in known:
        by_source.setdefault(at[0], []).append(at)
    for number, source in enumerate(sources):
        if not _in_scope(source, scope):
            continue
        listing = source.listing()
        looked.add(source.source_id)
        if listing.moves:
            moving.add(source.source_id)
        names = NameMap(source.names)
        rejected += [(source, r) for r in listing.rejected]
        for partition in listing.partitions:
            at = (source.source_id, partition.key)
            listed[at] = (number, partition)
            if scope.may_hold(source, partition) and changed(known.get(at), partition, source, names, chunking):
                chosen[at] = (number, partition)
        missing, hidden = _absent(listing, [at for at in by_source.get(source.source_id, ()) if at not in listed])
        unlisted |= hidden
        if not scope.channels and scope.since is None and scope.until is None:
            gone += missing
    _add_overlapping(chosen, listed, gone, known)
    return SourceChanges(
        known,
        list(chosen.values()),
        gone,
        rejected,
        frozenset(looked),
        frozenset(listed),
        unlisted,
        any(not _read_by(row, chunking) for row in known.values()),
        frozenset(moving),
    )


def _read_by(row: SourceRow, chunking: Chunking) -> bool:
    """Whether a partition's chunks were made in this way when it was last read."""
    return (row.get("reader") or "").endswith(f":{chunking.version}")


def _in_scope(source: Source, scope: Scope) -> bool:
    """Whether a source may hold anything of a scope's teams and kind."""
    if scope.teams and source.team_id is not None and source.team_id not in scope.teams:
        return False
    return scope.kind is None or source.kind == scope.kind


def _absent(listing: Listing, unseen: Iterable[At]) -> tuple[list[At], dict[At, str]]:
    """Of the known partitions that a listing does not show: those that are gone, and those it cannot tell of, why."""
    # A listing with nothing in it is a fault, whatever it says of itself: an empty root is never a deletion.
    complete = listing.complete and bool(listing.partitions)
    # What was refused (a file or a folder that is now a link out of the root) is not gone, only out of reach.
    refused = {r.key: r.reason for r in listing.rejected if not r.ignored}
    gone: list[At] = []
    unlisted: dict[At, str] = {}
    for at in unseen:
        if reason := below(at[1], refused):
            unlisted[at] = reason
        elif not complete:
            unlisted[at] = next(iter(refused.values()), "nothing_listed")
        else:
            gone.append(at)
    return gone, unlisted


def below(key: str, refused: Mapping[str, str]) -> str:
    """Why a partition, or a folder that it lies in, was refused; empty where it was not."""
    folders = (key[:cut] for cut, letter in enumerate(key) if letter == "/")
    return next((refused[name] for name in (key, *folders) if name in refused), "")


def changed(row: SourceRow | None, partition: Partition, source: Source, names: NameMap, chunking: Chunking) -> bool:
    """Whether a partition is not as it was read last, by its ``row`` of ``sources``."""
    return (
        row is None
        or bool(row["retry"])
        or row["fingerprint"] != partition_fingerprint(partition)
        or row["reader"] != f"{source.reader}:{chunking.version}"
        or row["refs_hash"] != names.fingerprint(row["refs"] or [])
    )


def _add_overlapping(
    chosen: dict[At, tuple[int, Partition]],
    listed: Mapping[At, tuple[int, Partition]],
    gone: Sequence[At],
    known: Mapping[At, SourceRow],
) -> None:
    """Where two partitions hold one document, a change of either must look at both again."""
    moved = set(chosen) | set(gone)
    for at, row in known.items():
        others = {_at(pair) for pair in row["overlaps"] or ()}
        group = others | {at}
        if others and group & moved:
            for member in group:
                if member in listed:
                    chosen[member] = listed[member]


def _at(pair: str) -> At:
    source_id, partition = pair.split("\0", 1)
    return source_id, partition
