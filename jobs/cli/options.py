"""The options that several commands share, and the scope that they make."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from embedding.errors import ConfigError
from jobs.config_sections import SearchMode
from jobs.scope import Scope, parse_moment


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
DenseOption = Annotated[bool, typer.Option("--dense", help="Rank by vectors alone; else search.mode decides.")]
LexicalOption = Annotated[bool, typer.Option("--lexical", help="Rank by words alone (BM25).")]
HybridOption = Annotated[
    bool, typer.Option("--hybrid", help="Rank by vectors, words and conversations, their scores fused.")
]
FromOption = Annotated[
    list[str] | None, typer.Option("--from", metavar="AUTHOR", help="Only by this author, by id or name; repeatable.")
]
InOption = Annotated[list[str] | None, typer.Option("--in", metavar="C", help="The same as --channel; repeatable.")]
ThreadOption = Annotated[
    str | None, typer.Option("--thread", metavar="DOC_ID", help="Only replies of the thread that this document began.")
]
PublicOption = Annotated[
    bool, typer.Option("--public", help="What is public, and what is in the channels that are named beside it.")
]
MentionsOption = Annotated[
    list[str] | None,
    typer.Option("--mentions", metavar="USER", help="Only what names this user, by id or name; repeatable."),
]
HasFileOption = Annotated[bool, typer.Option("--has-file", help="Only messages that a file came with.")]
LanguageOption = Annotated[
    list[str] | None,
    typer.Option("--language", metavar="CODE", help="Only texts in this language (ISO 639-1, as in de); repeatable."),
]
NoRerankOption = Annotated[bool, typer.Option("--no-rerank", help="Leave out what search.rerank names.")]
WaitOption = Annotated[
    float, typer.Option("--wait", metavar="SECONDS", min=0, help="How long to wait for another run to end.")
]
MassDeleteOption = Annotated[
    bool, typer.Option("--allow-mass-delete", help="Delete past limits.max_delete_*; look at the plan first.")
]


def readable(text: str, option: str) -> str:
    """An argument as it is. Raises ConfigError for bytes that are no UTF-8, which Python takes for half characters."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ConfigError(f"{option}: what was given is not UTF-8") from None
    return text


def said(text: str, option: str) -> str:
    """An argument as it is. Raises ConfigError for one that says nothing: an unset variable would widen a scope."""
    if not text.strip():
        raise ConfigError(f"{option}: is empty; leave the option out, or give it a value")
    return text


def mode_of(dense: bool, lexical: bool, hybrid: bool) -> SearchMode | None:
    """The mode that the options choose, None for none of them. Raises ConfigError for more than one."""
    chosen: list[SearchMode] = []
    chosen += ["dense"] * dense
    chosen += ["lexical"] * lexical
    chosen += ["hybrid"] * hybrid
    if len(chosen) > 1:
        raise ConfigError(f"--{chosen[0]} and --{chosen[1]}: give one of them")
    return chosen[0] if chosen else None


def scope_of(
    team: list[str] | None, channel: list[str] | None, since: str | None, until: str | None, kind: Kind | None
) -> Scope:
    """What the options of a scope say.

    Raises ConfigError for a date that is none, dates between which nothing lies, and a text that is no UTF-8.
    """
    scope = Scope(
        teams=tuple(readable(t, "--team") for t in team or ()),
        channels=tuple(readable(c, "--channel") for c in channel or ()),
        since=None if since is None else parse_moment(since, "--since"),
        until=None if until is None else parse_moment(until, "--until"),
        kind=kind.value if kind else None,
    )
    if scope.since is not None and scope.until is not None and scope.since >= scope.until:
        raise ConfigError("--until: nothing lies between --since and this; give a later date, it is not included")
    return scope
