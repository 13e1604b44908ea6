"""Cuts the plan's rows into shards for the index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from embedding.records import CHUNK
from jobs.plan.plan import READY
from jobs.state.among import Among, stored_vectors
from jobs.state.frames import columns
from jobs.state.staging import staged

if TYPE_CHECKING:
    from jobs.state.frames import Frames
    from jobs.state.run_target import RunTarget

PLANNED = pa.schema([*(field.with_nullable(True) for field in CHUNK), ("held", pa.bool_())])


def prepare(frames: Frames, target: RunTarget, *, shard_rows: int, ready: bool) -> int:
    """Join planned rows with their vectors into files of about ``shard_rows``; returns how many rows have none.

    All rows, or only those that the plan found ``ready``. A row without a vector is one whose text could not be
    encoded: it is in quarantine and is not published.
    """
    work = target.work
    planned = staged(work / "rows")
    if ready:
        planned = planned.within(f"shard={READY}")
    if not planned.files:
        return 0
    texts = planned.table(["team_id", "content_hash"])
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
        vectors=stored_vectors(frames, target, Among.rows(texts, "content_hash")),
    )
    return planned.rows - frames.write(joined, work / "publish", most=shard_rows)
