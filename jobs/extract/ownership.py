"""The differences that decide a run, as Spark ``DataFrame -> DataFrame`` functions. Nothing here reads or writes.

What was read against ``chunks`` (``rank_owners`` to ``changed_chunks``), and ``chunks`` against what
the index holds and which vectors are stored (``actions``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from embedding.records import CHUNK

_OWNER = ["source_id", "partition"]
_CLAIM = ["doc_id", *_OWNER, "version", "team_id", "channel_id", "kind", "created_at"]
_CLAIMING = [*_CLAIM, "chunk_no", "content_hash"]
_WATCHED = ["content_hash", "meta_hash", "version", "source_id", "partition"]


@dataclass(frozen=True, slots=True)
class Read:
    """What a run has read, and what was known before: the frames that decide.

    ``staged`` (CHUNK) and ``removed`` (REMOVALS) were read now; ``chunks`` and ``removals`` are the state's.
    ``covered`` (source_id, partition) were read whole now, or are gone: what is known of them alone counts no more.
    Documents in ``protected`` (doc_id, source_id, partition) are there but could not be processed, or may have
    been: what is known of them counts. ``certain`` are the covered ones without a suspect
    (``jobs.extract.held_deletions``): in others a deletion that is no longer there may be the record that cannot be
    read, and still counts.
    """

    staged: DataFrame
    removed: DataFrame
    chunks: DataFrame
    removals: DataFrame
    covered: DataFrame
    protected: DataFrame
    certain: DataFrame


def rank_owners(read: Read, source_order: Sequence[str]) -> DataFrame:
    """Who claims each document that was read, and in which ``place``: the first decides.

    A document may stand in several partitions, or be taken away by an event in one; read now, or earlier. The newest
    version wins, and a deletion wins over a text of its own version; then the later source of the configuration, then
    the later partition: an order that does not depend on what is read first. A winner that is ``removed`` is no text.

    One row a document, partition and version, with all ``owners`` of the document; used often, so worth a ``persist``.

    Columns: doc_id, source_id, partition, version, team_id, channel_id, kind, created_at, texts, staged, removed,
    deleted, rank, place, owners, best_texts, best_version and best_owner.
    """
    rank = F.coalesce(
        F.create_map(*[c for n, s in enumerate(source_order) for c in (F.lit(s), F.lit(n))])[F.col("source_id")],
        F.lit(-1),
    )
    named = read.staged.select("doc_id").unionByName(read.removed.select("doc_id")).distinct()

    def earlier(rows: DataFrame, over: DataFrame, by: list[str]) -> DataFrame:
        covered = over.withColumn("covered", F.lit(True))
        protected = read.protected.select(*by).distinct().withColumn("protected", F.lit(True))
        return (
            rows.join(named, on="doc_id", how="left_semi")
            .join(covered, on=_OWNER, how="left")
            .join(protected, on=by, how="left")
            .where("covered IS NULL OR protected IS NOT NULL")
        )

    known = earlier(read.chunks.select(*_CLAIMING), read.covered, ["doc_id"])
    gone = earlier(read.removals, read.certain, ["doc_id", *_OWNER])
    claims = _texts(read.staged, True).unionByName(_texts(known, False))
    claims = claims.unionByName(_removals(read.removed, True)).unionByName(_removals(gone, False))
    best = Window.partitionBy("doc_id").orderBy(
        *(F.desc(name) for name in ("version", "deleted", "rank", "partition", "removed", "staged"))
    )
    everyone = Window.partitionBy("doc_id")
    return (
        claims.withColumn("rank", rank)
        .withColumn("place", F.row_number().over(best))
        .withColumn("owners", F.collect_set(F.concat_ws("\0", *_OWNER)).over(everyone))
        .withColumn("best_texts", F.first("texts").over(best))
        .withColumn("best_version", F.first("version").over(best))
        .withColumn("best_owner", F.first(F.concat_ws("\0", *_OWNER)).over(best))
    )


def _texts(chunks: DataFrame, staged: bool) -> DataFrame:
    """Claims of documents by their chunks."""
    return (
        chunks.groupBy(*_CLAIM)
        .agg(_text_hash().alias("texts"))
        .withColumns({"staged": F.lit(staged), "removed": F.lit(False), "deleted": F.lit(False)})
    )


def _removals(rows: DataFrame, staged: bool) -> DataFrame:
    """Claims of events that take documents away."""
    named = {"texts": F.lit(None).cast("string"), "staged": F.lit(staged), "removed": F.lit(True)}
    return rows.select(*_CLAIM, "deleted").withColumns(named).select(*_CLAIM, *named, "deleted")


def winning(staged: DataFrame, claims: DataFrame) -> DataFrame:
    """Chunks (CHUNK) of ``staged`` whose partition owns their document; ``claims`` as of ``rank_owners``."""
    won = claims.where("place = 1 AND staged AND NOT removed").select("doc_id", *_OWNER, "version")
    return staged.join(won, on=["doc_id", *_OWNER, "version"], how="left_semi").select(*staged.columns)


def taken_away(claims: DataFrame) -> DataFrame:
    """Documents (doc_id) whose newest event is that they were deleted or emptied."""
    return claims.where("place = 1 AND removed").select("doc_id")


def decided_by(winners: DataFrame, away: DataFrame) -> DataFrame:
    """Documents (doc_id) that a text or an event decided, so that nothing is held back of them."""
    return winners.select("doc_id").unionByName(away).distinct()


def overlapping(claims: DataFrame) -> DataFrame:
    """Pairs of partitions that hold one document: source_id, partition, other."""
    return (
        claims.where(F.size("owners") > 1)
        .select(*_OWNER, F.explode("owners").alias("other"))
        .where(F.col("other") != F.concat_ws("\0", *_OWNER))
        .distinct()
    )


def losing(claims: DataFrame) -> DataFrame:
    """Claims that another one wins, as new as theirs and with another text: read now, or owners until now.

    Columns are those of ``rank_owners``.
    """
    other = F.concat_ws("\0", *_OWNER) != F.col("best_owner")
    return claims.where("place > 1 AND texts != best_texts AND version = best_version").where(other)


def _text_hash() -> Column:
    return F.concat_ws(",", F.sort_array(F.collect_list(F.concat_ws(":", "chunk_no", "content_hash"))))


def new_chunks(winners: DataFrame, chunks: DataFrame) -> DataFrame:
    """Chunks (CHUNK) of ``winners`` that are not in the state's ``chunks``."""
    return winners.join(chunks.select("team_id", "chunk_id"), on=["team_id", "chunk_id"], how="left_anti")


