"""Quarantine: what could not be processed, why, and how often it was tried. Never text beyond an id.

Each step keeps its own rows: it replaces those of what it looked at again, so that what was mended goes by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs.scope import Scope
from jobs.state.staging import staged
from jobs.state.store import State
from jobs.state.tables import QUARANTINE

EXTRACT = "extract"
EMBED = "embed"
_KEY = ("source_id", "partition", "key")


def replace(
    state: State,
    step: str,
    rejects: Iterable[Mapping[str, object]],
    *,
    again: Callable[[Mapping[str, Any]], bool],
    run_id: str,
    now: int,
) -> None:
    """Make ``rejects`` the step's rows among those that were looked at ``again``; a repeated fault counts its tries.

    ``now`` is the time of the run (µs).
    """
    before = {
        tuple(r[c] for c in _KEY): r for r in state.read("quarantine").to_pylist() if r["step"] == step and again(r)
    }
    rows: dict[tuple[object, ...], dict[str, object]] = {}
    for reject in rejects:  # a fault that repeats in one reading is one row
        at = tuple(reject[c] for c in _KEY)
        old = before.get(at)
        rows[at] = {
            **{name: reject.get(name) for name in QUARANTINE.names},
            "step": step,
            "attempts": 1 + (old["attempts"] if old else 0),
            "first_seen": old["first_seen"] if old else now,
            "last_seen": now,
            "run_id": run_id,
            "_delete": False,
        }
    rows |= {at: {**row, "_delete": True} for at, row in before.items() if at not in rows}
    state.change("quarantine", list(rows.values()))


def replace_texts(state: State, failed: Mapping[tuple[str, str], str], scope: Scope, *, run_id: str, now: int) -> int:
    """Quarantine the planned chunks whose text could not be encoded, and let go of the scope's others.

    ``failed`` is the reason by (team_id, content_hash). A text without a vector is planned by every run, so whatever
    is not among them now was mended or is gone. Returns the number of chunks.
    """
    rejects = []
    if failed:
        hashes = pa.array(sorted({content for _, content in failed}))
        names = ["source_id", "partition", "chunk_id", "team_id", "channel_id", "kind", "created_at", "content_hash"]
        planned = staged(state.work(run_id) / "rows").data()
        for row in planned.to_table(columns=names, filter=pc.field("content_hash").isin(hashes)).to_pylist():
            reason = failed.get((row["team_id"], row.pop("content_hash")))
            if reason:
                rejects.append({**row, "key": row["chunk_id"], "reason": reason})
    replace(
        state,
        EMBED,
        rejects,
        run_id=run_id,
        now=now,
        again=lambda r: scope.covers(r["team_id"], r["channel_id"], r["kind"], r["created_at"]),
    )
    return len(rejects)


def texts_left_out(state: State) -> pa.Table:
    """Chunks that wait in quarantine for their vector: team_id, chunk_id."""
    rows = state.read("quarantine", ["team_id", "key"], pc.field("step") == EMBED)
    return rows.rename_columns(["team_id", "chunk_id"])
