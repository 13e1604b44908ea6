"""The command line: options, exit codes, and what a person or a machine reads. Decides nothing about the work."""

from __future__ import annotations

import enum
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.exceptions import Abort, TyperException

from embedding.errors import ConfigError, EmbedmillError, ResourceError
from jobs.faults import describe, disk_full, safe_traceback
from jobs.masking import without_userinfo
from jobs.scope import Scope, parse_moment

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


class Kind(enum.StrEnum):
    """What a document is."""

    message = "message"
    file = "file"


ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration; else $EMBEDMILL_CONFIG, else ./embedmill.toml."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object on standard output and nothing else there.")]
TeamOption = Annotated[list[str] | None, typer.Option("--team", metavar="T", help="Only this team; repeatable.")]
ChannelOption = Annotated[
    list[str] | None, typer.Option("--channel", metavar="C", help="Only this channel id; repeatable.")
]
SinceOption = Annotated[str | None, typer.Option("--since", metavar="DATE", help="Created at or after this (UTC).")]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="DATE", help="Created before this (UTC).")]
KindOption = Annotated[Kind | None, typer.Option("--kind", help="Only messages or only files.")]
IdsOption = Annotated[
    list[str] | None, typer.Option("--ids", metavar="DOC_ID", help="Only these documents; repeatable, or with commas.")
]
MaxTokensOption = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", min=0, help="Refuse a plan that embeds more tokens (exit 5).")
]
MaxUsdOption = Annotated[
    float | None,
    typer.Option("--max-usd", metavar="USD", min=0, help="Refuse a plan whose estimate is above (exit 5)."),
]
IndexOption = Annotated[
    str | None, typer.Option("--index", metavar="NAME", help="Refuse to work if the configuration's index is another.")
]
ModelOption = Annotated[
    str | None, typer.Option("--to-model", metavar="M", help="Build with this model instead of model.name.")
]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", help="How long to wait for another run to end.")
]


def _scope(
    team: list[str] | None, channel: list[str] | None, since: str | None, until: str | None, kind: Kind | None
) -> Scope:
    return Scope(
        teams=tuple(team or ()),
        channels=tuple(channel or ()),
        since=parse_moment(since, "--since") if since else None,
        until=parse_moment(until, "--until") if until else None,
        kind=kind.value if kind else None,
    )


@contextmanager
def _mill(
    config: Path | None, model: str | None = None, index: str | None = None, *, rebuild: bool = False
) -> Iterator[Any]:
    from jobs.config import default_config_file, load_config
    from jobs.engines import own_terminal, quiet_engines
    from jobs.health import damage_error, find_damage, first_damage
    from jobs.progress import Progress

    loaded = load_config(config or default_config_file())
    if index is not None and index != loaded.index.name:
        raise ConfigError(f"--index: the configuration's index is {loaded.index.name!r}, not {index!r}")
    if model is not None:
        loaded = loaded.with_model(model)
    quiet_engines()
    from jobs.mill import Mill

    mill = Mill(loaded, Progress(lines=os.environ.get("EMBEDMILL_PROGRESS") == "lines"))
    if not mill.state.private:
        _say(f"state.uri: other users of this machine may read {mill.state.root}, and it is not ours to close")
    debug = bool(os.environ.get("EMBEDMILL_DEBUG"))
    with redirect_stdout(sys.stderr) if debug else own_terminal(mill.state.engine_log):
        try:
            if not rebuild and (damage := first_damage(mill.state.root)):
                raise damage_error(mill.state.root, damage)
            yield mill
        except EmbedmillError:
            raise
        except Exception as error:
            # An engine that meets a damaged file says so in a hundred ways; looking for one is sure, and late enough.
            if not disk_full(error) and (found := find_damage(mill.state.root)):
                raise damage_error(mill.state.root, found[0]) from error
            raise
        finally:
            mill.close()


