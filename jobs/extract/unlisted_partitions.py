"""Finds partitions that texts come from, and that neither ``sources`` nor a listing names.

A run deletes the texts of a partition when it leaves ``sources``. Texts of one that is not in it would always stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from jobs.extract.changes import below
from jobs.extract.held_deletions import At

if TYPE_CHECKING:
    from jobs.sources.base import Source
    from jobs.state.frames import Frames
    from jobs.state.store import State

_AT = pa.schema([("source_id", pa.string()), ("partition", pa.string())])


def find_unlisted(frames: Frames, state: State, sources: Sequence[Source]) -> set[At]:
    """Partitions of configured sources that ``chunks`` names, ``sources`` does not, and a whole listing shows gone."""
    by_id = {source.source_id: source for source in sources}  # of an entry that was taken out nothing is deleted
    owners = frames.sql(
        "SELECT DISTINCT c.source_id, c.partition FROM {chunks} c "
        "ANTI JOIN {known} k ON c.source_id = k.source_id AND c.partition = k.partition",
        chunks=frames.table(state, "chunks"),
        known=frames.local(_AT, state.read("sources", _AT.names)),
    )
    found: dict[str, set[str]] = {}
    for row in frames.collect(owners).to_pylist():
        if row["source_id"] in by_id:
            found.setdefault(row["source_id"], set()).add(row["partition"])
    gone: set[At] = set()
    for source_id, keys in found.items():
        listing = by_id[source_id].listing()
        if listing.complete and listing.partitions:
            refused = {reject.key: reject.reason for reject in listing.rejected}
            left = keys - {partition.key for partition in listing.partitions}
            gone |= {(source_id, key) for key in left if not below(key, refused)}
    return gone
