"""What a run writes: an index version of one embedding space, planned and recorded in a state."""

from __future__ import annotations

from dataclasses import dataclass

from embedding.text.template import BARE, Template
from jobs.state.storage import StatePath
from jobs.state.store import State


@dataclass(frozen=True, slots=True)
class RunTarget:
    """The index ``version`` ("messages__v1") that a run plans, publishes or compares; its rows carry all three ids.

    ``lexical`` makes what BM25 reads of a row. ``rename_tokens`` bounds what is encoded for a new name alone.
    """

    state: State
    version: str
    space_id: str
    run_id: str
    lexical: Template = BARE
    rename_tokens: int | None = None

    @property
    def work(self) -> StatePath:
        """The run's work folder."""
        return self.state.work(self.run_id)