def _guarded(command: Callable[[], int], as_json: bool) -> None:
    """Run a command; turn every known failure into one line and its exit code, and for a machine into an object."""
    try:
        code = command()
    except EmbedmillError as error:
        kind, line, code = type(error).__name__, str(error), error.exit_code
    except KeyboardInterrupt:
        kind, line, code = "Interrupted", "interrupted; run the same command again to go on", 130
    except Exception as error:
        if disk_full(error):
            kind, code = "ResourceError", ResourceError.exit_code
            line = "disk full while writing the state; free some space and run the same command again"
        elif os.environ.get("EMBEDMILL_DEBUG"):
            raise
        else:
            kind, code = type(error).__name__, 1
            line = f"{describe(error)}; set EMBEDMILL_DEBUG=1 to see the traceback"
    else:
        raise typer.Exit(code)
    line = without_userinfo(line)
    _say(line)
    if as_json:
        print(json.dumps({"error": {"kind": kind, "exit_code": code, "message": " ".join(line.split())}}))
    raise typer.Exit(code)


def _say(line: str) -> None:
    print(f"embedmill: {' '.join(line.split())}", file=sys.stderr)


def _show(body: dict[str, Any], as_json: bool, human: Callable[[dict[str, Any]], str]) -> None:
    print(json.dumps(body, ensure_ascii=False) if as_json else human(body))


@app.command()
def plan(
    config: ConfigOption = None, json: JsonOption = False, team: TeamOption = None, channel: ChannelOption = None,
    since: SinceOption = None, until: UntilOption = None, kind: KindOption = None, wait: WaitOption = 0.0,
) -> None:  # fmt: skip
    """Show what a run would embed, reuse, update and delete, with tokens, time and cost. Changes no index."""

    def command() -> int:
        from jobs import render
        from jobs.run import plan as make

        with _mill(config) as mill:
            body = make(mill, _scope(team, channel, since, until, kind), wait=wait)
        _show(body, json, render.plan)
        return 3 if body["documents"]["quarantined"] else 0

    _guarded(command, json)


@app.command()
def run(
    config: ConfigOption = None, json: JsonOption = False, team: TeamOption = None, channel: ChannelOption = None,
    since: SinceOption = None, until: UntilOption = None, kind: KindOption = None, wait: WaitOption = 0.0,
    allow_mass_delete: Annotated[
        bool, typer.Option("--allow-mass-delete", help="Delete past limits.max_delete_*; look at the plan first.")
    ] = False,
    max_tokens: MaxTokensOption = None, max_usd: MaxUsdOption = None,
) -> None:  # fmt: skip
    """Make the index equal to the sources: extract, plan, embed, publish. Safe to kill and to run again."""

    def command() -> int:
        from jobs import render
        from jobs.plan import Budget
        from jobs.run import run as go

        with _mill(config) as mill:
            scope, budget = _scope(team, channel, since, until, kind), Budget(max_tokens, max_usd)
            body = go(mill, scope, allow_mass_delete=allow_mass_delete, budget=budget, wait=wait).to_json()
        _show(body, json, render.run)
        return 3 if body["status"] == "partial" else 0

    _guarded(command, json)


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
    config: ConfigOption = None, json: JsonOption = False, team: TeamOption = None, channel: ChannelOption = None,
    since: SinceOption = None, until: UntilOption = None, kind: KindOption = None, wait: WaitOption = 0.0,
    index: IndexOption = None,
    build: Annotated[
        bool, typer.Option("--build", help="Work on the version of a reindex, beside the live one.")
    ] = False,
    to_model: ModelOption = None,
    allow_mass_delete: Annotated[
        bool, typer.Option("--allow-mass-delete", help="Delete past limits.max_delete_*; look at the plan first.")
    ] = False,
    max_tokens: MaxTokensOption = None, max_usd: MaxUsdOption = None,
) -> None:  # fmt: skip
    """Do one step of a run, for a scheduler that starts each as a process or job of its own. Safe to kill and repeat.

    A step does again what it needs of those before it, so other runs may come between two of them. `run` is all four
    in one; with --build they are the first part of a reindex, whose gate is `reindex`.
    """

    def command() -> int:
        from jobs import render
        from jobs.plan import Budget
        from jobs.steps import step as go

        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", run_id):
            raise ConfigError("--run-id: use 1 to 200 letters, digits, '.', '_' or '-', a letter or digit first")
        if to_model is not None and not build:
            raise ConfigError("--to-model: only a version that is being built can have another model; give --build")
        with _mill(config, to_model, index) as mill:
            body = go(
                mill, name.value, _scope(team, channel, since, until, kind), run_id=run_id, build=build,
                allow_mass_delete=allow_mass_delete, budget=Budget(max_tokens, max_usd), wait=wait,
            )  # fmt: skip
        _show(body, json, render.plan if name is Step.plan else render.run)
        return 3 if body["documents"]["quarantined"] else 0

    _guarded(command, json)


