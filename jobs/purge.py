"""Purge: remove documents from every index version, the vectors and the text tables, and keep later runs from
bringing them back.

The rule is recorded first: whatever dies after that, the documents stay purged and the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.report import Report
from jobs.scope import Scope

if TYPE_CHECKING:
    from jobs.lease import Lease
    from jobs.mill import Mill

_HOLDING = ("chunks", "vectors", "published", "quarantine")
_IDS = 2_000


def purge(
    mill: Mill, *, team: str, channel: str, ids: Sequence[str], before: int | None, wait: float = 0.0
) -> dict[str, Any]:
    """Remove what the arguments name and return the receipt: rows removed by place."""
    scope = Scope(teams=(team,), channels=(channel,) if channel else (), until=before)
    with mill.writing("purge", scope, wait) as (report, lease):
        rule = {
            "team_id": team, "channel_id": channel, "ids": list(ids), "before": before,
            "purged_at": int(time.time() * 1_000_000), "run_id": report.run_id, "_delete": False,
        }  # fmt: skip
        mill.state.change("purges", [rule])
        report.index = mill.live()
        removed = _carry_out(mill, rule, lease)
        report.status = "ok"
    return {"run_id": report.run_id, "index": report.index, "scope": report.scope, "ids": len(ids), "removed": removed}


def finish_purges(mill: Mill, lease: Lease) -> None:
    """Carry out what a purge that died has left: nothing of it may be published again.

    Such a purge has its rule, and no report that says it ended.
    """
    rules = mill.state.read("purges").to_pylist()
    if not rules:
        return
    ended = set(mill.state.read("runs", ["run_id"], pc.field("status") == "ok")["run_id"].to_pylist())
    for rule in rules:
        if rule["run_id"] not in ended:
            _carry_out(mill, rule, lease)
            channels = (rule["channel_id"],) if rule["channel_id"] else ()
            scope = Scope(teams=(rule["team_id"],), channels=channels, until=rule["before"]).to_json()
            done = Report(rule["run_id"], "purge", mill.space_id, mill.live(), scope, rule["purged_at"], "ok")
            done.finished_at = int(time.time() * 1_000_000)
            mill.record(done)


def _carry_out(mill: Mill, rule: Mapping[str, Any], lease: Lease) -> dict[str, int]:
    """Remove the rows that a rule covers; returns how many, by place. Can be repeated wherever it died.

    The texts and the ledger say what there is to remove, so they go last, and the ledger after the texts: what had
    text and no ledger would be published again.
    """
    state, everywhere = mill.state, mill.state.every_cut()
    team, channel, before, ids = rule["team_id"], rule["channel_id"], rule["before"], rule["ids"]
    covered = _covered(team, channel, before)
    chunks = everywhere.read("chunks", ["chunk_id", "doc_id", "content_hash"], covered)
    held = everywhere.read("published", ["chunk_id", "content_hash"], covered)
    if ids:
        wanted = pa.array(sorted(set(ids)), pa.string())
        chunks = chunks.filter(pc.is_in(chunks["doc_id"], wanted))
        documents = pa.array([c.rsplit("#", 1)[0] for c in held["chunk_id"].to_pylist()], pa.string())
        held = held.filter(pc.is_in(documents, wanted))
    doomed = sorted(set(chunks["chunk_id"].to_pylist()) | set(held["chunk_id"].to_pylist()))
    hashes = set(chunks["content_hash"].to_pylist()) | set(held["content_hash"].to_pylist())
    texts = everywhere.read("chunks", ["chunk_id", "content_hash"], pc.field("team_id") == team)
    left = texts.filter(pc.invert(pc.is_in(texts["chunk_id"], pa.array(doomed, pa.string()))))

    removed = {"index": _delete_rows(mill, doomed, lease)}
    ours = f"team_id = {_literal(team)}"
    unused = sorted(hashes - set(left["content_hash"].to_pylist()))
    removed["vectors"] = _drop(mill, "vectors", ours, "content_hash", unused)
    removed["chunks"] = _drop(mill, "chunks", ours, "chunk_id", doomed)
    removed["ledger"] = _drop(mill, "published", ours, "chunk_id", doomed)
    removed["quarantine"] = 0 if ids else state.drop("quarantine", _condition(team, channel, before))
    for name in _HOLDING:
        state.vacuum(name, hours=0)
    return removed


def _delete_rows(mill: Mill, doomed: Sequence[str], lease: Lease) -> int:
    """Delete the keys from every version, also from those that are no longer or not yet live."""
    if not mill.has_index():
        return 0
    index, removed = mill.index(), 0
    versions = index.versions()
    with mill.progress.bar("purge", len(doomed) * len(versions), "rows") as advance:
        for version in versions:
            count = index.count(version)
            for start in range(0, len(doomed), _IDS):
                lease.check()
                index.delete(version, doomed[start : start + _IDS])
                advance(len(doomed[start : start + _IDS]))
            index.flush(version)
            index.compact(version)
            removed += count - index.count(version)
    return removed


def _covered(team: str, channel: str, before: int | None) -> pc.Expression:
    found = pc.field("team_id") == team
    if channel:
        found = found & (pc.field("channel_id") == channel)
    if before is not None:
        found = found & (pc.field("created_at") < before)
    return found


def _condition(team: str, channel: str, before: int | None) -> str:
    """``_covered`` in SQL."""
    parts = [f"team_id = {_literal(team)}"]
    if channel:
        parts.append(f"channel_id = {_literal(channel)}")
    if before is not None:
        parts.append(f"created_at < {before}")
    return " AND ".join(parts)


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _drop(mill: Mill, name: str, ours: str, column: str, values: Sequence[str]) -> int:
    count = 0
    for start in range(0, len(values), _IDS):
        listed = ", ".join(_literal(v) for v in values[start : start + _IDS])
        count += mill.state.drop(name, f"{ours} AND {column} IN ({listed})")
    return count
