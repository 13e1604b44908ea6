"""The one line in a cluster job's log that says how it ended. ``jobs.cli.cluster_entrypoint`` writes it."""

from __future__ import annotations

import json
import secrets
from typing import Any

from embedmill_airflow.launchers import Outcome

MARK = "EMBEDMILL_OUTCOME_MARK"  # the variable that gives the job its mark
MODULE = "jobs.cli.cluster_entrypoint"


def new_mark() -> str:
    """A mark that no earlier try of the job had."""
    return f"embedmill-outcome-{secrets.token_hex(8)}"


def outcome(log: str, mark: str) -> Outcome | None:
    """What the job said at its end; None where it said nothing, or only a part of it."""
    for line in reversed(log.split("\n")):
        if line.startswith(f"{mark} "):
            try:
                said = json.loads(line.removeprefix(mark))
                body = said["body"]
                return Outcome(int(said["code"]), body if isinstance(body, dict) else None)
            except (ValueError, TypeError, KeyError):
                return None
    return None


class Shown:
    """Passes a growing log on to the task's log, each line once, however often it is read from its beginning.

    The marked line stays out: the object is the task's XCom.
    """

    def __init__(self, log: Any, mark: str) -> None:
        self._log = log
        self._mark = mark
        self._done = 0  # characters of the log that were shown
        self._read = 0  # where the present reading is
        self._rest = ""

    def again(self) -> None:
        """The log is read from its beginning."""
        self._read = 0

    def add(self, piece: str) -> None:
        """The next piece of the log."""
        new = piece[max(0, self._done - self._read) :]
        self._read += len(piece)
        self._done = max(self._done, self._read)
        *lines, self._rest = (self._rest + new).split("\n")
        self._show(lines)

    def end(self) -> None:
        """The log has no more."""
        self._show([self._rest])
        self._rest = ""

    def _show(self, lines: list[str]) -> None:
        for line in lines:
            if line.strip() and not line.startswith(f"{self._mark} "):
                self._log.info("%s", line.rstrip())
