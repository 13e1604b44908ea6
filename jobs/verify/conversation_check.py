"""Are the conversations in ``chunks`` those that its messages make? Makes all of them anew, and compares."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING

from jobs.extract.broken_conversations import read_owners_again
from jobs.extract.conversations import build_conversations, messages_of, touched_groups
from jobs.state.spark_frames import read_table
from jobs.state.tables import CONVERSATIONS
from jobs.verify.source_check import Wrong

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from jobs.extract.changes import Extraction
    from jobs.state.store import State


def check_conversations(spark: SparkSession, extraction: Extraction) -> dict[Wrong, list[str]]:
    """Conversations of the scope that are missing, too many or others than the messages make, with their documents."""
    if not extraction.chunking.conversations:
        return {}
    from pyspark.sql import functions as F

    shown = ["team_id", "chunk_id", "channel_id", "created_at", "partition", "meta"]
    hashes = F.concat_ws(":", "content_hash", "meta_hash")
    chunks = read_table(spark, extraction.state, "chunks")
    desired = build_conversations(messages_of(chunks, touched_groups(chunks)), extraction.chunking)
    held = chunks.where("kind = 'thread'")
    both = desired.select(*shown, hashes.alias("desired")).join(
        held.select(*[F.col(name).alias(f"held_{name}") for name in shown], hashes.alias("held")),
        on=(F.col("team_id") == F.col("held_team_id")) & (F.col("chunk_id") == F.col("held_chunk_id")),
        how="full_outer",
    )
    differ = both.where("desired IS NULL OR held IS NULL OR desired != held").select(
        *[F.coalesce(name, f"held_{name}").alias(name) for name in shown], F.col("desired").isNull().alias("gone")
    )
    return {
        Wrong(row["team_id"], row["chunk_id"], (CONVERSATIONS, row["partition"]), row["gone"]): json.loads(row["meta"])[
            "messages"
        ]
        for row in differ.toArrow().to_pylist()
        if extraction.scope.covers(row["team_id"], row["channel_id"], "thread", row["created_at"])
    }


def make_anew(state: State, wrong: Mapping[Wrong, list[str]], run_id: str) -> int:
    """Have the next run make some conversations anew; returns how many partitions it reads for that."""
    members: defaultdict[str, set[str]] = defaultdict(set)
    for one, documents in wrong.items():
        members[one.team_id].update(documents)
    return sum(read_owners_again(state, team, documents, run_id) for team, documents in members.items())
