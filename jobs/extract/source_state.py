"""Writes the rows of ``sources``: the state of each source partition when it was last read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from jobs.extract.changes import Extraction, SourceChanges, partition_fingerprint
from jobs.extract.held_deletions import At, held_back_columns, ids_held, without
from jobs.sources.base import NameMap

if TYPE_CHECKING:
    from jobs.extract.commit import Committed
    from jobs.extract.readings import Readings


def begin_sources(
    extraction: Extraction, changes: SourceChanges, readings: Readings, overlaps: Mapping[At, set[str]]
) -> None:
    """Record the partitions that were read, and those gone, as not yet read. Call it before their first commit.

    After a crash every chunk's partition is then recorded, so that its chunks are deleted when it goes; so are the
    other partitions of a document; and a partition that changes back is read again.
    """
    rows: list[dict[str, object]] = []
    for at in [*readings.partitions, *changes.gone]:
        row = changes.known.get(at)
        others = set((row and row["overlaps"]) or ()) | overlaps.get(at, set())
        base = dict(row) if row else {"source_id": at[0], "partition": at[1]}
        stamp = {"fingerprint": "", "overlaps": sorted(others), "run_id": extraction.run_id, "_delete": False}
        rows.append(base | stamp)
    extraction.state.change("sources", rows)


def end_sources(extraction: Extraction, changes: SourceChanges, readings: Readings, done: Committed) -> None:
    """Record what was read and delete the rows of what is gone. Call it after all other commits."""
    sources, known, gone = extraction.sources, changes.known, changes.gone
    names = {source.source_id: NameMap(source.names) for source in sources}
    listed = {(sources[n].source_id, p.key): (sources[n], p) for n, p in changes.read}
    rows: list[dict[str, object]] = []
    for at, row in readings.partitions.items():
        source, partition = listed[at]
        left_open = held_back_columns(
            known.get(at), readings.judged[at], row["whole"], done.kept.get(at, ()), done.let_go, extraction.now
        )
        rows.append(
            {
                "source_id": at[0],
                "partition": at[1],
                "fingerprint": partition_fingerprint(partition),
                "reader": f"{source.reader}:{extraction.chunking.version}",
                "refs": row["refs"],
                "refs_hash": names[at[0]].fingerprint(row["refs"]),
                "overlaps": sorted(done.overlaps.get(at, ())),
                "retry": row["retry"],
                "documents": row["documents"],
                "run_id": extraction.run_id,
                "_delete": False,
                **left_open,
            }
        )
    rows += [{"source_id": s, "partition": p, "_delete": True} for s, p in gone]
    for at, before in known.items():
        if at not in listed and at not in gone and (at in done.again or ids_held(before) & done.let_go):
            # What a partition holds back is counted when it is read.
            fingerprint = "" if at in done.again else before["fingerprint"]
            rows.append({**without(before, done.let_go), "fingerprint": fingerprint, "_delete": False})
    extraction.state.change("sources", rows)
