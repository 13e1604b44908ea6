"""Read: what an executor does with source partitions. Records in; chunks, rejects and one tally a partition out.

Runs in Spark's Python workers, or in a small run's own process, in Arrow batches. Knows nothing of the state: what its
rows mean is ``extract``'s.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc

from embedding import ids
from embedding.records import CHUNK, Document, Rejected, Removed, Skipped
from indexers.rows import too_long
from jobs.extract.cutting import Chunking, DocumentCutter
from jobs.extract.extracted import (
    CHUNK_ROW,
    EXTRACTED,
    PARTITION_ROW,
    REJECTED_ROW,
    REMOVED_ROW,
    reject_row,
    removed_row,
)
from jobs.extract.isolated_reader import reader_of
from jobs.sources.base import Partition, Source
from jobs.state.purge_rules import PurgeRule
from jobs.telemetry.error_reporting import without_messages

_BATCH_DOCUMENTS = 2_000
_BATCH_CHARACTERS = 4_000_000


def reader(
    sources: list[Source], chunking: Chunking, rules: list[PurgeRule]
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Return the function for ``Frames.read_each``: TO_READ rows in, EXTRACTED rows out. It can be pickled."""
    return partial(_read, sources, chunking, rules)


def _read(
    sources: list[Source], chunking: Chunking, rules: list[PurgeRule], batches: Iterator[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # there is a worker for each core
    todo = [
        (sources[row.pop("source")], Partition(**row | {"path": os.fsdecode(row["path"])}))
        for batch in batches
        for row in batch.to_pylist()
    ]
    with without_messages():
        if limits := next(
            (limits for source, partition in todo if (limits := source.isolation_limits(partition))), None
        ):
            reader_of(limits).start()  # its imports go on while the tokenizer is loaded
        task = _Task(chunking, rules)
        for source, partition in todo:
            yield from task.read(source, partition)
        yield from task.finish()


@dataclass(slots=True)
class _Tally:
    """What became of one partition."""

    source: Source
    partition: Partition
    documents: int = 0
    whole: bool = True
    retry: bool = False
    skipped: dict[str, int] = field(default_factory=dict)
    sent: dict[str, int] = field(default_factory=dict)
    refs: set[str] = field(default_factory=set)

    def skip(self, reason: str, count: int) -> None:
        self.skipped[reason] = self.skipped.get(reason, 0) + count

    def send(self, row: str, count: int) -> None:
        self.sent[row] = self.sent.get(row, 0) + count

    def row(self) -> dict[str, object]:
        return {
            "row": PARTITION_ROW,
            "source_id": self.source.source_id,
            "partition": self.partition.key,
            "sent": json.dumps(self.sent),
            "documents": self.documents,
            "whole": self.whole,
            "retry": self.retry,
            "skipped": json.dumps(self.skipped),
            "refs": sorted(self.refs),
        }


class _Task:
    """One executor task: documents wait until there are enough of them for the tokenizer to be fast."""

    def __init__(self, chunking: Chunking, rules: list[PurgeRule]) -> None:
        self._cutter = DocumentCutter(chunking)
        self._max_bytes, self._hash_key, self._rules = chunking.max_bytes, chunking.hash_key, rules
        self._waiting: list[tuple[_Tally, Document]] = []
        self._characters = 0
        self._tallies: list[_Tally] = []
        self._rejects: list[dict[str, object]] = []
        self._removed: list[dict[str, object]] = []

    def read(self, source: Source, partition: Partition) -> Iterator[pa.RecordBatch]:
        tally = _Tally(source, partition)
        self._tallies.append(tally)
        limits = source.isolation_limits(partition)
        for record in reader_of(limits).read(source, partition) if limits else source.read(partition):
            match record:
                case Document() | Removed() if any(rule.covers(record) for rule in self._rules):
                    tally.skip("purged", 1)
                case Document():
                    tally.documents += 1
                    tally.refs |= record.refs
                    self._waiting.append((tally, record))
                    self._characters += len(record.text)
                    if len(self._waiting) >= _BATCH_DOCUMENTS or self._characters >= _BATCH_CHARACTERS:
                        yield from self._cut()
                case Rejected():
                    self._reject(tally, record)
                case Removed():
                    tally.skip(record.reason, 1)
                    tally.send(REMOVED_ROW, 1)
                    self._removed.append(removed_row(source, partition.key, record))
                    if len(self._removed) >= _BATCH_DOCUMENTS:
                        yield from self._send_removed()
                case Skipped():
                    tally.skip(record.reason, record.count)

    def finish(self) -> Iterator[pa.RecordBatch]:
        yield from self._cut()
        yield from self._send_removed()
        rows = self._rejects + [tally.row() for tally in self._tallies]
        if rows:
            yield from pa.Table.from_pylist(rows, schema=EXTRACTED).to_batches()

    def _send_removed(self) -> Iterator[pa.RecordBatch]:
        if self._removed:
            yield from pa.Table.from_pylist(self._removed, schema=EXTRACTED).to_batches()
            self._removed = []

    def _reject(self, tally: _Tally, reject: Rejected) -> None:
        if reject.digest:  # of a short record it could be guessed from
            keyed = hashlib.blake2b(reject.digest.encode(), key=self._hash_key, digest_size=12)
            reject = replace(reject, digest=keyed.hexdigest())
        self._rejects.append(reject_row(tally.source, tally.partition.key, reject))
        tally.send(REJECTED_ROW, 1)
        if not reject.ignored and (reject.whole or not (reject.doc_id or reject.digest)):
            tally.whole = False  # who knows which document this was: delete nothing
        tally.retry |= reject.retry

    def _cut(self) -> Iterator[pa.RecordBatch]:
        """Cut what waits; a document with a value longer than the index takes goes to quarantine."""
        if not self._waiting:
            return
        chunks, cuts = self._cutter.cut(
            [(tally.source.source_id, tally.partition.key, d) for tally, d in self._waiting]
        )
        over = {ids.document_id(chunk): column for chunk, column in too_long(chunks, self._max_bytes).items()}
        for (tally, document), cut in zip(self._waiting, cuts, strict=True):
            column = over.get(document.doc_id)
            if column is None:
                tally.send(CHUNK_ROW, cut)
            else:
                tally.documents -= 1
                self._reject(
                    tally,
                    Rejected(
                        key=document.doc_id,
                        reason="too_long",
                        detail=f"{column} is longer than the index takes",
                        channel_id=document.channel_id,
                        created_at=document.created_at,
                        doc_id=document.doc_id,
                    ),
                )
        if over:
            chunks = chunks.filter(pc.invert(pc.is_in(chunks["doc_id"], pa.array(over, pa.string()))))
        self._waiting, self._characters = [], 0
        filled = [
            chunks[f.name]
            if f.name in CHUNK.names
            else pa.array([CHUNK_ROW] * len(chunks), pa.string())
            if f.name == "row"
            else pa.nulls(len(chunks), f.type)
            for f in EXTRACTED
        ]
        yield from pa.Table.from_arrays(filled, schema=EXTRACTED).to_batches()
