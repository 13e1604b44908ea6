"""How one embedmill command becomes a process or a cluster job, and how that ended. Each launcher is a file of its own.

A launcher has ``run(job, log=) -> Outcome``; or, where the task does not stay meanwhile, ``begin`` gives the trigger to
wait for and ``end`` the outcome. Both attach to a job of that name which an earlier try began, and both have
``stop(job)``. Imports neither Airflow nor an engine: DAG files import this when they are parsed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Job:
    """One embedmill command.

    ``name`` is unique per run and step: lowercase letters, digits and '-', at most 47 characters. ``arguments`` are
    those of the console script, ``engine`` is what it works with ("spark", "ray" or "none"), ``environment`` what is
    set for it and may be shown.
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


def run_id(dag_id: str, dag_run_id: str) -> str:
    """Return embedmill's run id of a DAG run: every step and every try has the same."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{dag_id.removeprefix('embedmill_')}-{dag_run_id}")
    return name if len(name) <= 100 else f"{name[:80]}-{hashlib.sha256(name.encode()).hexdigest()[:16]}"
