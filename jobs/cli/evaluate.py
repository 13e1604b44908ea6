"""The command that measures how well a version answers the questions of a golden set."""

# ruff: noqa: PLR0913  (typer makes each parameter of a command an option)

from __future__ import annotations

import enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedding.errors import ConfigError
from jobs.cli.frame import guarded, opened_pipeline, show
from jobs.cli.options import ConfigOption, JsonOption, NoRerankOption, readable

if TYPE_CHECKING:
    from jobs.relevance.golden import GoldenSet


class Mode(enum.StrEnum):
    """What a search ranks by."""

    dense = "dense"
    lexical = "lexical"
    hybrid = "hybrid"


def evaluate(
    golden: Annotated[
        Path,
        typer.Argument(metavar="GOLDEN", help="JSONL of query, team and relevant; a log of clicks; or a BEIR folder."),
    ],
    config: ConfigOption = None,
    json: JsonOption = False,
    index: Annotated[
        str | None, typer.Option("--index", metavar="VERSION", help="Ask this version; else the live one.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="VERSION|FILE",
            help="Compare with this version, or with the file of an earlier --json.",
        ),
    ] = None,
    k: Annotated[int, typer.Option("--k", min=1, max=1000, help="Also recall among the first k documents.")] = 10,
    mode: Annotated[
        Mode | None, typer.Option("--mode", help="Measure this mode alone; else all, search.mode foremost.")
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write a report to this file.")] = None,
    text: Annotated[
        bool, typer.Option("--text", help="Show the words of the questions too; else only their ids and scores.")
    ] = False,
    no_rerank: NoRerankOption = False,
    team: Annotated[
        str | None, typer.Option("--team", metavar="T", help="The team of a BEIR folder's documents; required for one.")
    ] = None,
    doc_id: Annotated[
        str | None,
        typer.Option("--doc-id", metavar="TEMPLATE", help="The id of a BEIR document in the index: {team}/t/{id}."),
    ] = None,
) -> None:
    """Measure how well a version answers: nDCG@10, recall and MRR of a golden set, and a verdict against another."""

    def command() -> int:
        from jobs.cli.render_evaluation import evaluation
        from jobs.commands.evaluate import Asked
        from jobs.commands.evaluate import evaluate as ask
        from jobs.relevance.html import write_report

        questions = _read(golden, team, doc_id)
        asked = Asked(index, against, k, mode.value if mode else None, not no_rerank, text)
        with opened_pipeline(config) as pipeline:
            body = ask(pipeline, questions, asked)
        if html is not None:
            write_report(body, html)
        show(body, json, evaluation)
        return 0

    guarded(command, json)


def _read(path: Path, team: str | None, doc_id: str | None) -> GoldenSet:
    from jobs.relevance.beir import DOC_ID, read_beir
    from jobs.relevance.golden import read_golden

    if path.is_dir():
        if team is None:
            raise ConfigError("--team: is missing; a BEIR folder does not name the team of its documents")
        return read_beir(path, team=readable(team, "--team"), doc_id=doc_id or DOC_ID)
    for option, given in (("--team", team), ("--doc-id", doc_id)):
        if given is not None:
            raise ConfigError(f"{option}: is for a BEIR folder; the lines of {path.name} say it themselves")
    return read_golden(path)
