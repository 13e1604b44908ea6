"""The differences that decide a run, as Spark ``DataFrame -> DataFrame`` functions. Nothing here reads or writes.

What was read against ``chunks`` (``rank_owners`` to ``changed_chunks``), and ``chunks`` against what
the index holds and which vectors are stored (``actions``).
"""

from __future__ import annotations

from collections.abc import Sequence

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from embedding.records import CHUNK
from jobs.scope import Scope

_OWNER = ["source_id", "partition"]
_WATCHED = ["content_hash", "meta_hash", "version", "source_id", "partition"]


def rank_owners(staged: DataFrame, chunks: DataFrame, covered: DataFrame, source_order: Sequence[str]) -> DataFrame:
    """Who claims each document that was read, and in which ``place``: the first owns it.

    A document may stand in several partitions, read now (``staged``) or earlier (``chunks``, unless its partition is
    ``covered``: read whole now, or gone). The newest version wins, then the later source of the configuration, then
    the later partition: an order that does not depend on what is read first.

    One row a document and partition, with all ``owners`` of the document; used three times, so worth a ``persist``.
    """
    rank = F.coalesce(
        F.create_map(*[c for n, s in enumerate(source_order) for c in (F.lit(s), F.lit(n))])[F.col("source_id")],
        F.lit(-1),
    )
    columns = ["doc_id", *_OWNER, "version", "team_id", "channel_id", "kind", "created_at"]
    read = staged.groupBy(*columns).agg(_text_hash().alias("texts")).withColumn("staged", F.lit(True))
    kept = (
        chunks.join(staged.select("doc_id").distinct(), on="doc_id", how="left_semi")
        .join(covered, on=_OWNER, how="left_anti")
        .join(staged.select("doc_id", *_OWNER).distinct(), on=["doc_id", *_OWNER], how="left_anti")
        .groupBy(*columns)
        .agg(_text_hash().alias("texts"))
        .withColumn("staged", F.lit(False))
    )
    best = Window.partitionBy("doc_id").orderBy(F.desc("version"), F.desc("rank"), F.desc("partition"))
    everyone = Window.partitionBy("doc_id")
    return (
        read.unionByName(kept)
        .withColumn("rank", rank)
        .withColumn("place", F.row_number().over(best))
        .withColumn("owners", F.collect_set(F.concat_ws("\0", *_OWNER)).over(everyone))
        .withColumn("best_texts", F.first("texts").over(best))
        .withColumn("best_version", F.first("version").over(best))
    )


def winning(staged: DataFrame, claims: DataFrame) -> DataFrame:
    """Chunks of ``staged`` whose partition owns their document."""
    won = claims.where("place = 1 AND staged").select("doc_id", *_OWNER)
    return staged.join(won, on=["doc_id", *_OWNER], how="left_semi")


def overlapping(claims: DataFrame) -> DataFrame:
    """Pairs of partitions that hold one document: source_id, partition, other."""
    return (
        claims.where(F.size("owners") > 1)
        .select(*_OWNER, F.explode("owners").alias("other"))
        .where(F.col("other") != F.concat_ws("\0", *_OWNER))
        .distinct()
    )


def losing(claims: DataFrame) -> DataFrame:
    """Documents read now that another partition owns, as new as theirs and with another text."""
    return claims.where("place > 1 AND staged AND texts != best_texts AND version = best_version")


def _text_hash() -> Column:
    return F.concat_ws(",", F.sort_array(F.collect_list(F.concat_ws(":", "chunk_no", "content_hash"))))


def new_chunks(winners: DataFrame, chunks: DataFrame) -> DataFrame:
    """Chunks that were read and are not in the state."""
    return winners.join(chunks.select("team_id", "chunk_id"), on=["team_id", "chunk_id"], how="left_anti")


def changed_chunks(winners: DataFrame, chunks: DataFrame, covered: DataFrame, protected: DataFrame) -> DataFrame:
    """Chunks of the state to update, and (with ``_delete``) to remove.

    Removed are chunks whose partition is covered and which were not found, and those past the end of a document that
    was read and is now shorter. Documents in ``protected`` (doc_id) were seen but could not be processed: they stay,
    unless another reading of theirs won.
    """
    watched = chunks.select("team_id", "chunk_id", *[F.col(c).alias(f"old_{c}") for c in _WATCHED])
    differs = F.lit(False)
    for column in _WATCHED:
        differs = differs | (F.col(column) != F.col(f"old_{column}"))
    updates = winners.join(watched, on=["team_id", "chunk_id"], how="inner").where(differs)
    read = winners.select("doc_id").distinct()
    candidates = (
        chunks.join(covered, on=_OWNER, how="left_semi")
        .unionByName(chunks.join(read, on="doc_id", how="left_semi"))
        .dropDuplicates(["team_id", "chunk_id"])  # a chunk may qualify on both grounds
    )
    kept = protected.join(read, on="doc_id", how="left_anti")
    removed = candidates.join(winners.select("chunk_id"), on="chunk_id", how="left_anti").join(
        kept, on="doc_id", how="left_anti"
    )
    return (
        updates.select(*CHUNK.names)
        .withColumn("_delete", F.lit(False))
        .unionByName(removed.select(*CHUNK.names).withColumn("_delete", F.lit(True)))
    )


def in_scope(chunks: DataFrame, published: DataFrame, scope: Scope) -> tuple[DataFrame, DataFrame]:
    """Chunks and ledger rows of a scope: a row whose chunk there is lies where the chunk does, any other by itself.

    The two may differ: a file that was written again is of another time.
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
    """What has to happen to each chunk: embed, reuse, update, unchanged or delete.

    ``chunks`` and ``published`` are already within the scope and the index; ``vectors`` (team_id, content_hash) within
    the space. Of several chunks with one text the first embeds and the others reuse its vector.
    Columns: those of ``chunks``, ``action`` and ``held`` (the ledger has a row of it); of a delete only team_id and
    chunk_id are filled.
    """
    have = published.select(
        "team_id", "chunk_id", F.col("content_hash").alias("held_content"), F.col("meta_hash").alias("held_meta")
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
    return joined.withColumn("action", action).withColumn("held", held).select(*CHUNK.names, "action", "held")
