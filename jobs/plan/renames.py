"""Renames: texts that are as they were but for a name before them, which may keep the vector that they have.

One person's new name would else have all that they ever wrote encoded again in one night. ``text.rename_tokens`` says
how much of that a run does; the rest keeps the name that it was encoded with until a later run, and its metadata shows
the new one at once.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

_KEY = ["team_id", "chunk_id"]


def renamed(held_text: Column, held_content: Column) -> Column:
    """Whether what is encoded differs from what is held by names alone; null counts as no."""
    return F.coalesce((held_text == F.col("text_hash")) & (held_content != F.col("content_hash")), F.lit(False))


def keep_names(chunks: DataFrame, published: DataFrame, tokens: int | None) -> DataFrame:
    """Chunks (CHUNK) with the ``content_hash`` of the ledger's row where a rename is to wait.

    Renamed texts of ``tokens`` together do not wait, in an order that does not change; None is no limit.
    """
    if tokens is None:
        return chunks
    held = published.select(*_KEY, F.col("content_hash").alias("held_content"), F.col("text_hash").alias("held_text"))
    joined = chunks.join(held, on=_KEY, how="left")
    waits = renamed(F.col("held_text"), F.col("held_content"))
    if tokens:
        so_far = F.sum("tokens").over(Window.partitionBy(waits).orderBy(F.xxhash64("chunk_id"), "chunk_id"))
        waits = waits & (so_far - F.col("tokens") >= tokens)  # the first goes, however long it is
    kept = F.when(waits, F.col("held_content")).otherwise(F.col("content_hash"))
    return joined.withColumn("content_hash", kept).select(*chunks.columns)
