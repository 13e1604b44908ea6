"""The command line: options, exit codes, and what a person or a machine reads. Decides nothing about the work."""

from __future__ import annotations

import atexit
import enum
import os
import re
import signal
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import typer
from typer.exceptions import Abort, TyperException

from embedding.errors import ConfigError
from jobs import termination
from jobs.cli.frame import UNREAD, Unread, emit, error_object, fail, guarded, interrupted, opened_pipeline, say, show
from jobs.cli.options import (
    ChannelOption,
    ConfigOption,
    IdsOption,
    IndexOption,
    JsonOption,
    KindOption,
    MassDeleteOption,
    MaxTokensOption,
    MaxUsdOption,
    ModelOption,
    SinceOption,
    TeamOption,
    UntilOption,
    WaitOption,
    readable,
    said,
    scope_of,
)
from jobs.scope import parse_moment
from jobs.telemetry.error_reporting import safe_traceback

app = typer.Typer(
    help=(
        "Reconcile a search index with its sources: embed what is new, reuse what is stored, delete what is gone.\n\n"
        "A first session: `embedmill plan` shows what a run would do, `embedmill run` does it, `embedmill verify` "
        'proves it, `embedmill search "TEXT" --team T` uses it.\n\n'
        "Exit codes: 0 done; 1 unexpected fault; 2 usage or configuration error; 3 done, but records in the scope are "
        "in quarantine; 4 verification found a difference; 5 refused for safety."
    ),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _show_version(asked: bool) -> None:
    if asked:
        try:
            emit(f"embedmill {version('embedmill')}")
        except PackageNotFoundError:
            emit("embedmill, of a copy that is not installed")
        raise typer.Exit


@app.callback()
def options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and end.")
    ] = False,
) -> None:
    """Hold the options of no command."""


@app.command()
def plan(
    config: ConfigOption = None,
    json: JsonOption = False,
    team: TeamOption = None,
    channel: ChannelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    kind: KindOption = None,
    wait: WaitOption = 0.0,
) -> None:
    """Show what a run would embed, reuse, update and delete, with tokens, time and cost. Changes no index."""

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.plan import plan as make
        from jobs.known_names import looked_for

        asked = scope_of(team, channel, since, until, kind)
        with opened_pipeline(config) as pipeline, looked_for(pipeline, asked) as scope:
            body = make(pipeline, scope, wait=wait)
        show(body, json, render.plan)
        return 3 if body["documents"]["quarantined"] else 0

    guarded(command, json)


@app.command()
def run(
    config: ConfigOption = None,
    json: JsonOption = False,
    team: TeamOption = None,
    channel: ChannelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    kind: KindOption = None,
    wait: WaitOption = 0.0,
    allow_mass_delete: MassDeleteOption = False,
    max_tokens: MaxTokensOption = None,
    max_usd: MaxUsdOption = None,
) -> None:
    """Make the index equal to the sources: extract, plan, embed, publish. Safe to kill and to run again."""

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.run import run as go
        from jobs.known_names import looked_for
        from jobs.plan.plan import Budget

        asked, budget = scope_of(team, channel, since, until, kind), Budget(max_tokens, max_usd)
        with opened_pipeline(config) as pipeline, looked_for(pipeline, asked) as scope:
            body = go(pipeline, scope, allow_mass_delete=allow_mass_delete, budget=budget, wait=wait).to_json()
        show(body, json, render.run)
        return 3 if body["status"] == "partial" else 0

    guarded(command, json)


class Step(enum.StrEnum):
    """One step of a run."""

    extract = "extract"
    plan = "plan"
    embed = "embed"
    publish = "publish"


