"""The scope of a run: which documents it looks at. The same filter serves partitions, tables and reports."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedding.errors import ConfigError

if TYPE_CHECKING:
    from jobs.bodies.base import ScopeBody
    from jobs.sources.base import Partition, Source


@dataclass(frozen=True, slots=True)
class Scope:
    """Teams and channels (empty: all), creation time in ``[since, until)`` (µs, None: open), one kind or both."""

    teams: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    since: int | None = None
    until: int | None = None
    kind: str | None = None

    def may_hold(self, source: Source, partition: Partition) -> bool:
        """Whether the partition can hold a document of the scope."""
        return (
            (self.kind is None or source.kind == self.kind)
            and (not self.teams or source.team_id is None or source.team_id in self.teams)
            and (not self.channels or partition.channel_id is None or partition.channel_id in self.channels)
            and (self.since is None or partition.past is None or partition.past > self.since)
            and (self.until is None or partition.first is None or partition.first < self.until)
        )

    def covers(self, team_id: str, channel_id: str, kind: str, created_at: int | None) -> bool:
        """Whether a record lies in the scope; what is not known about it counts as inside."""
        return (
            (not self.teams or not team_id or team_id in self.teams)
            and (not self.channels or not channel_id or channel_id in self.channels)
            and (self.kind is None or kind == self.kind)
            and (self.since is None or created_at is None or created_at >= self.since)
            and (self.until is None or created_at is None or created_at < self.until)
        )

    @property
    def covers_all(self) -> bool:
        """Whether it leaves nothing out."""
        return self == Scope()

    def body(self) -> ScopeBody:
        """For the run report; empty for everything."""
        from jobs.bodies.base import ScopeBody

        return ScopeBody(
            team=self.teams or None,
            channel=self.channels or None,
            since=None if self.since is None else iso(self.since),
            until=None if self.until is None else iso(self.until),
            kind=self.kind or None,
        )


EVERYTHING = Scope()


def parse_moment(text: str, option: str) -> int:
    """A day or an ISO time, UTC, as microseconds. Raises ConfigError naming the option."""
    try:
        moment = dt.datetime.fromisoformat(text)
        moment = moment.astimezone(dt.UTC) if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
    except (ValueError, OverflowError):
        raise ConfigError(f"{option}: {text!r} is not a date; write 2025-03-01 or 2025-03-01T12:00:00") from None
    return int(moment.timestamp() * 1_000_000)


def iso(micros: int) -> str:
    """Microseconds as ISO 8601 in UTC."""
    return dt.datetime.fromtimestamp(micros / 1_000_000, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
