"""The commands of the group ``state``: what is done to a state itself."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.frame import guarded, own_progress, show
from jobs.cli.options import ConfigOption, JsonOption, WaitOption

app = typer.Typer(
    help="Look after the state itself: rewrite it, move it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def group() -> None:
    """Look after the state itself: rewrite it, move it."""


@app.command("migrate")
def migrate(config: ConfigOption = None, json: JsonOption = False, wait: WaitOption = 0.0) -> None:
    """Rewrite the tables of a state that an earlier release wrote. Encodes nothing; safe to kill and to run again.

    It needs as much free disk as the largest table. Keep a backup: an earlier release cannot read the state afterwards.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.state_migrate import migrate as rewrite
        from jobs.config import default_config_file, load_config

        loaded = load_config(config or default_config_file())
        body = rewrite(loaded, own_progress(), wait=wait)
        show(body, json, render.migrate)
        return 0

    guarded(command, json)


@app.command("copy")
def copy(
    source: Annotated[str, typer.Argument(metavar="FROM", help="where the state is: a folder, or s3://bucket/prefix")],
    target: Annotated[str, typer.Argument(metavar="TO", help="an empty place, or an unfinished copy of FROM")],
    config: ConfigOption = None,
    json: JsonOption = False,
    wait: WaitOption = 0.0,
) -> None:
    """Move a state between a folder and an object store. Encodes nothing; safe to kill and to run again.

    Relative folders are taken from that of the configuration, which says in [state.storage] how a store is reached. The
    copy is read to its end; then FROM refuses runs, and names TO. Set state.uri to TO. FROM may be removed then, but
    for an index that is a file in it.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.state_copy import copy_state
        from jobs.config import default_config_file, load_config

        loaded = load_config(config or default_config_file())
        progress = own_progress()
        show(copy_state(loaded, source, target, progress, wait=wait), json, render.copy)
        return 0

    guarded(command, json)
