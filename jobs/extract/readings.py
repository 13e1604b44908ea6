"""Have the executors read partitions, and collect what they say of each.

Listing is the driver's; opening, parsing, normalising and chunking are the executors' (``partition_reader``).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from jobs.extract.changes import Extraction, SourceChanges
from jobs.extract.extracted import (
    CHUNK_ROW,
    EXTRACTED,
    PARTITION_ROW,
    REJECTED_ROW,
    REMOVED_ROW,
    TO_READ,
    PartitionRow,
    RejectedRow,
    to_read,
)
from jobs.extract.held_deletions import At, Judged, judge
from jobs.extract.partition_reader import reader
from jobs.state.purge_rules import purge_rules
from jobs.state.row_counts import expect

if TYPE_CHECKING:
    from jobs.sources.base import Partition
    from jobs.state.frames import Frames
    from jobs.state.staging import Staged
    from jobs.state.storage import StatePath


@dataclass(frozen=True, slots=True)
class Readings:
    """What the executors say of the partitions that they read.

    ``partitions`` are the PARTITION_ROW rows of EXTRACTED by partition, ``rejects`` the REJECTED_ROW rows of all;
    ``judged`` says by partition what the reading lets us conclude.
    """

    partitions: Mapping[At, PartitionRow]
    rejects: Sequence[RejectedRow]
    judged: Mapping[At, Judged]

    @property
    def removals(self) -> bool:
        """Whether any partition shows that a document was taken away."""
        return any(REMOVED_ROW in row["sent"] for row in self.partitions.values())


def collect_readings(staged: Staged, extraction: Extraction, changes: SourceChanges) -> Readings:
    """Collect what ``read_partitions`` has staged.

    Raises EmbedmillError where that is not what the executors were asked for.
    """
    asked = {(extraction.sources[n].source_id, p.key) for n, p in changes.read}
    rows, rejects = read_staged(staged, asked)
    partitions = {(row["source_id"], row["partition"]): row for row in rows}
    by_partition: dict[At, list[RejectedRow]] = {}
    for reject in rejects:
        by_partition.setdefault((reject["source_id"], reject["partition"]), []).append(reject)
    judged = {
        at: judge(changes.known.get(at), row["whole"], by_partition.get(at, ())) for at, row in partitions.items()
    }
    return Readings(partitions, rejects, judged)


def read_staged(staged: Staged, asked: set[At]) -> tuple[list[PartitionRow], list[RejectedRow]]:
    """What the executors say of each partition, and what they rejected.

    Raises EmbedmillError where that is not what they were asked for: each partition once, with all its rows.
    """
    data = staged.data(EXTRACTED)
    rows = data.to_table(filter=pc.field("row").isin([PARTITION_ROW, REJECTED_ROW])).to_pylist()
    partitions: list[PartitionRow] = [r for r in rows if r["row"] == PARTITION_ROW]
    rejects: list[RejectedRow] = [r for r in rows if r["row"] == REJECTED_ROW]
    found = Counter((r["source_id"], r["partition"]) for r in partitions)
    expect("extract", "source partitions", len(asked), sum(min(n, 1) for at, n in found.items() if at in asked))
    expect("extract", "readings of source partitions", len(asked), found.total())
    there: Counter[tuple[str, str, str]] = Counter()
    for batch in data.to_batches(columns=["row", "source_id", "partition"]):
        counts = pa.Table.from_batches([batch]).group_by(batch.schema.names).aggregate([([], "count_all")])
        for row in counts.to_pylist():
            there[row["row"], row["source_id"], row["partition"]] += row["count_all"]
    for partition in partitions:
        sent = json.loads(partition["sent"])
        for kind in (CHUNK_ROW, REMOVED_ROW, REJECTED_ROW):
            at = kind, partition["source_id"], partition["partition"]
            expect("extract", f"{kind} rows of a partition", sent.get(kind, 0), there[at])
    return partitions, rejects


def read_partitions(
    frames: Frames, extraction: Extraction, work: Sequence[tuple[int, Partition]], folder: StatePath
) -> None:
    """Have the executors read ``work``, and stage what they find (EXTRACTED) in ``folder``."""
    ordered = sorted(work, key=lambda item: -item[1].size)  # the heavy ones first
    tasks = pa.Table.from_pylist([to_read(n, p) for n, p in ordered], schema=TO_READ)
    read = reader(list(extraction.sources), extraction.chunking, purge_rules(extraction.state))
    frames.read_each(tasks, read, EXTRACTED, folder)
