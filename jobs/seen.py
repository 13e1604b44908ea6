"""Seen: the rows of ``sources``, which say of each partition what it was when it was last read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.sources.base import NameMap, Partition, Source

if TYPE_CHECKING:
    from jobs.reader import Chunking
    from jobs.state import State

_At = tuple[str, str]  # source_id, partition


def stamp(partition: Partition) -> str:
    """Fingerprint of a partition where it is now."""
    # A file's name need not be UTF-8.
    return f"{partition.fingerprint}:{partition.path}".encode("utf-8", "backslashreplace").decode()


def begin_sources(
    state: State, known: Mapping[_At, Mapping[str, Any]], partitions: Sequence[Mapping[str, Any]],
    overlaps: Mapping[_At, set[str]], run_id: str,
) -> None:  # fmt: skip
    """Before their chunks are committed: note partitions that are new, and those with new overlaps, as not yet read.

    A run that dies then leaves no chunk whose partition nobody knows, to be missed when it goes; and no document with
    an owner of whom nobody knows that another partition has it too.
    """
    rows: list[dict[str, object]] = []
    for partition in partitions:
        at = (partition["source_id"], partition["partition"])
        row = known.get(at)
        held = set((row and row["overlaps"]) or ())
        others = held | overlaps.get(at, set())
        if row is None or others != held:
            base = dict(row) if row else {"source_id": at[0], "partition": at[1]}
            rows.append(base | {"fingerprint": "", "overlaps": sorted(others), "run_id": run_id, "_delete": False})
    state.change("sources", rows)


def end_sources(
    state: State, sources: Sequence[Source], read: Sequence[tuple[int, Partition]], gone: Sequence[_At],
    partitions: Sequence[Mapping[str, Any]], overlaps: Mapping[_At, set[str]], chunking: Chunking, run_id: str,
) -> None:  # fmt: skip
    """Once all else is committed: note what was read and how it was found, and forget what is gone."""
    names = {source.source_id: NameMap(source.names) for source in sources}
    listed = {(sources[n].source_id, p.key): (sources[n], p) for n, p in read}
    rows: list[dict[str, object]] = []
    for row in partitions:
        at = (row["source_id"], row["partition"])
        source, partition = listed[at]
        rows.append(
            {
                "source_id": at[0], "partition": at[1], "fingerprint": stamp(partition),
                "reader": f"{source.reader}:{chunking.version}", "refs": row["refs"],
                "refs_hash": names[at[0]].fingerprint(row["refs"]), "overlaps": sorted(overlaps.get(at, ())),
                "retry": row["retry"], "documents": row["documents"], "run_id": run_id, "_delete": False,
            }
        )  # fmt: skip
    rows += [{"source_id": s, "partition": p, "_delete": True} for s, p in gone]
    state.change("sources", rows)
