"""Compares the rows that workers were asked for with the rows that came back, and raises where they differ.

Where a machine does not see the state (another disk under the same path, a folder that is not mounted), Spark and Ray
end well and nothing is there. So every hand-over compares two counts, one of each side.
"""

from __future__ import annotations

from embedding.errors import EmbedmillError


def expect(step: str, what: str, asked: int, answered: int) -> None:
    """Raise EmbedmillError where the two counts of a hand-over differ."""
    if asked != answered:
        raise EmbedmillError(
            f"{step}: {asked:,} {what} were asked for and {answered:,} came back; nothing can be concluded from that. "
            "Every driver and worker must see the same state.uri and sources; run again, and report this if it stays"
        )
