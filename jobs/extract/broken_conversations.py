"""Conversations that lost a message other than by a run: they go at once, and the next run makes them anew."""

from __future__ import annotations

import json
from collections.abc import Collection, Set
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from jobs.state.team_rows import read_teams

if TYPE_CHECKING:
    from jobs.state.store import State


def conversations_with(state: State, team: str, documents: Set[str]) -> dict[str, list[str]]:
    """Chunks of a team's conversations that hold any of some documents, with all documents that each holds."""
    found: dict[str, list[str]] = {}
    if documents:
        rows = read_teams(state, "chunks", [team], ["chunk_id", "kind", "meta"])
        for row in rows.filter(pc.equal(rows["kind"], "thread")).to_pylist():
            members: list[str] = json.loads(row["meta"]).get("messages", [])
            if not documents.isdisjoint(members):
                found[row["chunk_id"]] = members
    return found


def read_owners_again(state: State, team: str, documents: Collection[str], run_id: str) -> int:
    """Have the next run read the partitions that own some documents, of every cut; returns how many there are.

    Call it only while holding the lease.
    """
    marked = 0
    for cut in state.values("chunks", "cut") if documents else ():
        one = state.of_cut(cut)
        rows = read_teams(one, "chunks", [team], ["doc_id", "source_id", "partition"])
        owners = rows.filter(pc.is_in(rows["doc_id"], pa.array(sorted(documents), pa.string())))
        at = {(row["source_id"], row["partition"]) for row in owners.to_pylist()}
        known = [r for r in one.read("sources").to_pylist() if (r["source_id"], r["partition"]) in at]
        one.change("sources", [{**row, "fingerprint": "", "run_id": run_id, "_delete": False} for row in known])
        marked += len(known)
    return marked
