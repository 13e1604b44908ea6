"""How one embedmill command becomes a process or a cluster job, and how that ended. Each launcher is a file of its own.

Imports neither Airflow nor an engine: DAG files import this when they are parsed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """One embedmill command.

    ``name`` is unique per run and step: lowercase letters, digits and '-', at most 52 characters. ``arguments`` are
    those of the console script, ``engine`` is what it works with ("spark", "ray" or "none"), ``environment`` what is
    set for it and may be seen.
    """

    name: str
    arguments: tuple[str, ...]
    engine: str
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended: its exit code, and the JSON object that it printed (None where there was none)."""

    code: int
    body: dict[str, Any] | None


class JobLost(Exception):
    """A job was killed, or ended without a word: a failure, and never a success."""
