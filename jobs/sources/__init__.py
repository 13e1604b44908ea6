"""Where documents come from: one file for each kind of source, and this dict that opens them."""

from __future__ import annotations

from jobs.config import Config, FilesSource, SlackExportSource, TableSource
from jobs.sources.base import ReadLimits, Source


def open_sources(config: Config) -> list[Source]:
    """Open every configured source, in the order of the configuration."""
    sources: list[Source] = []
    bounds = config.limits
    limits = ReadLimits(bounds.parse_seconds, bounds.parse_memory_mb, bounds.parse_text_chars)
    for entry in config.sources:
        root = config.path(entry.uri)
        match entry:
            case SlackExportSource():
                from jobs.sources import slack

                sources.append(slack.SlackExport(root, uri=entry.uri, team_id=entry.team_id, limits=limits))
            case FilesSource():
                from jobs.sources import files

                sources.append(
                    files.FilesSource(
                        root, uri=entry.uri, team_id=entry.team_id, channel_id=entry.channel_id,
                        max_bytes=entry.max_bytes, limits=limits,
                    )
                )  # fmt: skip
            case TableSource():
                from jobs.sources import table

                sources.append(
                    table.TableSource(
                        root, uri=entry.uri, format=entry.format, columns=entry.columns, team_id=entry.team_id
                    )
                )
    return sources
