"""Renames: texts that are as they were but for a name before them, which may keep the vector that they have.

One person's new name would else have all that they ever wrote encoded again in one night. ``text.rename_tokens`` says
how much of that a run does; the rest keeps the name that it was encoded with until a later run, and its metadata shows
the new one at once.
"""

from __future__ import annotations

from jobs.state.frames import Frame, Frames, columns

# Whether what is encoded differs from what is held by names alone; of unknown hashes no.
RENAMED = "coalesce({held_text} = {text} AND {held_content} <> {content}, FALSE)"


def keep_names(frames: Frames, chunks: Frame, published: Frame, tokens: int | None) -> Frame:
    """Chunks (CHUNK) with the ``content_hash`` of the ledger's row where a rename is to wait.

    Renamed texts of ``tokens`` together do not wait, in an order that does not change; None is no limit.
    """
    if tokens is None:
        return chunks
    by_name = RENAMED.format(
        held_text="p.text_hash", text="c.text_hash", held_content="p.content_hash", content="c.content_hash"
    )
    # The first goes, however long it is.
    kept = "CASE WHEN waits AND so_far - tokens >= {0:d} THEN held_content ELSE content_hash END AS content_hash"
    names = [kept.format(tokens) if name == "content_hash" else name for name in chunks.columns]
    return frames.sql(
        f"""
        WITH joined AS (
            SELECT {columns(chunks.columns, "c")}, p.content_hash AS held_content, {by_name} AS waits
            FROM {{chunks}} c LEFT JOIN {{published}} p ON c.team_id = p.team_id AND c.chunk_id = p.chunk_id),
        summed AS (
            SELECT *, sum(tokens) OVER (PARTITION BY waits ORDER BY xxhash64(chunk_id), chunk_id) AS so_far FROM joined)
        SELECT {columns(names)} FROM summed
        """,
        chunks=chunks,
        published=published,
    )
