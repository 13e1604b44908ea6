"""Writes the rows of ``sources``: the state of each source partition when it was last read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from jobs.extract.held_deletions import At, held_back_columns, ids_held, without
from jobs.sources.base import NameMap, Partition, Source

if TYPE_CHECKING:
    from jobs.extract.commit import Committed
    from jobs.extract.held_deletions import Judged
    from jobs.extract.partition_reader import Chunking
    from jobs.state.store import State


def partition_fingerprint(partition: Partition) -> str:
    """Fingerprint of a partition where it is now."""
    # A file's name need not be UTF-8.
    return f"{partition.fingerprint}:{partition.path}".encode("utf-8", "backslashreplace").decode()


def begin_sources(
    state: State,
    known: Mapping[At, Mapping[str, Any]],
    read: Sequence[At],
    gone: Sequence[At],
    overlaps: Mapping[At, set[str]],
    run_id: str,
) -> None:
    """Record the partitions that were read, and those gone, as not yet read. Call it before their first commit.

    After a crash every chunk's partition is then recorded, so that its chunks are deleted when it goes; so are the
    other partitions of a document; and a partition that changes back is read again.
    """
    rows: list[dict[str, object]] = []
    for at in [*read, *gone]:
        row = known.get(at)
        others = set((row and row["overlaps"]) or ()) | overlaps.get(at, set())
        base = dict(row) if row else {"source_id": at[0], "partition": at[1]}
        rows.append(base | {"fingerprint": "", "overlaps": sorted(others), "run_id": run_id, "_delete": False})
    state.change("sources", rows)


def end_sources(
    state: State,
    sources: Sequence[Source],
    known: Mapping[At, Mapping[str, Any]],
    read: Sequence[tuple[int, Partition]],
    gone: Sequence[At],
    partitions: Sequence[Mapping[str, Any]],
    judged: Mapping[At, Judged],
    done: Committed,
    chunking: Chunking,
    *,
    run_id: str,
    now: int,
) -> None:
    """Record what was read and delete the rows of what is gone. Call it after all other commits."""
    names = {source.source_id: NameMap(source.names) for source in sources}
    listed = {(sources[n].source_id, p.key): (sources[n], p) for n, p in read}
    rows: list[dict[str, object]] = []
    for row in partitions:
        at = (row["source_id"], row["partition"])
        source, partition = listed[at]
        rows.append(
            {
                "source_id": at[0],
                "partition": at[1],
                "fingerprint": partition_fingerprint(partition),
                "reader": f"{source.reader}:{chunking.version}",
                "refs": row["refs"],
                "refs_hash": names[at[0]].fingerprint(row["refs"]),
                "overlaps": sorted(done.overlaps.get(at, ())),
                "retry": row["retry"],
                "documents": row["documents"],
                "run_id": run_id,
                "_delete": False,
                **held_back_columns(known.get(at), judged[at], row["whole"], done.kept.get(at, ()), done.let_go, now),
            }
        )
    rows += [{"source_id": s, "partition": p, "_delete": True} for s, p in gone]
    for at, row in known.items():
        if at not in listed and at not in gone and (at in done.again or ids_held(row) & done.let_go):
            # What a partition holds back is counted when it is read.
            fingerprint = "" if at in done.again else row["fingerprint"]
            rows.append(without(row, done.let_go) | {"fingerprint": fingerprint, "_delete": False})
    state.change("sources", rows)
