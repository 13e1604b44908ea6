"""Are the conversations in ``chunks`` those that its messages make? Makes all of them anew, and compares."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from embedding.records import CHUNK
from jobs.extract.broken_conversations import read_owners_again
from jobs.extract.conversations import build_conversations, messages_of, touched_groups
from jobs.state.frames import columns
from jobs.state.tables import CONVERSATIONS
from jobs.verify.source_check import Wrong

if TYPE_CHECKING:
    from jobs.extract.changes import Extraction
    from jobs.state.frames import Frames
    from jobs.state.store import State


def check_conversations(frames: Frames, extraction: Extraction) -> dict[Wrong, list[str]]:
    """Conversations of the scope that are missing, too many or others than the messages make, with their documents."""
    if not extraction.chunking.conversations:
        return {}
    shown = ("team_id", "chunk_id", "channel_id", "created_at", "partition", "meta")
    chunks = frames.table(extraction.state, "chunks")
    messages = messages_of(frames, chunks, touched_groups(frames, chunks))
    differ = frames.sql(
        f"""
        SELECT {", ".join(f"coalesce(d.{name}, h.{name}) AS {name}" for name in shown)}, d.chunk_id IS NULL AS gone
        FROM {{desired}} d FULL OUTER JOIN (SELECT {columns(CHUNK.names)} FROM {{chunks}} WHERE kind = 'thread') h
        ON d.team_id = h.team_id AND d.chunk_id = h.chunk_id
        WHERE d.chunk_id IS NULL OR h.chunk_id IS NULL
        OR d.content_hash <> h.content_hash OR d.meta_hash <> h.meta_hash
        """,
        desired=build_conversations(frames, messages, extraction.chunking),
        chunks=chunks,
    )
    return {
        Wrong(row["team_id"], row["chunk_id"], (CONVERSATIONS, row["partition"]), row["gone"]): json.loads(row["meta"])[
            "messages"
        ]
        for row in frames.collect(differ).to_pylist()
        if extraction.scope.covers(row["team_id"], row["channel_id"], "thread", row["created_at"])
    }


def make_anew(state: State, wrong: Mapping[Wrong, list[str]], run_id: str) -> int:
    """Have the next run make some conversations anew; returns how many partitions it reads for that."""
    members: defaultdict[str, set[str]] = defaultdict(set)
    for one, documents in wrong.items():
        members[one.team_id].update(documents)
    return sum(read_owners_again(state, team, documents, run_id) for team, documents in members.items())
