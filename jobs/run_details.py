"""What a run did when: its steps and shards, kept beside the tables for ``embedmill report``. No text and no id in it.

A file a run, ``reports/<run_id>.json``, which is lost without harm.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from jobs.state.storage import StatePath, remove_files, replace_file

FOLDER = "reports"
MOST_SHARDS = 2_000  # that are kept one by one: 130 million tokens by the default length of a shard


@dataclass(frozen=True, slots=True)
class StepTime:
    """A part of a step; times are ns since 1970."""

    step: str
    began: int
    ended: int


@dataclass(frozen=True, slots=True)
class ShardTime:
    """A shard and who encoded it: ``worker`` is host and process, ``cpu`` seconds of all of its threads until then.

    ``memory_mb`` is the most that the process had until then.
    """

    began: int
    ended: int
    texts: int
    tokens: int
    worker: str
    cpu: float
    memory_mb: float


@dataclass(slots=True)
class RunDetails:
    """What is kept of a run. ``lengths`` counts texts by the power of two of their tokens: 5 is 32 to 63.

    ``missed`` are the promises of ``[slo]`` that were not kept when it ended.
    """

    steps: list[StepTime] = field(default_factory=list)
    shards: list[ShardTime] = field(default_factory=list)
    lengths: Counter[int] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)

    def add_shard(self, timing: Mapping[str, Any], texts: int, tokens: int) -> None:
        """Add what a worker said of a shard."""
        self.lengths.update({int(power): count for power, count in timing["lengths"].items()})
        if len(self.shards) < MOST_SHARDS:
            worker = f"{timing['host']} {timing['pid']}"
            told = (timing["began"], timing["ended"], texts, tokens, worker, timing["cpu"], timing["memory_mb"])
            self.shards.append(ShardTime(*told))

    def add(self, before: RunDetails) -> None:
        """Put what an earlier process of the run kept before it."""
        self.steps[:0], self.shards[:0] = before.steps, before.shards
        self.lengths.update(before.lengths)


def keep_details(root: StatePath, run_id: str, details: RunDetails) -> None:
    """Write the file, in place of one that is there."""
    folder = root / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    said = {
        "steps": [asdict(one) for one in details.steps],
        "shards": [asdict(one) for one in details.shards],
        "lengths": dict(details.lengths),
        "missed": details.missed,
    }
    replace_file(folder / f"{run_id}.json", json.dumps(said).encode(), durable=False)


def kept_details(root: StatePath, run_id: str) -> RunDetails | None:
    """What was kept of a run; None where nothing was, or nothing that can be read."""
    try:
        said = json.loads((root / FOLDER / f"{run_id}.json").read_bytes())
        return RunDetails(
            [StepTime(**one) for one in said["steps"]],
            [ShardTime(**one) for one in said["shards"]],
            Counter({int(power): count for power, count in said["lengths"].items()}),
            said.get("missed", []),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def keep_page(root: StatePath, run_id: str, page: str) -> None:
    """Write a run's page beside its details, in place of one that is there."""
    file = root / FOLDER / f"{run_id}.html"
    file.parent.mkdir(mode=0o700, exist_ok=True)
    replace_file(file, page.encode(), durable=False)


def drop_details(root: StatePath, keep: Collection[str]) -> None:
    """Remove what is kept of other runs than these."""
    folder = root / FOLDER
    files = [file for ending in (".json", ".html") for file in folder.glob(f"*{ending}")] if folder.is_dir() else []
    remove_files(folder, [file.name for file in files if file.name.rpartition(".")[0] not in keep])