def changed_chunks(winners: DataFrame, read: Read, decided: DataFrame) -> DataFrame:
    """Chunks of the state to update, and (with ``_delete``) to remove.

    Removed are chunks whose partition is covered and which were not found, those past the end of a document that was
    read and is now shorter, and those of documents that were taken away, wherever they lie (``decided``: doc_id).
    Protected documents stay, unless a reading of theirs or an event won.

    Columns are CHUNK and ``_delete`` (boolean).
    """
    chunks = read.chunks
    watched = chunks.select("team_id", "chunk_id", *[F.col(c).alias(f"old_{c}") for c in _WATCHED])
    differs = F.lit(False)
    for column in _WATCHED:
        differs = differs | (F.col(column) != F.col(f"old_{column}"))
    updates = winners.join(watched, on=["team_id", "chunk_id"], how="inner").where(differs)
    candidates = (
        chunks.join(read.covered, on=_OWNER, how="left_semi")
        .select(*CHUNK.names)
        .unionByName(chunks.join(decided, on="doc_id", how="left_semi").select(*CHUNK.names))
        .dropDuplicates(["team_id", "chunk_id"])  # a chunk may qualify on both grounds
    )
    kept = read.protected.join(decided, on="doc_id", how="left_anti").select("doc_id", *_OWNER)
    removed = candidates.join(winners.select("chunk_id"), on="chunk_id", how="left_anti").join(
        kept, on="doc_id", how="left_anti"
    )
    return (
        updates.select(*CHUNK.names)
        .unionByName(_handed_on(read, kept))
        .withColumn("_delete", F.lit(False))
        .unionByName(removed.select(*CHUNK.names).withColumn("_delete", F.lit(True)))
    )


