"""The rule that decides for each chunk of a scope: embed, reuse, update, delete or nothing. Spark frames in and out."""

from __future__ import annotations

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from embedding.records import CHUNK
from jobs.plan.renames import renamed
from jobs.scope import Scope


def in_scope(chunks: DataFrame, published: DataFrame, scope: Scope) -> tuple[DataFrame, DataFrame]:
    """Chunks and ledger rows of a scope: a row whose chunk there is lies where the chunk does, any other by itself.

    The two may differ: a file that was written again is of another time.

    Both keep their columns: CHUNK and PUBLISHED.
    """
    if scope == Scope():
        return chunks, published
    within = scope.condition()
    key = ["team_id", "chunk_id"]
    desired = chunks.where(within)
    held = published.where(within).join(chunks.where(~within).select(*key), on=key, how="left_anti")
    moved = published.where(~within).join(desired.select(*key), on=key, how="left_semi")
    return desired, held.select(*published.columns).unionByName(moved.select(*published.columns))


def actions(chunks: DataFrame, published: DataFrame, vectors: DataFrame) -> DataFrame:
    """The action for each chunk: embed, reuse, update, unchanged or delete.

    ``chunks`` and ``published`` are already within the scope and the index; ``vectors`` (team_id, content_hash) within
    the space. Of several chunks with one text the first embeds and the others reuse its vector.
    Columns: those of ``chunks``, ``action``, ``held`` (the ledger has a row of it) and ``renamed`` (only a name
    differs); of a delete only team_id and chunk_id are filled.
    """
    have = published.select(
        "team_id",
        "chunk_id",
        F.col("content_hash").alias("held_content"),
        F.col("meta_hash").alias("held_meta"),
        F.col("text_hash").alias("held_text"),
    )
    stored = vectors.select("team_id", "content_hash").distinct().withColumn("stored", F.lit(True))
    changed = F.col("held_content").isNull() | (F.col("held_content") != F.col("content_hash"))
    joined = chunks.join(have, on=["team_id", "chunk_id"], how="full_outer").join(
        stored, on=["team_id", "content_hash"], how="left"
    )
    action = (
        F.when(F.col("doc_id").isNull(), "delete")
        .when(changed & F.col("stored").isNotNull(), "reuse")
        .when(changed, "embed")
        .when(F.col("held_meta") != F.col("meta_hash"), "update")
        .otherwise("unchanged")
    )
    held = F.col("held_content").isNotNull()
    by_name = renamed(F.col("held_text"), F.col("held_content"))
    added = {"action": action, "held": held, "renamed": by_name}
    return joined.withColumns(added).select(*CHUNK.names, *added)
