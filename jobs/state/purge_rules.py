"""Purge rules: which documents later runs must keep out of every index."""

from __future__ import annotations

from dataclasses import dataclass

from embedding.records import Document, Removed


@dataclass(frozen=True, slots=True)
class PurgeRule:
    """Documents that were purged and stay away: those of a version up to ``purged_at``."""

    team_id: str
    channel_id: str
    ids: frozenset[str]
    before: int | None
    purged_at: int

    def covers(self, document: Document | Removed) -> bool:
        """Whether this document must not come back; what was said of its end need not be kept either."""
        return (
            document.team_id == self.team_id
            and document.version <= self.purged_at
            and (not self.channel_id or document.channel_id == self.channel_id)
            and (not self.ids or document.doc_id in self.ids)
            and (self.before is None or document.created_at < self.before)
        )
