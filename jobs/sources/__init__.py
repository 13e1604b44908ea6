"""Where documents come from: one file for each kind of source, and this dict that opens them."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.config import Config
from jobs.config_sections import FilesSource, SlackExportSource, SourceConfig, TableSource
from jobs.sources.base import ReadLimits, Source, source_key


def qualifiers(entries: Sequence[SourceConfig]) -> list[str]:
    """What the ids of each source's documents carry beside the path or the row's id; "" for none.

    Two folders of a team may hold the same relative path, two tables the same ids. The first of them has plain ids,
    each that follows carries its own name in them. Messages have ids of Slack's own: two exports of one workspace hold
    the same messages.
    """
    found: list[str] = []
    for number, entry in enumerate(entries):
        shares = any(
            other.kind == entry.kind != "slack_export" and _may_share_team(other.team_id, entry.team_id)
            for other in entries[:number]
        )
        found.append((entry.id or identity(entry)) if shares else "")
    return found


def identity(entry: SourceConfig) -> str:
    """The ``source_id`` of a configured source."""
    return source_key(entry.kind, entry.team_id, entry.uri, entry.id)


def _may_share_team(one: str | None, other: str | None) -> bool:
    return one is None or other is None or one == other  # None: each row says its own


def open_sources(config: Config) -> list[Source]:
    """Open every configured source, in the order of the configuration."""
    sources: list[Source] = []
    bounds = config.limits
    limits = ReadLimits(bounds.parse_seconds, bounds.parse_memory_mb, bounds.parse_text_chars)
    for entry, qualifier in zip(config.sources, qualifiers(config.sources), strict=True):
        root, source_id = config.path(entry.uri), identity(entry)
        match entry:
            case SlackExportSource():
                from jobs.sources import slack_export

                sources.append(
                    slack_export.SlackExport(root, source_id=source_id, team_id=entry.team_id, limits=limits)
                )
            case FilesSource():
                from jobs.sources import files

                sources.append(
                    files.FilesSource(
                        root,
                        source_id=source_id,
                        team_id=entry.team_id,
                        channel_id=entry.channel_id,
                        max_bytes=entry.max_bytes,
                        limits=limits,
                        qualifier=qualifier,
                    )
                )
            case TableSource():
                from jobs.sources import table

                sources.append(
                    table.TableSource(
                        root,
                        source_id=source_id,
                        format=entry.format,
                        columns=entry.columns,
                        team_id=entry.team_id,
                        qualifier=qualifier,
                    )
                )
    return sources
