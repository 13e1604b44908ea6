"""Verify: prove, key by key, that the index holds exactly the desired chunks; sample their vectors and their sources.

Three parties are compared: what is desired (``chunks``), what we believe (``published``) and what the index says. What
all three agree on is compared with the sources themselves, some of which are read anew (``reread``). A repair writes
through ``publish`` and passes the guard against mass deletion, so it can do nothing that a run could not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from indexers.rows import SCAN
from jobs.plan.actions import in_scope
from jobs.plan.renames import keep_names
from jobs.scope import Scope
from jobs.state.frames import Frame, Frames
from jobs.state.quarantine import texts_left_out
from jobs.state.run_target import RunTarget
from jobs.state.staging import stage, staged
from jobs.state.storage import StatePath
from jobs.state.tables import CHUNK_KEY
from jobs.state.vector_column import unpack
from jobs.verify.source_check import Wrong

if TYPE_CHECKING:
    from indexers.base import Index

SAMPLE = 200
_KINDS = ("missing", "ghost", "stale", "unledgered", "pending", "undesired", "vector", "source")
_FOUND = pa.schema([*CHUNK_KEY, ("problem", pa.string())])


@dataclass(frozen=True, slots=True)
class Differences:
    """Rows that differ, by kind, and up to ten chunk ids of them.

    missing: the ledger has it, the index not. ghost: the index has it, neither ledger nor desired state does.
    stale: the index holds other content or metadata than desired. unledgered: the index is right, the ledger not.
    pending: desired, not published yet. undesired: published, no longer desired. vector: not the stored vector.
    source: tables and index agree, and the source does not show it so. ``sample`` are chunks whose vector was compared.
    """

    counts: dict[str, int]
    examples: list[str]
    checked: int
    sampled: int
    sample: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        """All differences."""
        return sum(self.counts.values())


def not_found(found: pa.Table, wrong: Sequence[Wrong]) -> list[Wrong]:
    """Those of ``wrong`` that no other check has found. ``found`` has at least team_id and chunk_id."""
    if not wrong:
        return []
    here = found.filter(pc.is_in(found["chunk_id"], pa.array([one.chunk_id for one in wrong], pa.string())))
    seen = set(zip(here["team_id"].to_pylist(), here["chunk_id"].to_pylist(), strict=True))
    return [one for one in wrong if (one.team_id, one.chunk_id) not in seen]


def with_sources(found: Differences, wrong: Sequence[Wrong]) -> Differences:
    """The differences with those that reading the sources anew has shown."""
    counts = found.counts | {"source": len(wrong)}
    return replace(found, counts=counts, examples=[*found.examples, *(one.chunk_id for one in wrong)][:10])


def compare(
    frames: Frames, target: RunTarget, index: Index, scope: Scope, *, sample: int = SAMPLE
) -> tuple[Differences, pa.Table]:
    """Compare index, ledger and desired state within a scope, and the vectors of ``sample`` rows.

    Returns the differences, and a table of them (team_id, chunk_id, problem) for ``plan_repair``. Stages what the index
    holds (SCAN) in ``scan`` of the run's work folder.
    """
    state, scan = target.state, target.work / "scan"
    _write_scan(index, target.version, scan)
    chunks, published = frames.table(state, "chunks"), frames.table(state, "published", {"index": target.version})
    desired, ledger = in_scope(frames, chunks, published, scope)
    if target.rename_tokens is not None:  # what still waits for a new name is as it should be
        desired = keep_names(frames, desired, ledger, 0)
    _, held = in_scope(frames, chunks, frames.files(SCAN, staged(scan)), scope)
    with frames.keep(frames.sql(_JOINED, desired=desired, ledger=ledger, held=held)) as joined:
        left_out = texts_left_out(state)  # known to be absent, and why: that is what quarantine says
        differ = frames.sql(_DIFFER, joined=joined, waiting=frames.local(CHUNK_KEY, left_out))
        found = frames.collect(differ).cast(_FOUND)
        counted = frames.collect(frames.sql("SELECT count(*) AS rows FROM {joined}", joined=joined))
    counts = {kind: 0 for kind in _KINDS}
    counts |= {kind["values"]: kind["counts"] for kind in pc.value_counts(found["problem"]).to_pylist()}
    examples = sorted(found["chunk_id"].to_pylist())[:10]
    wrong, sample_ids = _sample_vectors(frames, target, index, held, sample)
    if wrong:
        counts["vector"] = len(wrong)
        examples += [chunk for _, chunk in wrong[:10]]
        extra = [{"team_id": team, "chunk_id": chunk, "problem": "vector"} for team, chunk in wrong]
        found = pa.concat_tables([found, pa.Table.from_pylist(extra, schema=_FOUND)])
    checked = int(counted["rows"][0].as_py())
    return Differences(counts, examples[:10], checked, len(sample_ids), tuple(sample_ids)), found


_HASHES = "SELECT team_id, chunk_id, concat_ws(':', content_hash, meta_hash) AS hashes FROM "
_JOINED = f"""
WITH d AS ({_HASHES} {{desired}}), l AS ({_HASHES} {{ledger}}), i AS ({_HASHES} {{held}}),
pair AS (SELECT coalesce(d.team_id, l.team_id) AS team_id, coalesce(d.chunk_id, l.chunk_id) AS chunk_id,
    d.hashes AS desired, l.hashes AS ledgered
    FROM d FULL OUTER JOIN l ON d.team_id = l.team_id AND d.chunk_id = l.chunk_id)