@app.command()
def step(
    name: Annotated[Step, typer.Argument(help="Which one; a run needs all four, in this order.")],
    run_id: Annotated[
        str, typer.Option("--run-id", metavar="ID", help="Of the run that the steps belong to; the same for all four.")
    ],
    config: ConfigOption = None,
    json: JsonOption = False,
    team: TeamOption = None,
    channel: ChannelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    kind: KindOption = None,
    wait: WaitOption = 0.0,
    index: IndexOption = None,
    build: Annotated[
        bool, typer.Option("--build", help="Work on the version of a reindex, beside the live one.")
    ] = False,
    to_model: ModelOption = None,
    allow_mass_delete: MassDeleteOption = False,
    max_tokens: MaxTokensOption = None,
    max_usd: MaxUsdOption = None,
) -> None:
    """Do one step of a run, for a scheduler that starts each as a process or job of its own. Safe to kill and repeat.

    A step does again what it needs of those before it, so other runs may come between two of them. `run` is all four
    in one; with --build they are the first part of a reindex, whose gate is `reindex`.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.step import step as go
        from jobs.known_names import looked_for
        from jobs.plan.plan import Budget

        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", run_id):
            raise ConfigError("--run-id: use 1 to 200 letters, digits, '.', '_' or '-', a letter or digit first")
        if to_model is not None and not build:
            raise ConfigError("--to-model: only a version that is being built can have another model; give --build")
        asked = scope_of(team, channel, since, until, kind)
        with opened_pipeline(config, to_model, index) as pipeline, looked_for(pipeline, asked) as scope:
            body = go(
                pipeline,
                name.value,
                scope,
                run_id=run_id,
                build=build,
                allow_mass_delete=allow_mass_delete,
                budget=Budget(max_tokens, max_usd),
                wait=wait,
            )
        show(body, json, render.plan if name is Step.plan else render.run)
        return 3 if body["documents"]["quarantined"] else 0

    guarded(command, json)


@app.command()
def search(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="What to look for, in words; - reads it from standard input.")
    ],
    team: Annotated[str, typer.Option("--team", metavar="T", help="Whose index rows to search; required.")],
    config: ConfigOption = None,
    json: JsonOption = False,
    channel: ChannelOption = None,
    kind: KindOption = None,
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="How many hits.")] = 10,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="By words as well (BM25), both ranks fused; needs index.hybrid = true.")
    ] = False,
) -> None:
    """Find the nearest chunks of one team, through the alias."""

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.search import search as find
        from jobs.known_names import check_search

        # Every user of a machine sees the arguments of its processes.
        words = _standard_input() if text == "-" else readable(text, "TEXT")
        if not words.strip():
            raise ConfigError("TEXT: give some words to search for")
        channels = [readable(c, "--channel") for c in channel or ()]
        asked = readable(team, "--team")
        with opened_pipeline(config) as pipeline:
            body = find(
                pipeline, words, team=asked, channels=channels, kind=kind.value if kind else None, k=k, hybrid=hybrid
            )
            if not body["hits"]:
                check_search(pipeline, asked, channels)
        show(body, json, render.search)
        return 0

    guarded(command, json)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise ConfigError("TEXT: standard input is not UTF-8") from None


@app.command()
def verify(
    config: ConfigOption = None,
    json: JsonOption = False,
    team: TeamOption = None,
    channel: ChannelOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    kind: KindOption = None,
    wait: WaitOption = 0.0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Rebuild damaged tables of the state; mend the rows that differ.")
    ] = False,
    allow_mass_delete: MassDeleteOption = False,
) -> None:
    """Compare index, ledger and desired state key by key, sampled vectors, and sampled partitions of the sources.

    Exit 4 on any difference left. What a source shows and the index lacks is mended by the run after a --repair.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.verify import verify as check
        from jobs.known_names import check_scope

        scope = scope_of(team, channel, since, until, kind)
        with opened_pipeline(config, rebuild=repair) as pipeline:
            body = check(pipeline, scope, repair=repair, allow_mass_delete=allow_mass_delete, wait=wait)
            check_scope(pipeline, scope, was_read=True)
        show(body, json, render.verify)
        return 4 if body["status"] == "differs" else 0

    guarded(command, json)


@app.command()
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
        if not body["gate"]["passed"]:
            return 4
        return 3 if body["status"] == "partial" else 0

    guarded(command, json)


@app.command()
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

        with opened_pipeline(config) as pipeline:
            body = back(pipeline, allow_mass_delete=allow_mass_delete, wait=wait)
        show(body, json, render.rollback)
        return 0

    guarded(command, json)


