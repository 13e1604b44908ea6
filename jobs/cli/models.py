"""The commands that make models and say which one counts."""

# ruff: noqa: PLR0913  (typer makes each parameter of a command an option)

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedding.errors import ConfigError
from jobs.cli.frame import guarded, opened_pipeline, show
from jobs.cli.options import ConfigOption, JsonOption


def train(
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the model is called in the registry.")],
    config: ConfigOption = None,
    json: JsonOption = False,
    pairs: Annotated[
        Path | None,
        typer.Option("--pairs", metavar="FILE", help="JSONL of anchor, positive and, where there is one, negative."),
    ] = None,
    threads: Annotated[
        bool, typer.Option("--threads", help="Pairs of what the state holds of training.teams: threads, titled texts.")
    ] = False,
    max_tokens: Annotated[
        int | None, typer.Option("--max-tokens", metavar="N", min=0, help="Stop before training on more than this.")
    ] = None,
    max_minutes: Annotated[
        float | None,
        typer.Option("--max-minutes", metavar="M", min=0, help="Stop at a checkpoint when this has passed."),
    ] = None,
) -> None:
    """Tune a model on pairs of texts that belong together, measure it, and register it as the challenger.

    Safe to kill and to run again: it goes on from its last checkpoint. The model is compared with the one it was made
    of on what was held out, and examined for what it tells of its training; `embedmill promote` goes by both.
    """

    def command() -> int:
        from jobs.cli.render_models import trained
        from jobs.commands.train import train_model
        from jobs.training.recipe import Budget

        if (pairs is None) is not threads:
            raise ConfigError("give either --pairs FILE or --threads")
        with opened_pipeline(config) as pipeline:
            body = train_model(pipeline, name, pairs, budget=Budget(max_tokens, max_minutes))
        show(body, json, trained)
        return 0

    guarded(command, json)


def promote(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A model of the registry.")],
    config: ConfigOption = None,
    json: JsonOption = False,
    to: Annotated[str, typer.Option("--to", metavar="ALIAS", help="What the model is to stand for.")] = "champion",
    version: Annotated[
        int, typer.Option("--version", metavar="N", min=0, help="This version; without it the challenger.")
    ] = 0,
    back: Annotated[bool, typer.Option("--back", help="What the alias stood for before.")] = False,
    check: Annotated[bool, typer.Option("--check", help="Only say whether it would be; nothing is moved.")] = False,
) -> None:
    """Let `models:/NAME@champion` be the challenger, unless it is worse, leaks, or has seen what was purged since.

    Exit code 4 where it is refused, with the figures. Before it, `embedmill reindex --to-model models:/NAME@challenger
    --activate` builds a version of the index with it; reindex asks no gate, `--check` does.
    """

    def command() -> int:
        from jobs.cli.render_models import promoted
        from jobs.commands.promote import promote as move
        from jobs.config import default_config_file, load_config

        if back and (version or check):
            raise ConfigError("--back: leave --version and --check out")
        loaded = load_config(config or default_config_file())
        body = move(loaded, name, alias=to, version=version, back=back, check=check)
        show(body, json, promoted)
        return 4 if body.reasons else 0

    guarded(command, json)