SELECT coalesce(b.team_id, i.team_id) AS team_id, coalesce(b.chunk_id, i.chunk_id) AS chunk_id,
    b.desired, b.ledgered, i.hashes AS indexed
FROM pair b FULL OUTER JOIN i ON b.team_id = i.team_id AND b.chunk_id = i.chunk_id
"""
_DIFFER = """
WITH named AS (
    SELECT team_id, chunk_id, CASE
        WHEN desired IS NULL AND ledgered IS NULL THEN 'ghost'
        WHEN desired IS NULL THEN 'undesired'
        WHEN indexed IS NULL AND ledgered IS NOT NULL THEN 'missing'
        WHEN indexed IS NULL THEN 'pending'
        WHEN indexed <> desired THEN CASE WHEN ledgered = indexed THEN 'pending' ELSE 'stale' END
        WHEN ledgered IS NULL OR ledgered <> desired THEN 'unledgered' END AS problem
    FROM {joined})
SELECT n.team_id, n.chunk_id, n.problem FROM named n
LEFT JOIN {waiting} w ON n.team_id = w.team_id AND n.chunk_id = w.chunk_id AND n.problem = 'pending'
WHERE n.problem IS NOT NULL AND w.chunk_id IS NULL
"""


def plan_repair(
    frames: Frames, target: RunTarget, found: pa.Table, gone: Sequence[Wrong], *, deletes: bool = True
) -> tuple[int, int]:
    """Write the work that ``publish`` needs to repair ``found`` (team_id, chunk_id, problem).

    Returns rows to write and rows to delete. What is pending is a run's business and stays; without ``deletes`` so do
    the surplus rows of the index. ``gone`` are rows that their source does not show.
    """
    problem, work = found["problem"], target.work

    def of(*kinds: str) -> pa.Table:
        return found.filter(pc.is_in(problem, pa.array(kinds))).select(CHUNK_KEY.names)

    rows = frames.sql(
        "SELECT c.*, TRUE AS held FROM {chunks} c SEMI JOIN {wanted} w "
        "ON c.team_id = w.team_id AND c.chunk_id = w.chunk_id",
        chunks=frames.table(target.state, "chunks"),
        wanted=frames.local(CHUNK_KEY, of("missing", "stale", "unledgered", "vector")),
    )
    surplus = [of("ghost", "undesired")] if deletes else []
    if deletes:
        unshown = [{"team_id": one.team_id, "chunk_id": one.chunk_id} for one in gone]
        surplus.append(pa.Table.from_pylist(unshown, schema=CHUNK_KEY))
    keys = pa.concat_tables(surplus) if surplus else CHUNK_KEY.empty_table()
    doomed = keys.group_by(CHUNK_KEY.names).aggregate([])
    return frames.write(rows, work / "rows"), frames.write(frames.local(CHUNK_KEY, doomed), work / "deletes")


def _write_scan(index: Index, version: str, folder: StatePath) -> None:
    found = (batch.cast(SCAN) if batch.schema != SCAN else batch for batch in index.scan(version))
    stage(found, folder, SCAN)


def _sample_vectors(
    frames: Frames, target: RunTarget, index: Index, held: Frame, size: int
) -> tuple[list[tuple[str, str]], list[str]]:
    """Of ``size`` rows of the index those whose vector is not the one in the store of record, and which had one."""
    sample = frames.sql(
        f"""
        WITH sample AS (SELECT team_id, chunk_id, content_hash FROM {{held}}
            ORDER BY xxhash64(concat_ws(':', chunk_id, content_hash)), chunk_id LIMIT {size:d})
        SELECT s.team_id, s.chunk_id, first(v.vector) AS vector FROM sample s
        JOIN {{vectors}} v ON s.team_id = v.team_id AND s.content_hash = v.content_hash GROUP BY s.team_id, s.chunk_id
        """,
        held=held,
        vectors=frames.table(target.state, "vectors", {"space_id": target.space_id}),
    )
    rows = frames.collect(sample)
    wrong = []
    error = max(1e-5, index.vector_error(target.version))  # what the engine's way to keep vectors loses
    found = index.fetch_vectors(target.version, rows["chunk_id"].to_pylist()) if len(rows) else {}
    for row, expected in zip(rows.drop_columns(["vector"]).to_pylist(), unpack(rows["vector"]), strict=True):
        vector = found.get(row["chunk_id"])
        if vector is not None and not np.allclose(vector, expected, error, 1e-5):
            wrong.append((row["team_id"], row["chunk_id"]))
    return wrong, list(rows["chunk_id"].to_pylist())
