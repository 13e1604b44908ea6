"""Publish: write planned rows with their stored vectors into the index, then into the ledger, piece by piece.

Rows whose vectors were stored before are joined with them by ``prepare``. Those that wait for a shard of texts are
published as soon as its vectors are committed, while the next shards are encoded. Many rows for a server are written by
workers, few by this process; the ledger is committed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from jobs.publish.row_writer import PlannedRows, RowWriter, WrittenRows, pieces
from jobs.state.parts import Part
from jobs.state.run_target import RunTarget
from jobs.state.staging import Staged, StagedFile, staged
from jobs.state.write_intents import commit_intent, record_intent
from jobs.telemetry.tracing import Value, enabled, past

if TYPE_CHECKING:
    from indexers.base import Index


class Writers(Protocol):
    """What writes rows into the index."""

    def offer(self, planned: PlannedRows) -> Iterable[WrittenRows]:
        """Take rows to write; gives back what is written meanwhile, of these rows or of earlier ones."""

    def rest(self) -> Iterable[WrittenRows]:
        """Give back what is still to be written."""

    def close(self) -> None:
        """Write nothing more."""


class WritesHere:
    """Writes rows in this process, when they are offered."""

    def __init__(self, index: Index, writer: RowWriter) -> None:
        self._index, self._writer = index, writer

    def offer(self, planned: PlannedRows) -> Iterator[WrittenRows]:
        """See ``Writers``."""
        return self._writer.write(self._index, planned)

    def rest(self) -> Iterable[WrittenRows]:
        """See ``Writers``."""
        return ()

    def close(self) -> None:
        """See ``Writers``."""


class Publisher:
    """Carries out the rows and deletes of one run's plan on one version of an index.

    Index first, ledger second, with a record of the piece before both: a crash between them repeats writes that change
    nothing. ``progress`` is told the rows of each piece. ``upserted``, ``deleted`` and ``left_out`` count rows, of the
    last the text has no vector. Without ``writers`` rows are written here.
    """

    def __init__(
        self,
        index: Index,
        target: RunTarget,
        writer: RowWriter,
        *,
        progress: Callable[[int], None],
        writers: Writers | None = None,
    ) -> None:
        self._index, self._target, self._writer, self._progress = index, target, writer, progress
        self._writers = writers or WritesHere(index, writer)
        self._waiting: Staged | None = None
        self.upserted = self.deleted = self.left_out = 0

    def publish_ready(self, stop: Callable[[], bool]) -> bool:
        """Write what ``prepare`` has joined; False where ``stop``, asked after each piece, said to leave off.

        Workers may still be at it: see ``finish``.
        """
        groups = _grouped(staged(self._target.work / "publish"), self._writer.shard_rows)
        ready = (PlannedRows(f"ready-{number}", group) for number, group in enumerate(groups))
        return all(self._publish(planned, stop) for planned in ready)

    def publish_shard(self, shard: str, parts: Sequence[Part], stop: Callable[[], bool]) -> bool:
        """Write the rows that waited for a shard of texts ("shard=3"), whose vectors are in ``parts`` of the table.

        False where ``stop`` said to leave off; see ``publish_ready``.
        """
        if self._waiting is None:
            self._waiting = staged(self._target.work / "rows")
        return self._publish(PlannedRows(shard, self._waiting.within(shard), tuple(parts)), stop)

    def finish(self) -> None:
        """Wait for all rows that were taken, and commit them."""
        for written in self._writers.rest():
            self._commit(written)

    def close(self) -> None:
        """Leave off where an error did; what was written and not committed is for the next run."""
        self._writers.close()

    def delete_rows(self, stop: Callable[[], bool]) -> bool:
        """Remove what the plan says; False where ``stop``, asked after each piece, said to leave off."""
        writer = self._writer
        for number, rows in enumerate(pieces(staged(self._target.work / "deletes"), writer.shard_rows)):
            ledger = writer.intent(rows, delete=True)
            with record_intent(writer.root, f"{writer.run_id}-deletes-{number}", ledger) as record:
                writer.check()
                began = time.time_ns()
                self._index.delete(writer.version, rows["chunk_id"].to_pylist())
                self._trace("delete", len(rows), began, time.time_ns())
                writer.check()
            commit_intent(self._target.state, record)
            self.deleted += len(rows)
            self._progress(len(rows))
            if stop():
                return False
        return True

    def flush(self) -> None:
        """Flush pending writes to the index, if there are any."""
        if self.upserted or self.deleted:
            self._index.flush(self._writer.version)

    def flush_ahead(self) -> None:
        """Flush although more is to come, where that saves work at the end: a server writes its files by itself."""
        if self._index.capabilities().embedded:
            self.flush()

    def _publish(self, planned: PlannedRows, stop: Callable[[], bool]) -> bool:
        for written in self._writers.offer(planned):
            self._commit(written)
            if stop():
                return False
        return True

    def _commit(self, written: WrittenRows) -> None:
        if written.record is not None:
            self._trace("upsert", written.rows, written.began, written.ended)
            commit_intent(self._target.state, written.record)
        self.upserted += written.rows
        self.left_out += written.left_out
        self._progress(written.rows)

    def _trace(self, operation: str, rows: int, began: int, ended: int) -> None:
        """A span by the conventions for databases."""
        if not enabled():
            return
        version = self._writer.version
        attributes: dict[str, Value] = {
            "db.system.name": self._index.capabilities().engine.split(" ")[0].lower(),
            "db.operation.name": operation,
            "db.collection.name": version,
            "db.operation.batch.size": rows,
        }
        past(f"{operation} {version}", (began, ended), within="publish", kind="client", attributes=attributes)


def _grouped(all_files: Staged, rows: int) -> Iterator[Staged]:
    """Files together that have about ``rows`` rows."""
    held, count = list[StagedFile](), 0
    for file in all_files.files:
        held.append(file)
        count += file.rows
        if count >= rows:
            yield Staged(all_files.folder, tuple(held))
            held, count = [], 0
    if held:
        yield Staged(all_files.folder, tuple(held))