def handed_on(read: Read, decided: DataFrame) -> DataFrame:
    """Partitions (source_id, partition) that own a document from now on because they alone have it, unreadable."""
    return _handed_on(read, read.protected.join(decided, on="doc_id", how="left_anti")).select(*_OWNER).distinct()


def _handed_on(read: Read, kept: DataFrame) -> DataFrame:
    """Chunks whose partition let go of them while another one has their document, unreadable: from now on it owns them.

    Otherwise no run would look for them again, and they would never be deleted.
    """
    new = kept.groupBy("doc_id").agg(F.max_by(F.struct(*_OWNER), F.struct(*_OWNER)).alias("new"))
    back = kept.select("doc_id", *_OWNER)  # where the owner itself has it, unreadable, there is nothing to hand on
    return (
        read.chunks.join(read.covered, on=_OWNER, how="left_semi")
        .join(back, on=["doc_id", *_OWNER], how="left_anti")
        .join(new, on="doc_id", how="inner")
        .withColumns({name: F.col(f"new.{name}") for name in _OWNER})
        .select(*CHUNK.names)
    )


def changed_removals(read: Read) -> DataFrame:
    """Rows of ``removals`` to write, and (with ``_delete``) to remove: those of covered partitions that are no more.

    Columns are REMOVALS and ``_delete`` (boolean).
    """
    key = ["doc_id", *_OWNER]
    names = read.removals.columns
    # Twice in one partition: the claims are ranked one by one, and of what is kept the strongest will do.
    best = Window.partitionBy(*key).orderBy(F.desc("version"), F.desc("deleted"))
    now = read.removed.select(*names).withColumn("n", F.row_number().over(best)).where("n = 1").drop("n")
    before = read.removals.select(*key, F.struct("version", "deleted").alias("before"))
    covered = read.certain.withColumn("covered", F.lit(True))
    event = F.struct("version", "deleted")
    fresh = (
        now.join(before, on=key, how="left")
        .join(covered, on=_OWNER, how="left")
        # Of a partition that was not read to its end, what was known may still be in the rest.
        .where(F.col("before").isNull() | (event > F.col("before")) | ((event != F.col("before")) & F.col("covered")))
    )
    gone = (
        read.removals.join(read.certain, on=_OWNER, how="left_semi")
        .join(now, on=key, how="left_anti")
        .join(read.protected, on=key, how="left_anti")  # the event cannot be read any more: it still counts
    )
    return (
        fresh.select(*names)
        .withColumn("_delete", F.lit(False))
        .unionByName(gone.select(*names).withColumn("_delete", F.lit(True)))
    )


def staying(read: Read, holding: DataFrame, named: DataFrame, decided: DataFrame) -> DataFrame:
    """Documents that stay although their partition was read and does not show them.

    ``holding`` (source_id, partition, anything, listed, reason) are partitions that hold back what they own: all that
    is missing where ``anything``, else the ``named`` (source_id, partition, doc_id, named_reason, waits). One row a
    partition and reason: the number of documents, ``ids`` where it is single documents that are held, and in
    ``waiting`` those of them that wait for a suspect to go (``listed``).
    """
    waits = F.coalesce(F.col("waits"), F.col("listed"))
    single = F.col("named_reason").isNotNull() | F.col("listed")
    return (
        read.chunks.join(holding, on=_OWNER, how="inner")
        .select("doc_id", *_OWNER, "anything", "listed", "reason")
        .distinct()
        .join(decided, on="doc_id", how="left_anti")
        .join(named, on=["doc_id", *_OWNER], how="left")
        .where("anything OR named_reason IS NOT NULL")
        .groupBy(*_OWNER, F.coalesce("named_reason", "reason").alias("why"))
        .agg(
            F.count("*").alias("documents"),
            F.collect_list(F.when(single, F.col("doc_id"))).alias("ids"),
            F.collect_list(F.when(waits, F.col("doc_id"))).alias("waiting"),
        )
    )
