"""What the page shows of a run, from the state. Teams and channels are masked; nothing of a text is read."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from embedding.errors import ConfigError
from jobs.bodies.run import RunReport
from jobs.report import BEGUN
from jobs.run_details import RunDetails, kept_details

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline

MOST_BEFORE = 30  # runs that are shown beside it
TOP = 10  # teams, channels


@dataclass(frozen=True, slots=True)
class Beside:
    """A run before it: when it began (µs), its command, status and seconds by step."""

    started_at: int
    command: str
    status: str
    seconds: dict[str, float]
    embedded: int


@dataclass(frozen=True, slots=True)
class PageData:
    """``embedded`` and ``written`` count rows of this run by masked team, and by masked team and channel."""

    report: RunReport
    details: RunDetails | None
    before: tuple[Beside, ...]
    embedded: dict[str, int]
    written: dict[str, int]
    quarantine: dict[str, int]


def page_data(pipeline: Pipeline, run_id: str = "") -> PageData:
    """Read what there is of a run or of another command by its ``run_id``; without one, of the newest `run`.

    Cost: the columns of runs and teams in ``vectors`` and ``published``. Raises ConfigError for an id that is not
    known or has told nothing, and where there was no run yet.
    """
    state = pipeline.state
    rows = state.read("runs", ["run_id", "command", "status", "started_at", "report"])
    runs = [row for row in rows.sort_by([("started_at", "descending")]).to_pylist() if row["status"] != BEGUN]
    wanted = ("run_id", run_id) if run_id else ("command", "run")
    place = next((place for place, row in enumerate(runs) if row[wanted[0]] == wanted[1]), None)
    if place is None:
        said = f"{run_id} has told nothing here" if run_id else "nothing was run here yet; run `embedmill run` first"
        known = ", ".join(f"{row['run_id']} ({row['command']})" for row in runs[:3])
        raise ConfigError(f"RUN: {said}" + (f"; the newest that have: {known}" if known else ""))
    report = RunReport.model_validate_json(runs[place]["report"], extra="ignore")
    before = []
    for row in runs[place : place + MOST_BEFORE]:
        of = RunReport.model_validate_json(row["report"], extra="ignore")
        seconds = of.seconds.model_dump(exclude={"total"})
        before.append(Beside(row["started_at"], row["command"], row["status"], seconds, of.chunks.embedded))
    quarantine = state.read("quarantine", ["reason"], pc.field("run_id") == report.run_id)
    return PageData(
        report,
        kept_details(state.root, report.run_id),
        tuple(reversed(before)),
        _by(pipeline, "vectors", ("team_id",), report.run_id),
        _by(pipeline, "published", ("team_id", "channel_id"), report.run_id),
        dict(Counter(quarantine["reason"].to_pylist()).most_common()),
    )


def _by(pipeline: Pipeline, table: str, columns: tuple[str, ...], run_id: str) -> dict[str, int]:
    """Rows that a run wrote, the ten largest groups, masked."""
    counts: Counter[tuple[str, ...]] = Counter()
    where = pc.field("run_id") == run_id
    for batch in pipeline.state.dataset(table).to_batches([*columns], where):
        found = pa.table(batch).group_by([*columns]).aggregate([([], "count_all")]) if len(batch) else None
        if found is not None:
            names = [found[column].to_pylist() for column in columns]
            for *parts, count in zip(*names, found["count_all"].to_pylist(), strict=True):
                counts[tuple(parts)] += count
    key = pipeline.state.hash_key if counts else b""
    return {" / ".join(_masked(key, part) for part in parts): count for parts, count in counts.most_common(TOP)}


def _masked(key: bytes, value: str) -> str:
    """The same for the same value in one state, and told by nobody without its key."""
    return hashlib.blake2b(value.encode(), key=key, digest_size=4).hexdigest() if value else "(none)"
