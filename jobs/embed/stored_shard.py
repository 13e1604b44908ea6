"""What comes back of a shard of texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from embedding.encoders.remote.cost import Cost
from jobs.state.parts import Part


@dataclass(frozen=True, slots=True)
class StoredShard:
    """A shard whose vectors are committed.

    ``texts`` were encoded, ``tokens`` are theirs; ``unreadable`` are texts that the model's tokenizer knows next to
    nothing of. ``failed`` are the texts left out, with their reason, by (team_id, content_hash). ``cost`` is what a
    managed model was asked for; None where the model is our own. ``timing`` is when and where it was encoded.
    """

    name: str
    parts: tuple[Part, ...]
    texts: int
    tokens: int
    unreadable: int
    failed: Mapping[tuple[str, str], str]
    cost: Cost | None
    timing: Mapping[str, Any]

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> StoredShard:
        """From a row of ``write_shard``."""
        return cls(
            row["shard"],
            tuple(Part.from_json(line) for line in row["parts"].splitlines()),
            int(row["texts"]),
            int(row["tokens"]),
            int(row["unreadable"]),
            {(team, content): reason for team, content, reason in json.loads(row["failed"])},
            Cost.of_json(json.loads(row["cost"])) if row["cost"] else None,
            json.loads(row["timing"]),
        )
