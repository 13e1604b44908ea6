"""The command that removes documents for good."""

# ruff: noqa: PLR0913  (typer makes each parameter of a command an option)

from __future__ import annotations

from typing import Annotated

import typer

from jobs.cli.frame import guarded, opened_pipeline, say, show
from jobs.cli.options import ConfigOption, IdsOption, JsonOption, WaitOption, readable, said
from jobs.scope import parse_moment


def purge(
    team: Annotated[str, typer.Option("--team", metavar="T", help="Whose documents; required.")],
    config: ConfigOption = None,
    json: JsonOption = False,
    channel: Annotated[str | None, typer.Option("--channel", metavar="C", help="Only this channel id.")] = None,
    ids: IdsOption = None,
    before: Annotated[str | None, typer.Option("--before", metavar="DATE", help="Only what is older (UTC).")] = None,
    wait: WaitOption = 0.0,
) -> None:
    """Remove documents from the index, the vector store and the text tables, for good, and print a receipt.

    Later runs keep them out, unless their source brings a version newer than the purge (or than the one that was
    purged, where that is dated ahead). Ids of chunks stand for their documents. An id that nothing is known of is kept
    away too, with a warning and in the receipt's `unmatched`; one of another team, and an unknown team, is exit 2.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.purge import purge as remove

        # An option whose shell variable was not set must not come to mean the whole team.
        listed = [readable(i, "--ids") for group in ids or () for i in said(group.strip(","), "--ids").split(",") if i]
        of_channel = "" if channel is None else readable(said(channel, "--channel"), "--channel")
        moment = None if before is None else parse_moment(before, "--before")
        with opened_pipeline(config) as pipeline:
            body = remove(
                pipeline, team=readable(team, "--team"), channel=of_channel, ids=listed, before=moment, wait=wait
            )
        if body.unmatched:
            first = body.unmatched[0]
            say(f"nothing is known of {len(body.unmatched):,} of the ids, for example {first}; they are kept away")
        elif not body.matched:
            say("there was nothing in this scope; what comes with a date up to now is kept away")
        show(body, json, render.purge)
        return 0

    guarded(command, json)
