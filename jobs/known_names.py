"""Checks that a team or a channel of an option is known. A misspelt name would otherwise match nothing and succeed.

Teams are those of sources, texts and ledger, channels those of listings, texts and ledger. Of a table whose rows say
them only reading it tells.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from embedding.errors import ConfigError
from embedding.text.language import language_code
from jobs.scope import Scope
from jobs.sources import open_sources
from jobs.state.table_files import Filter
from jobs.state.team_rows import read_teams

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline
    from jobs.sources.base import Source
    from jobs.state.store import State

_SHOWN = 20  # names in an error
_HELD_IN = ("chunks", "published")


@contextmanager
def looked_for(pipeline: Pipeline, scope: Scope) -> Iterator[Scope]:
    """Around a command that reads the sources: refuse a scope that is nowhere, before or, where need be, after it."""
    decided = check_scope(pipeline, scope, was_read=False)
    yield scope
    if not decided:
        check_scope(pipeline, scope, was_read=True)


def check_scope(pipeline: Pipeline, scope: Scope, *, was_read: bool) -> bool:
    """Raise ConfigError for a team or channel of the scope that is nowhere, naming some of those that there are.

    Before the sources ``was_read`` a name that only reading could tell of passes. Returns whether none did.
    """
    teams = known_teams(pipeline) if scope.teams else set()
    decided = was_read or all(source.team_id is not None for source in pipeline.config.sources)
    if decided:
        _refuse("--team", "team", scope.teams, teams)
    decided = decided or teams.issuperset(scope.teams)
    held = _held_channels(pipeline.state, scope.teams) if scope.channels else set()
    if held.issuperset(scope.channels):
        return decided
    listed, all_said = _listed_channels(
        s for s in open_sources(pipeline.config) if not scope.teams or s.team_id is None or s.team_id in scope.teams
    )
    if was_read or all_said:
        _refuse("--channel", "channel", scope.channels, held | listed)
    return was_read or (decided and all_said)


def author_ids(pipeline: Pipeline, team: str, given: Collection[str]) -> tuple[str, ...]:
    """Ids of a team's authors that are named by id or by display name, whatever their case.

    Raises ConfigError for one that wrote nothing that is known here.
    """
    if not given:
        return ()
    rows = read_teams(pipeline.state, "chunks", [team], ["author_id", "author"])
    different = rows.group_by(["author_id", "author"]).aggregate([])
    pairs = set(zip(different["author_id"].to_pylist(), different["author"].to_pylist(), strict=True))
    found: set[str] = set()
    for name in given:
        ids = {one for one, shown in pairs if one and (one == name or (shown or "").casefold() == name.casefold())}
        if not ids:
            known = ", ".join(sorted({shown for one, shown in pairs if one and shown})[:_SHOWN]) or "none"
            raise ConfigError(f"--from: no author {name!r} in team {team}; there are {known}")
        found |= ids
    return tuple(sorted(found))


def mentioned_ids(pipeline: Pipeline, team: str, given: Collection[str]) -> tuple[str, ...]:
    """Ids of people whom a team's texts name, given by id, or by the display name of one who wrote something.

    Raises ConfigError for one whom no text names.
    """
    if not given:
        return ()
    rows = read_teams(pipeline.state, "chunks", [team], ["author_id", "author", "mentions"])
    known = set(pc.unique(pc.list_flatten(rows["mentions"])).to_pylist())
    authors = rows.select(["author_id", "author"]).group_by(["author_id", "author"]).aggregate([])
    shown = dict(zip(authors["author_id"].to_pylist(), authors["author"].to_pylist(), strict=True))
    found: set[str] = set()
    for name in given:
        ids = {one for one in known if one == name or (shown.get(one) or "").casefold() == name.casefold()}
        if not ids:
            names = ", ".join(sorted({shown.get(one) or one for one in known})[:_SHOWN]) or "nobody"
            raise ConfigError(f"--mentions: no text of team {team} names {name!r}; texts name {names}")
        found |= ids
    return tuple(sorted(found))


def language_codes(given: Collection[str]) -> tuple[str, ...]:
    """ISO 639-1 codes of languages that are given as tags ("de", "pt-BR"). Raises ConfigError for what is none."""
    codes = {tag: language_code(tag) for tag in given}
    for tag, code in codes.items():
        if not code:
            raise ConfigError(f"--language: {tag!r} is no ISO 639-1 code; give one of two letters, as de or en")
    return tuple(sorted({*codes.values()}))


def check_search(pipeline: Pipeline, team: str, channels: Collection[str], languages: Collection[str] = ()) -> None:
    """Raise ConfigError where a search found nothing because there is no such team, channel or language.

    Who searches one team is told nothing of others.
    """
    if team not in known_teams(pipeline):
        raise ConfigError(f"--team: there is no team {team!r} in this index")
    if channels and not _held_channels(pipeline.state, [team]).issuperset(channels):
        raise ConfigError(f"--channel: team {team!r} has no such channel in this index")
    if languages:
        held = {code for (code,) in pipeline.state.distinct("chunks", ["language"], [("team_id", "=", team)]) if code}
        if held.isdisjoint(languages):
            known = ", ".join(sorted(held)) or "none that is sure"
            raise ConfigError(f"--language: team {team!r} has no text in {', '.join(languages)}; there are {known}")


def known_teams(pipeline: Pipeline) -> set[str]:
    """Teams of the configuration, and those that texts and ledger have rows of."""
    configured = {source.team_id for source in pipeline.config.sources if source.team_id is not None}
    return configured | {
        team for name in _HELD_IN for (team,) in pipeline.state.every_cut().distinct(name, ["team_id"])
    }


def _held_channels(state: State, teams: Collection[str]) -> set[str]:
    of: list[Filter] = [("team_id", "in", sorted(teams))] if teams else []
    return {channel for name in _HELD_IN for (channel,) in state.distinct(name, ["channel_id"], of) if channel}


def _listed_channels(sources: Iterable[Source]) -> tuple[set[str], bool]:
    """Channels that listings tell of, and whether those are all that reading could bring."""
    found, all_said = set(), True
    for source in sources:
        listing = source.listing()
        of = {partition.channel_id for partition in listing.partitions}
        all_said &= listing.complete and None not in of
        # Names are of users too. A channel without messages has no partition.
        found |= {channel for channel in of if channel} | {name for name in source.names if name[:1] in "CDG"}
    return found, all_said


def _refuse(option: str, what: str, named: Collection[str], known: Collection[str]) -> None:
    for name in named:
        if name not in known:
            shown = ", ".join(sorted(known)[:_SHOWN]) + ", …" * (len(known) > _SHOWN)
            raise ConfigError(
                f"{option}: there is no {what} {name!r} in any source, text or row; known: {shown or '-'}"
            )
