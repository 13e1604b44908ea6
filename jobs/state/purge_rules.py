"""Purge rules: which documents later runs must keep out of every index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedding.records import Document, Removed

if TYPE_CHECKING:
    from jobs.state.store import State


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


def purge_rules(state: State) -> list[PurgeRule]:
    """Read the rules of all purges so far."""
    return [
        PurgeRule(r["team_id"], r["channel_id"], frozenset(r["ids"] or ()), r["before"], r["purged_at"])
        for r in state.read("purges").to_pylist()
    ]
