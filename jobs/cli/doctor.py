"""The command ``doctor``."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import TYPE_CHECKING

from jobs.cli.frame import guarded, own_progress, show
from jobs.cli.options import ConfigOption, JsonOption

if TYPE_CHECKING:
    from jobs.bodies.doctor import DoctorBody


def doctor(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Look at all that a run needs, without one: machine, versions, model, state, sources, index.

    Exit code 1 where something fails, 0 where there is nothing worse than a warning.
    """

    def command() -> int:
        from jobs.commands.doctor import doctor as look
        from jobs.config import default_config_file
        from jobs.engines.environment import quiet_engines

        quiet_engines()
        with redirect_stdout(sys.stderr):  # what engines print is no part of the answer
            body = look(config or default_config_file(), own_progress())
        show(body, json, render)
        return 1 if body.status == "failed" else 0

    guarded(command, json)


def render(body: DoctorBody) -> str:
    """A line for each check, with the fix below one that needs it."""
    lines = []
    for one in body.checks:
        lines.append(f"{one.status:<8} {one.name}: {one.detail} ({one.seconds:.1f} s)")
        if one.fix:
            lines.append(f"{'':<8} fix: {one.fix}")
    bad = sum(one.status == "failed" for one in body.checks)
    doubtful = sum(one.status == "warning" for one in body.checks)
    verdict = f"{bad} failed, {doubtful} to look at" if bad or doubtful else "all well"
    return "\n".join([*lines, f"{len(body.checks)} checks: {verdict}"])
