"""Where documents come from: one file for each kind of source, and the dict that opens them by kind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, get_args

from embedding.buckets import SCHEME
from embedding.extensions import load_extensions
from jobs import config_sources
from jobs.config import Config
from jobs.config_sources import SOURCE_SECTIONS, SourceSection
from jobs.sources.base import ReadLimits, Root, Source, SourceContext, source_key

# Opens a source from its section of the configuration; the section is of the class that its kind is registered with.
Opener = Callable[[Any, SourceContext], Source]


def _slack_export(section: config_sources.SlackExportSource, context: SourceContext) -> Source:
    from jobs.sources.slack_export import SlackExport

    return SlackExport(context.root, source_id=context.source_id, team_id=section.team_id, limits=context.limits)


def _files(section: config_sources.FilesSource, context: SourceContext) -> Source:
    from jobs.sources.files import FilesSource

    return FilesSource(
        context,
        team_id=section.team_id,
        channel_id=section.channel_id,
        visibility=section.visibility,
        max_bytes=section.max_bytes,
    )


def _table(section: config_sources.TableSource, context: SourceContext) -> Source:
    from jobs.sources.table import TableSource

    return TableSource(
        context.root,
        source_id=context.source_id,
        format=section.format,
        columns=section.columns,
        team_id=section.team_id,
        qualifier=context.qualifier,
    )


SOURCES: dict[str, Opener] = {"slack_export": _slack_export, "files": _files, "table": _table}


def add_source(section: type[SourceSection], opener: Opener) -> None:
    """Register a kind of source: the section it is configured by, whose ``kind`` has its name, and what opens it.

    Raises ValueError where the section's ``kind`` is no Literal of one name.
    """
    names = get_args(section.model_fields["kind"].annotation)
    if len(names) != 1:
        raise ValueError(f'{section.__name__}.kind must be Literal["its name"]')
    SOURCE_SECTIONS[names[0]], SOURCES[names[0]] = section, opener


def qualifiers(entries: Sequence[SourceSection]) -> list[str]:
    """What the ids of each source's documents carry beside the path or the row's id; "" for none.

    Two folders of a team may hold the same relative path, two tables the same ids. The first of them has plain ids,
    each that follows carries its own name in them. Messages have ids of Slack's own: two exports of one workspace hold
    the same messages.
    """
    found: list[str] = []
    for number, entry in enumerate(entries):
        shares = any(
            other.kind == entry.kind and not entry.global_ids and _may_share_team(other.team_id, entry.team_id)
            for other in entries[:number]
        )
        found.append((entry.id or identity(entry)) if shares else "")
    return found


def identity(entry: SourceSection) -> str:
    """The ``source_id`` of a configured source."""
    return source_key(entry.kind, entry.team_id, entry.uri, entry.id)


def _may_share_team(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other  # None: each row says its own


def root_of(entry: SourceSection, config: Config) -> Root:
    """Where a configured source is."""
    if not (isinstance(entry, config_sources.StoredSource) and entry.uri.startswith(SCHEME)):
        return config.path(entry.uri)
    return entry.storage.prefix(entry.uri)


def open_sources(config: Config) -> list[Source]:
    """Open every configured source, in the order of the configuration."""
    load_extensions()
    bounds = config.limits
    limits = ReadLimits(bounds.parse_seconds, bounds.parse_memory_mb, bounds.parse_text_chars)
    return [
        SOURCES[entry.kind](entry, SourceContext(root_of(entry, config), identity(entry), qualifier, limits))
        for entry, qualifier in zip(config.sources, qualifiers(config.sources), strict=True)
    ]