@app.command()
def search(
    text: Annotated[
        str, typer.Argument(metavar="TEXT", help="What to look for, in words; - reads it from standard input.")
    ],
    team: Annotated[str, typer.Option("--team", metavar="T", help="Whose index rows to search; required.")],
    config: ConfigOption = None, json: JsonOption = False, channel: ChannelOption = None, kind: KindOption = None,
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="How many hits.")] = 10,
    hybrid: Annotated[
        bool, typer.Option("--hybrid", help="By words as well (BM25), both ranks fused; needs index.hybrid = true.")
    ] = False,
) -> None:  # fmt: skip
    """Find the nearest chunks of one team, through the alias."""

    def command() -> int:
        from jobs import render
        from jobs.run import search as find

        # Every user of a machine sees the arguments of its processes.
        words = sys.stdin.read() if text == "-" else text
        if not words.strip():
            raise ConfigError("TEXT: give some words to search for")
        with _mill(config) as mill:
            body = find(
                mill, words, team=team, channels=channel or (), kind=kind.value if kind else None, k=k, hybrid=hybrid
            )
        _show(body, json, render.search)
        return 0

    _guarded(command, json)


@app.command()
def verify(
    config: ConfigOption = None, json: JsonOption = False, team: TeamOption = None, channel: ChannelOption = None,
    since: SinceOption = None, until: UntilOption = None, kind: KindOption = None, wait: WaitOption = 0.0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Rebuild damaged tables of the state; mend the rows that differ.")
    ] = False,
) -> None:  # fmt: skip
    """Compare index, ledger and desired state key by key, and sampled vectors. Exit 4 on any difference left."""

    def command() -> int:
        from jobs import render
        from jobs.run import verify as check

        with _mill(config, rebuild=repair) as mill:
            body = check(mill, _scope(team, channel, since, until, kind), repair=repair, wait=wait)
        _show(body, json, render.verify)
        return 4 if body["status"] == "differs" else 0

    _guarded(command, json)


@app.command()
def reindex(
    config: ConfigOption = None, json: JsonOption = False, team: TeamOption = None, channel: ChannelOption = None,
    since: SinceOption = None, until: UntilOption = None, kind: KindOption = None, wait: WaitOption = 0.0,
    index: IndexOption = None, to_model: ModelOption = None,
    activate: Annotated[
        bool | None,
        typer.Option("--activate/--no-activate", help="Move the alias when the gate passes (so by default), or not."),
    ] = None,
    allow_mass_delete: Annotated[
        bool, typer.Option("--allow-mass-delete", help="Cut over although many of the live documents are missing.")
    ] = False,
) -> None:  # fmt: skip
    """Build a new version beside the live one, examine it, and move the alias to it. Safe to kill and to run again.

    Other runs go on meanwhile: give them --wait, and the build lets them in between two shards. A version that the gate
    refuses is never made live (exit 4). With a scope only that part is built, and the alias stays.
    """

    def command() -> int:
        from jobs import render
        from jobs.reindex import reindex as build

        with _mill(config, to_model, index) as mill:
            body = build(
                mill, _scope(team, channel, since, until, kind), activate=activate,
                allow_mass_delete=allow_mass_delete, wait=wait,
            )  # fmt: skip
        _show(body, json, render.reindex)
        if not body["gate"]["passed"]:
            return 4
        return 3 if body["status"] == "partial" else 0

    _guarded(command, json)


@app.command()
def rollback(config: ConfigOption = None, json: JsonOption = False, wait: WaitOption = 0.0) -> None:
    """Move the alias back to the version before the live one, in seconds. Run afterwards to bring it up to date."""

    def command() -> int:
        from jobs import render
        from jobs.reindex import rollback as back

        with _mill(config) as mill:
            body = back(mill, wait=wait)
        _show(body, json, render.rollback)
        return 0

    _guarded(command, json)


