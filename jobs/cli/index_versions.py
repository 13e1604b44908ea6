"""The commands that build, move, take over and drop versions of an index."""

# ruff: noqa: PLR0913  (typer makes each parameter of a command an option)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from jobs.cli.frame import guarded, opened_pipeline, show
from jobs.cli.options import (
    ChannelOption,
    ConfigOption,
    IndexOption,
    JsonOption,
    KindOption,
    MassDeleteOption,
    ModelOption,
    SinceOption,
    TeamOption,
    UntilOption,
    WaitOption,
    scope_of,
)


def reindex(
    config: ConfigOption = None,
    json: JsonOption = False,
    team: TeamOption = None,
    channel: ChannelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    kind: KindOption = None,
    wait: WaitOption = 0.0,
    index: IndexOption = None,
    to_model: ModelOption = None,
    activate: Annotated[
        bool | None,
        typer.Option("--activate/--no-activate", help="Move the alias when the gate passes (so by default), or not."),
    ] = None,
    allow_mass_delete: Annotated[
        bool, typer.Option("--allow-mass-delete", help="Cut over although many of the live documents are missing.")
    ] = False,
) -> None:
    """Build a new version beside the live one, examine it, and move the alias to it. Safe to kill and to run again.

    Other runs go on meanwhile: give them --wait, and the build lets them in between two shards. A version that the gate
    refuses is never made live (exit 4). With a scope only that part is built, and the alias stays.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.reindex import reindex as build
        from jobs.known_names import looked_for

        asked = scope_of(team, channel, since, until, kind)
        with opened_pipeline(config, to_model, index) as pipeline, looked_for(pipeline, asked) as scope:
            body = build(pipeline, scope, activate=activate, allow_mass_delete=allow_mass_delete, wait=wait)
        show(body, json, render.reindex)
        if not body.gate.passed:
            return 4
        return 3 if body.status == "partial" else 0

    guarded(command, json)


def rollback(
    config: ConfigOption = None,
    json: JsonOption = False,
    wait: WaitOption = 0.0,
    allow_mass_delete: MassDeleteOption = False,
) -> None:
    """Move the alias back to the version before the live one, in seconds. Run afterwards to bring it up to date.

    Documents that were deleted, edited or purged since that version was live are taken out of it first: it shows
    nothing that the live one did not.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.rollback import rollback as back

        with opened_pipeline(config, needs_model=False) as pipeline:
            body = back(pipeline, allow_mass_delete=allow_mass_delete, wait=wait)
        show(body, json, render.rollback)
        return 0

    guarded(command, json)


def takeover(config: ConfigOption = None, json: JsonOption = False, wait: WaitOption = 0.0) -> None:
    """Make this state the owner of the index, in place of another state. Changes no row; verify says what differs.

    An index belongs to the state that writes it, and every other one is refused (exit 5). For a state that replaces one
    that is lost: two that write to one index would delete each other's rows.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.takeover import takeover as take

        with opened_pipeline(config, needs_model=False) as pipeline:
            body = take(pipeline, wait=wait)
        show(body, json, render.takeover)
        return 0

    guarded(command, json)


def gc(
    config: ConfigOption = None,
    json: JsonOption = False,
    wait: WaitOption = 0.0,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", min=2, help="Versions to keep; else index.keep_versions.")
    ] = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also drop stored vectors of models that no kept version uses.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be dropped.")] = False,
) -> None:
    """Drop old index versions; never the live one, the one before it, or the newest that is being built.

    Also compacts the tables of the state, and the live version on a Milvus server before 2.4, which is not left to do
    so by itself.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.gc import gc as collect

        # Which space is to keep its vectors is not guessed.
        with opened_pipeline(config, needs_model=vectors) as pipeline:
            body = collect(pipeline, keep=keep, vectors=vectors, dry_run=dry_run, wait=wait)
        show(body, json, render.gc)
        return 0

    guarded(command, json)


def vespa_package(
    config: ConfigOption = None,
    json: JsonOption = False,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write it.")] = Path("build/vespa"),
    versions: Annotated[
        int, typer.Option("--versions", metavar="N", min=1, help="Versions to have room for, beside those in use.")
    ] = 2,
    to_model: Annotated[
        str | None, typer.Option("--to-model", metavar="M", help="Room for versions of this model, not model.name.")
    ] = None,
) -> None:
    """Write the application package that Vespa needs for this index, to be deployed with `vespa deploy FOLDER`."""

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.index_package import make

        with opened_pipeline(config, to_model) as pipeline:
            body = make(pipeline, out, versions=versions)
        show(body, json, render.vespa_package)
        return 0

    guarded(command, json)
