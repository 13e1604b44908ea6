"""The command line, called in this process: its Spark is started once for all tests, its Ray once for those of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

from typer import testing
from typer.main import get_command
from typer.testing import CliRunner, Result

from jobs.cli.app import app

# Made anew for each command it takes 14 ms of a core, which a test's commands together notice.
vars(testing)["_get_command"] = cache(get_command)


def invoke(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> Result:
    """Run a command, with ``environment`` added to this process'. Raises an exception that the command let out."""
    ran = CliRunner().invoke(app, list(arguments), env=environment)
    if ran.exception is not None and not isinstance(ran.exception, SystemExit):
        raise ran.exception
    return ran
