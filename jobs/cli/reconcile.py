"""The commands that make an index equal to its sources: plan, run, step, verify."""

# ruff: noqa: PLR0913  (typer makes each parameter of a command an option)

from __future__ import annotations

import enum
import re
from typing import Annotated

import typer

from embedding.errors import ConfigError
from jobs.cli.frame import guarded, opened_pipeline, show
from jobs.cli.options import (
    ChannelOption,
    ConfigOption,
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
    scope_of,
)


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
        return 3 if body.documents.quarantined else 0

    guarded(command, json)


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
            body = go(pipeline, scope, allow_mass_delete=allow_mass_delete, budget=budget, wait=wait).body()
        show(body, json, render.run)
        return 3 if body.status == "partial" else 0

    guarded(command, json)


class Step(enum.StrEnum):
    """One step of a run."""

    extract = "extract"
    plan = "plan"
    embed = "embed"
    publish = "publish"


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
        from jobs.commands.step import StepRequest
        from jobs.commands.step import step as go
        from jobs.known_names import looked_for
        from jobs.plan.plan import Budget

        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}", run_id):
            raise ConfigError("--run-id: use 1 to 200 letters, digits, '.', '_' or '-', a letter or digit first")
        if to_model is not None and not build:
            raise ConfigError("--to-model: only a version that is being built can have another model; give --build")
        asked = scope_of(team, channel, since, until, kind)
        budget = Budget(max_tokens, max_usd)
        request = StepRequest(name.value, run_id, build, allow_mass_delete, budget, wait)
        with opened_pipeline(config, to_model, index) as pipeline, looked_for(pipeline, asked) as scope:
            body = go(pipeline, scope, request)
        show(body, json, render.step)
        return 3 if body.documents.quarantined else 0

    guarded(command, json)


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
        return 4 if body.status == "differs" else 0

    guarded(command, json)
