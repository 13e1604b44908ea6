"""Cuts the plan's rows into shards for the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from embedding.records import CHUNK
from jobs.plan.plan import FEW_ROWS, FEW_TEAMS, READY
from jobs.state.frames import columns
from jobs.state.row_counts import rows_in

if TYPE_CHECKING:
    from pathlib import Path

    from jobs.state.frames import Frame, Frames
    from jobs.state.run_target import RunTarget

PLANNED = pa.schema([*(field.with_nullable(True) for field in CHUNK), ("held", pa.bool_())])


def prepare(frames: Frames, target: RunTarget, *, shard_rows: int, ready: bool) -> int:
    """Join planned rows with their vectors into files of about ``shard_rows``; returns how many rows have none.

    All rows, or only those that the plan found ``ready``. A row without a vector is one whose text could not be
    encoded: it is in quarantine and is not published.
    """
    work = target.work
    planned = work / "rows" / f"shard={READY}" if ready else work / "rows"
    if not planned.exists():
        return 0
    joined = frames.sql(
        f"""
        WITH wanted AS (SELECT DISTINCT team_id, content_hash FROM {{rows}}),
        stored AS (SELECT v.team_id, v.content_hash, first(v.vector) AS vector FROM {{vectors}} v
            SEMI JOIN wanted w ON v.team_id = w.team_id AND v.content_hash = w.content_hash
            GROUP BY v.team_id, v.content_hash)
        SELECT {columns(PLANNED.names, "r")}, s.vector
        FROM {{rows}} r JOIN stored s ON r.team_id = s.team_id AND r.content_hash = s.content_hash
        """,  # two killed runs may both have stored a vector; they are equal
        rows=frames.files(PLANNED, planned),
        vectors=_vectors(frames, target, planned),
    )
    frames.write(joined, work / "publish", most=shard_rows)
    return rows_in(planned) - rows_in(work / "publish")


def _vectors(frames: Frames, target: RunTarget, planned: Path) -> Frame:
    """The stored vectors, of planned rows all; those of others are left out where the planned ones are few."""
    rows = ds.dataset(str(planned), format="parquet").to_table(["team_id", "content_hash"])
    teams, texts = (pc.unique(rows[name]) for name in ("team_id", "content_hash"))
    return frames.table(
        target.state,
        "vectors",
        {"space_id": target.space_id},
        teams=teams.to_pylist() if len(teams) <= FEW_TEAMS else (),
        wanted={"content_hash": texts.to_pylist()} if len(texts) <= FEW_ROWS else None,
    )
