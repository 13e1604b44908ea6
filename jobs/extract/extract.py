"""Extract: read the source partitions that changed and bring the text tables up to date with them.

The order of the commits is: that the partitions are being read (``begin_sources``), removals, chunks, quarantine,
sources. After a crash between two of them the same partitions are read again, and nothing is left to change.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from jobs.extract.changes import Extraction, SourceChanges, choose_partitions
from jobs.extract.extracted import EXTRACTED, reject_row
from jobs.extract.held_deletions import At, note_unlisted
from jobs.extract.readings import collect_readings, read_partitions
from jobs.extract.source_state import begin_sources, end_sources
from jobs.state.quarantine import EXTRACT
from jobs.state.quarantine import replace as replace_quarantine
from jobs.state.staging import staged

if TYPE_CHECKING:
    from jobs.extract.readings import Readings
    from jobs.state.frames import Frames


@dataclass(slots=True)
class ExtractReport:
    """What extract did: partitions opened, records read (documents, rejected, ignored, and skipped by reason)."""

    partitions: int = 0
    opened: int = 0
    read: int = 0
    rejected: int = 0
    ignored: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    def count_rejects(self, rejects: Sequence[Mapping[str, object]]) -> None:
        """Set how many rows of quarantine are faults, and how many are ignored by their kind."""
        self.ignored = sum(bool(r["ignored"]) for r in rejects)
        self.rejected = len(rejects) - self.ignored

    def count_readings(self, readings: Readings) -> None:
        """Add the records of the partitions that were read."""
        for partition in readings.partitions.values():
            self.read += partition["documents"]
            for reason, count in json.loads(partition["skipped"]).items():
                self.skipped[reason] = self.skipped.get(reason, 0) + count
        self.read += sum(self.skipped.values()) + len(readings.rejects)


def extract(frames_of: Callable[[int], Frames], extraction: Extraction) -> ExtractReport:
    """Bring the text tables up to date with the sources.

    ``frames_of(bytes to read)`` starts an engine, and is called only where a partition must be read or has gone. Raises
    SourceError for a source whose root is missing or empty.
    """
    state = extraction.state
    known = extraction.known()
    changes = choose_partitions(extraction.sources, known, extraction.chunking, extraction.scope)
    note_unlisted(state, known, changes.unlisted, changes.listed, now=extraction.now, run_id=extraction.run_id)
    refused: list[dict[str, object]] = [reject_row(source, "", reject) for source, reject in changes.rejected]
    report = ExtractReport(partitions=len(changes.listed), opened=len(changes.read), read=len(refused))
    if not changes.read and not changes.gone:
        _quarantine(extraction, changes, refused, set())
        report.count_rejects(refused)
        return report

    from jobs.extract.commit import commit, decide

    frames = frames_of(sum(partition.size for _, partition in changes.read))
    folder = state.work(extraction.run_id) / "extract"
    read_partitions(frames, extraction, changes.read, folder)
    read = staged(folder)
    readings = collect_readings(read, extraction, changes)
    changes = _spared(extraction, changes, readings)
    rows = frames.files(EXTRACTED, read)
    with decide(frames, extraction, changes, readings, rows) as decision:
        begin_sources(extraction, changes, readings, decision.overlaps)
        done = commit(extraction, changes, readings, decision)
    rejects = [*readings.rejects, *refused, *done.lost]
    _quarantine(extraction, changes, rejects, {*readings.partitions, *changes.gone})
    end_sources(extraction, changes, readings, done)
    report.count_rejects(rejects)
    report.count_readings(readings)
    return report


def _spared(extraction: Extraction, changes: SourceChanges, readings: Readings) -> SourceChanges:
    """The changes without partitions that went and whose documents may be in one that cannot be read whole.

    Those are noted as such that the listing cannot tell of, and stay until it can be read, or goes.
    """
    suspects = {at[0] for at in changes.gone} & changes.moving
    if not suspects:
        return changes
    reasons = {at[0]: found.reason for at, found in readings.judged.items() if not readings.partitions[at]["whole"]}
    rows = extraction.state.read("quarantine", ["source_id", "partition", "key", "step", "reason", "ignored"])
    for row in rows.to_pylist():
        at = (row["source_id"], row["partition"])
        of_all = (row["step"], row["key"], bool(row["ignored"])) == (EXTRACT, "", False)
        if of_all and at in changes.listed and at not in readings.partitions:
            reasons.setdefault(at[0], row["reason"])
    spared = {at: reasons[at[0]] for at in changes.gone if at[0] in suspects and at[0] in reasons}
    note_unlisted(extraction.state, changes.known, spared, (), now=extraction.now, run_id=extraction.run_id)
    left = [at for at in changes.gone if at not in spared]
    return replace(changes, gone=left, unlisted={**changes.unlisted, **spared})


def _quarantine(
    extraction: Extraction, changes: SourceChanges, rejects: Sequence[Mapping[str, object]], touched: set[At]
) -> None:
    """Replace what is in quarantine of the partitions that were ``touched`` and of the listings that were looked at."""
    read = touched | {(source, "") for source in changes.looked}
    replace_quarantine(
        extraction.state,
        EXTRACT,
        rejects,
        run_id=extraction.run_id,
        now=extraction.now,
        again=lambda r: (r["source_id"], r["partition"]) in read,
    )
