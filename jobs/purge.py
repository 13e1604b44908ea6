"""Purge: remove documents from the index, the vectors and the text tables, and keep later runs from bringing them back.

The rule is recorded first: whatever dies after that, the documents stay purged and the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.scope import Scope

if TYPE_CHECKING:
    from jobs.run import Mill

_HOLDING = ("chunks", "vectors", "published", "quarantine")
_IDS = 2_000


def purge(
    mill: Mill, *, team: str, channel: str, ids: Sequence[str], before: int | None, wait: float = 0.0
) -> dict[str, Any]:
    """Remove what the arguments name and return the receipt: rows removed by place."""
    state = mill.state
    scope = Scope(teams=(team,), channels=(channel,) if channel else (), until=before)
    with mill.writing("purge", scope, wait) as (report, lease):
        rule = {
            "team_id": team, "channel_id": channel, "ids": list(ids), "before": before,
            "purged_at": int(time.time() * 1_000_000), "run_id": report.run_id, "_delete": False,
        }  # fmt: skip
        state.change("purges", [rule])
        report.index = version = mill.live()
        covered = _covered(team, channel, before)
        removed = {"index": 0, "ledger": 0, "chunks": 0, "vectors": 0, "quarantine": 0}

        chunks = state.read("chunks", ["chunk_id", "doc_id", "content_hash"], covered)
        held = state.read("published", ["chunk_id", "content_hash"], covered & (pc.field("index") == version))
        if ids:
            wanted = set(ids)
            chunks = chunks.filter(pc.is_in(chunks["doc_id"], pa.array(sorted(wanted), pa.string())))
            documents = pa.array([c.rsplit("#", 1)[0] for c in held["chunk_id"].to_pylist()], pa.string())
            held = held.filter(pc.is_in(documents, pa.array(sorted(wanted), pa.string())))
        doomed = sorted(set(chunks["chunk_id"].to_pylist()) | set(held["chunk_id"].to_pylist()))
        hashes = set(chunks["content_hash"].to_pylist()) | set(held["content_hash"].to_pylist())

        if mill.has_index() and version in mill.index().versions():
            index = mill.index()
            count = index.count(version)
            with mill.progress.bar("purge", len(doomed), "rows") as advance:
                for start in range(0, len(doomed), _IDS):
                    lease.check()
                    index.delete(version, doomed[start : start + _IDS])
                    advance(len(doomed[start : start + _IDS]))
            index.flush(version)
            index.compact(version)
            removed["index"] = count - index.count(version)
        removed["ledger"] = _delete(state, "published", team, "chunk_id", held["chunk_id"].to_pylist())
        removed["chunks"] = _delete(state, "chunks", team, "chunk_id", chunks["chunk_id"].to_pylist())
        kept = set(state.read("chunks", ["content_hash"], pc.field("team_id") == team)["content_hash"].to_pylist())
        removed["vectors"] = _delete(state, "vectors", team, "content_hash", sorted(hashes - kept))
        if not ids:
            removed["quarantine"] = _delete_quarantine(state, covered)
        for name in _HOLDING:
            state.vacuum(name, hours=0)
        report.status = "ok"
    return {"run_id": report.run_id, "index": version, "scope": report.scope, "ids": len(ids), "removed": removed}


def _covered(team: str, channel: str, before: int | None) -> pc.Expression:
    found = pc.field("team_id") == team
    if channel:
        found = found & (pc.field("channel_id") == channel)
    if before is not None:
        found = found & (pc.field("created_at") < before)
    return found


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _delete(state, name: str, team: str, column: str, values: Sequence[str]) -> int:  # type: ignore[no-untyped-def]
    count = 0
    for start in range(0, len(values), _IDS):
        listed = ", ".join(_literal(v) for v in values[start : start + _IDS])
        done = state.table(name).delete(f"team_id = {_literal(team)} AND {column} IN ({listed})")
        count += int(done.get("num_deleted_rows") or 0)
    return count


def _delete_quarantine(state, covered: pc.Expression) -> int:  # type: ignore[no-untyped-def]
    rows = state.read("quarantine", None, covered)
    if len(rows):
        state.merge("quarantine", rows.append_column("_delete", pa.array([True] * len(rows))))
    return len(rows)
