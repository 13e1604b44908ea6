"""The commands that look things up and change nothing: search, serve, status, config, explain, report."""

# ruff: noqa: PLR0913  (typer makes each parameter of a command an option)

from __future__ import annotations

import sys
import time
from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from embedding.errors import ConfigError
from jobs.cli.frame import guarded, opened_pipeline, say, show
from jobs.cli.options import (
    ChannelOption,
    ConfigOption,
    DenseOption,
    FromOption,
    HasFileOption,
    HybridOption,
    InOption,
    JsonOption,
    KindOption,
    LanguageOption,
    LexicalOption,
    MentionsOption,
    NoRerankOption,
    PublicOption,
    SinceOption,
    ThreadOption,
    UntilOption,
    mode_of,
    readable,
)
from jobs.scope import parse_moment

_WATCH_SECONDS = 5


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
    dense: DenseOption = False,
    lexical: LexicalOption = False,
    hybrid: HybridOption = False,
    no_rerank: NoRerankOption = False,
    author: FromOption = None,
    within: InOption = None,
    thread: ThreadOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    public: PublicOption = False,
    mentions: MentionsOption = None,
    has_file: HasFileOption = False,
    language: LanguageOption = None,
) -> None:
    """Find the nearest chunks of one team, through the alias."""

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.search import search as find
        from jobs.known_names import author_ids, check_search, language_codes, mentioned_ids
        from jobs.search.searcher import Query

        # Every user of a machine sees the arguments of its processes.
        words = _standard_input() if text == "-" else readable(text, "TEXT")
        if not words.strip():
            raise ConfigError("TEXT: give some words to search for")
        channels = tuple(readable(c, "--channel") for c in [*(channel or ()), *(within or ())])
        of_kind = kind.value if kind else None
        asked = mode_of(dense, lexical, hybrid)
        with opened_pipeline(config) as pipeline:
            mode = asked or pipeline.config.search.mode
            query = Query(
                words,
                readable(team, "--team"),
                channels,
                of_kind,
                k,
                mode,
                author_ids(pipeline, team, [readable(one, "--from") for one in author or ()]),
                None if thread is None else readable(thread, "--thread"),
                None if since is None else parse_moment(since, "--since"),
                None if until is None else parse_moment(until, "--until"),
                public,
                mentioned_ids(pipeline, team, [readable(one, "--mentions") for one in mentions or ()]),
                has_file,
                language_codes([readable(one, "--language") for one in language or ()]),
            )
            body = find(pipeline, query, rerank=not no_rerank)
            if not body.hits:
                check_search(pipeline, query.team, query.channels, query.languages)
        show(body, json, render.search)
        return 0

    guarded(command, json)


def serve(
    config: ConfigOption = None,
    host: Annotated[str, typer.Option("--host", metavar="H", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="P", min=1, max=65535, help="Port to listen on.")] = 8000,
) -> None:
    """Answer queries over HTTP: /v1/embeddings, /embed and /search, in the space of the live version.

    It follows the alias: a reindex to another model is taken up without a failed request. SIGTERM drains it.
    """

    def command() -> int:
        from jobs.commands.serve import serve as run

        with opened_pipeline(config) as pipeline:
            run(pipeline, host, port, say)
        return 0

    guarded(command, False)


def _standard_input() -> str:
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise ConfigError("TEXT: standard input is not UTF-8") from None


class StatusCommand(TyperCommand):
    """``--watch`` may stand without its number, which typer has no option for."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Give a bare ``--watch`` its number."""
        given = [
            f"--watch={_WATCH_SECONDS}" if word == "--watch" and following.startswith("--") else word
            for word, following in zip_longest(args, args[1:], fillvalue="--")
        ]
        return super().parse_args(ctx, given)


def status(
    config: ConfigOption = None,
    json: JsonOption = False,
    check: Annotated[bool, typer.Option("--check", help="Exit with 4 where a promise of [slo] is missed.")] = False,
    runs: Annotated[
        int, typer.Option("--runs", metavar="N", min=0, help="With --check: missed at the end of the last N runs, too.")
    ] = 0,
    watch: Annotated[
        float,
        typer.Option(
            "--watch",
            metavar="[SECONDS]",
            min=0,
            max=86_400,
            show_default=False,
            help="Show it anew every so many seconds, else every 5; 0: once.",
        ),
    ] = 0.0,
) -> None:
    """Show tables, index versions, alias, last runs, lag, quarantine, and whether what [slo] promises is met."""

    def command() -> int:
        from rich.console import Console

        from jobs.cli import render
        from jobs.commands.status import status as look

        if watch and json:
            raise ConfigError("--watch: is for a person; leave --json out, or ask again from outside")
        while True:
            with opened_pipeline(config, needs_model=False) as pipeline:
                body = look(pipeline)
            if watch:
                Console().clear()  # nothing where that is no terminal
            show(body, json, render.status)
            if not watch:
                return 4 if check and any(not one.met and one.missed_runs >= runs for one in body.levels) else 0
            sys.stdout.flush()  # a pipe is to have it now
            time.sleep(watch)

    guarded(command, json)


def show_config(config: ConfigOption = None, json: JsonOption = False) -> None:
    """Show every setting in force and where it comes from, secrets masked."""

    def command() -> int:
        from jobs.cli import render
        from jobs.commands.config import show_config as look
        from jobs.config import default_config_file

        show(look(config or default_config_file()), json, render.config)
        return 0

    guarded(command, json)


def explain(
    wanted: Annotated[str, typer.Argument(metavar="ID", help="A document's id, or a chunk's, as hits show them.")],
    team: Annotated[str, typer.Option("--team", metavar="T", help="Whose document it is; else the id's team.")] = "",
    config: ConfigOption = None,
    json: JsonOption = False,
    text: Annotated[bool, typer.Option("--text", help="Show the text of its chunks, too.")] = False,
) -> None:
    """Say where a document is and why: readings, chunks, vectors, index versions, quarantine, purges."""

    def command() -> int:
        from jobs.cli import render_explain
        from jobs.commands.explain import explain as look

        with opened_pipeline(config, needs_model=False) as pipeline:
            body = look(pipeline, readable(team, "--team"), readable(wanted, "ID"), text=text)
        show(body, json, render_explain.explain)
        return 0

    guarded(command, json)


def report(
    run: Annotated[
        str, typer.Argument(metavar="[RUN]", help="Id of a run or another command; else the newest run.")
    ] = "",
    config: ConfigOption = None,
    json: JsonOption = False,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to write the page.")] = None,
) -> None:
    """Write a run as one HTML page: timeline, throughput, lengths, teams (masked), workers, and the runs before it."""

    def command() -> int:
        from jobs.commands.run_page import write_page

        with opened_pipeline(config, needs_model=False) as pipeline:
            body = write_page(pipeline, readable(run, "RUN"), out)
        show(body, json, lambda told: f"{told.command} {told.run_id}: {told.file}")
        return 0

    guarded(command, json)