@app.command()
def gc(
    config: ConfigOption = None, json: JsonOption = False, wait: WaitOption = 0.0,
    keep: Annotated[
        int | None, typer.Option("--keep", metavar="N", min=2, help="Versions to keep; else index.keep_versions.")
    ] = None,
    vectors: Annotated[
        bool, typer.Option("--vectors", help="Also drop stored vectors of models that no kept version uses.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be dropped.")] = False,
) -> None:  # fmt: skip
    """Drop old index versions; never the live one, the one before it, or the newest that is being built."""

    def command() -> int:
        from jobs import render
        from jobs.gc import gc as collect

        with _mill(config) as mill:
            body = collect(mill, keep=keep, vectors=vectors, dry_run=dry_run, wait=wait)
        _show(body, json, render.gc)
        return 0

    _guarded(command, json)


@app.command("config")
def show_config(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show every setting in force and where it comes from, secrets masked."""

    def command() -> int:
        from jobs import render
        from jobs.config import default_config_file, load_config
        from jobs.masking import effective

        file = config or default_config_file()
        body = {"file": str(file), "settings": effective(load_config(file), file, list(os.environ))}
        _show(body, json, render.config)
        return 0

    _guarded(command, json)


@app.command("vespa-package")
def vespa_package(
    config: ConfigOption = None, json: JsonOption = False,
    out: Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Where to write it.")] = Path("build/vespa"),
    versions: Annotated[
        int, typer.Option("--versions", metavar="N", min=1, help="Versions to have room for, beside those in use.")
    ] = 2,
    to_model: Annotated[
        str | None, typer.Option("--to-model", metavar="M", help="Room for versions of this model, not model.name.")
    ] = None,
) -> None:  # fmt: skip
    """Write the application package that Vespa needs for this index, to be deployed with `vespa deploy FOLDER`."""

    def command() -> int:
        from jobs import render
        from jobs.vespa_package import make

        with _mill(config, to_model) as mill:
            body = make(mill, out, versions=versions)
        _show(body, json, render.vespa_package)
        return 0

    _guarded(command, json)


@app.command()
def status(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show tables, index versions, alias, last runs, lag and quarantine."""

    def command() -> int:
        from jobs import render
        from jobs.run import status as look

        with _mill(config) as mill:
            body = look(mill)
        _show(body, json, render.status)
        return 0

    _guarded(command, json)


@app.command()
def purge(
    team: Annotated[str, typer.Option("--team", metavar="T", help="Whose documents; required.")],
    config: ConfigOption = None, json: JsonOption = False,
    channel: Annotated[str, typer.Option("--channel", metavar="C", help="Only this channel id.")] = "",
    ids: IdsOption = None,
    before: Annotated[str | None, typer.Option("--before", metavar="DATE", help="Only what is older (UTC).")] = None,
    wait: WaitOption = 0.0,
) -> None:  # fmt: skip
    """Remove documents from the index, the vector store and the text tables, for good, and print a receipt.

    Later runs keep them out, unless their source brings a version newer than the purge.
    """

    def command() -> int:
        from jobs import render
        from jobs.purge import purge as remove

        listed = [i for group in ids or () for i in group.split(",") if i]
        moment = parse_moment(before, "--before") if before else None
        with _mill(config) as mill:
            body = remove(mill, team=team, channel=channel, ids=listed, before=moment, wait=wait)
        _show(body, json, render.purge)
        return 0

    _guarded(command, json)


def main() -> None:
    """Entry point of the console script: a mistake in the arguments gets one line too."""
    from jobs.engines import OwnOutput

    sys.stdout = output = OwnOutput()
    try:
        sys.exit(app(prog_name="embedmill", standalone_mode=False))
    except Abort:
        _say("interrupted")
        sys.exit(130)
    except TyperException as error:
        text = error.format_message()
        if "\n" in text:  # the help, for a command line without a command
            print(text, file=sys.stderr)
        else:
            _say(f"{text.rstrip('.')}; see `embedmill --help`")
        sys.exit(error.exit_code)
    except Exception as error:  # one that ``_guarded`` let through for EMBEDMILL_DEBUG
        print(safe_traceback(error), file=sys.stderr)
        sys.exit(1)
    finally:
        output.end()


if __name__ == "__main__":
    main()
