"""The commands of the group ``state``: what is done to a state's folder itself."""

from __future__ import annotations

import os

import typer

from jobs.cli.frame import guarded, show
from jobs.cli.options import ConfigOption, JsonOption, WaitOption

app = typer.Typer(
    help="Look after the folder of the state.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def group() -> None:
    """Look after the folder of the state."""


@app.command("migrate")
def migrate(config: ConfigOption = None, json: JsonOption = False, wait: WaitOption = 0.0) -> None:
    """Rewrite the tables of a state that an earlier release wrote. Encodes nothing; safe to kill and to run again.

    It needs as much free disk as the largest table. Keep a backup: an earlier release cannot read the state afterwards.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.state_migrate import migrate as rewrite
        from jobs.config import default_config_file, load_config
        from jobs.telemetry.progress import Progress

        loaded = load_config(config or default_config_file())
        body = rewrite(loaded, Progress(lines=os.environ.get("EMBEDMILL_PROGRESS") == "lines"), wait=wait)
        show(body, json, render.migrate)
        return 0

    guarded(command, json)