@app.command()
def takeover(config: ConfigOption = None, json: JsonOption = False, wait: WaitOption = 0.0) -> None:
    """Make this state the owner of the index, whoever owned it before. Changes no row; verify says what differs.

    An index belongs to the state that writes it, and every other one is refused (exit 5). For a state that replaces one
    that is lost: two that write to one index would delete each other's rows.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.takeover import takeover as take

        with opened_pipeline(config) as pipeline:
            body = take(pipeline, wait=wait)
        show(body, json, render.takeover)
        return 0

    guarded(command, json)


@app.command()
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

    Also compacts the live version on a Milvus server before 2.4, which is not left to do so by itself.
    """

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.gc import gc as collect

        with opened_pipeline(config) as pipeline:
            body = collect(pipeline, keep=keep, vectors=vectors, dry_run=dry_run, wait=wait)
        show(body, json, render.gc)
        return 0

    guarded(command, json)


@app.command("config")
def show_config(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show every setting in force and where it comes from, secrets masked."""

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.config import effective
        from jobs.config import default_config_file, load_config

        file = config or default_config_file()
        body = {"file": str(file), "settings": effective(load_config(file), file, list(os.environ))}
        show(body, json, render.config)
        return 0

    guarded(command, json)


@app.command("vespa-package")
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


@app.command()
def status(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show tables, index versions, alias, last runs, lag and quarantine."""

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.status import status as look

        with opened_pipeline(config) as pipeline:
            body = look(pipeline)
        show(body, json, render.status)
        return 0

    guarded(command, json)


@app.command()
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
        if body["unmatched"]:
            first = body["unmatched"][0]
            say(f"nothing is known of {len(body['unmatched']):,} of the ids, for example {first}; they are kept away")
        elif not body["matched"]:
            say("there was nothing in this scope; what comes with a date up to now is kept away")
        show(body, json, render.purge)
        return 0

    guarded(command, json)


def main() -> None:
    """Entry point of the console script: a mistake in the arguments gets one line too."""
    from jobs.engines.ray import end_ray
    from jobs.engines.terminal import OwnOutput

    as_json = "--json" in sys.argv[1:]
    sys.stdout = output = OwnOutput(sys.stdout)
    try:
        sys.exit(app(prog_name="embedmill", standalone_mode=False))
    except (Abort, KeyboardInterrupt):
        interrupted(as_json)
        sys.exit(128 + (termination.came() or signal.SIGINT))
    except TyperException as error:
        text = error.format_message()
        if "\n" in text:  # the help, for a command line without a command
            print(text, file=sys.stderr)
        else:
            fail("UsageError", f"{text.rstrip('.')}; see `embedmill --help`", error.exit_code, as_json)
        sys.exit(error.exit_code)
    except (Unread, BrokenPipeError):
        sys.exit(UNREAD)
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # of the help, which typer prints
            sys.exit(UNREAD)
        raise
    except Exception as error:  # one that ``_guarded`` let through for EMBEDMILL_DEBUG
        print(safe_traceback(error), file=sys.stderr)
        sys.exit(1)
    finally:
        output.end()
        if termination.came():
            with suppress(OSError):
                output.flush()
            termination.end_now(128 + termination.came())  # a Ray that is asked to end takes seconds
        end_ray()


def script() -> None:
    """Entry point of a process of its own: ``main``, and an end at once.

    Everything is closed and stored by then. Taking the loaded libraries apart takes a third of a second and does
    nothing else.
    """
    code = 1
    atexit.register(lambda: os._exit(code))  # the first to be registered is the last to be called
    try:
        heed_signals()
        main()
    except SystemExit as end:
        code = exit_code(end)
    except KeyboardInterrupt:  # before anything was begun
        interrupted("--json" in sys.argv[1:])
        code = 128 + (termination.came() or signal.SIGINT)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        code = UNREAD
    except OSError as error:
        code = 1
        say(f"standard output cannot be written: {error.strerror}")


def heed_signals() -> None:
    """Have a signal that asks this process to end be one line, and the end of its engines too."""
    out, err = os.dup(1), os.dup(2)  # the terminal's own, whatever an engine is given meanwhile

    def tell(number: int) -> None:
        line, kind = termination.line(number), "Interrupted" if number == signal.SIGINT else "Terminated"
        os.write(err, f"embedmill: {line}\n".encode())
        if "--json" in sys.argv[1:]:
            os.write(out, f"{error_object(kind, line, 128 + number)}\n".encode())

    termination.heed(tell)


def exit_code(end: SystemExit) -> int:
    """What the interpreter would make of it."""
    return end.code if isinstance(end.code, int) else int(end.code is not None)


if __name__ == "__main__":
    script()
