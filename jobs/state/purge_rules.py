"""Purge rules: which documents later runs must keep out of every index."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
    return [rule_of(row) for row in state.read("purges").to_pylist()]


def rule_of(row: Mapping[str, Any]) -> PurgeRule:
    """The rule that a row of ``purges`` keeps."""
    return PurgeRule(row["team_id"], row["channel_id"], frozenset(row["ids"] or ()), row["before"], row["purged_at"])
