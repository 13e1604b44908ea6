"""What is read of a table where it is about few rows: the files of their teams, the row groups of their keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    from jobs.state.frames import Frame, Frames
    from jobs.state.run_target import RunTarget
    from jobs.state.table_files import Wanted

_FEW_TEAMS = 1_000  # whose files are picked out by name
_FEW_ROWS = 20_000  # whose row groups are picked out by their keys


@dataclass(frozen=True, slots=True)
class Among:
    """For ``Frames.table``: the teams of rows, and the values of one of their columns; none where they may be any."""

    teams: Sequence[str] = ()
    wanted: Wanted | None = None

    @staticmethod
    def rows(rows: pa.Table, column: str) -> Among:
        """Those of some rows (at least team_id and ``column``), each as far as they are few."""
        teams, values = pc.unique(rows["team_id"]), pc.unique(rows[column].drop_null())
        return Among(
            teams.to_pylist() if len(teams) <= _FEW_TEAMS else (),
            {column: values.to_pylist()} if len(values) <= _FEW_ROWS else None,
        )


def stored_vectors(frames: Frames, target: RunTarget, texts: Among) -> Frame:
    """The vectors of the target's space: those of ``texts`` (by content_hash) all, and some others."""
    return frames.table(target.state, "vectors", {"space_id": target.space_id}, teams=texts.teams, wanted=texts.wanted)
