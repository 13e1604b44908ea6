"""The rule that decides for each chunk of a scope: embed, reuse, update, delete or nothing. Frames in and out."""

from __future__ import annotations

import pyarrow as pa

from embedding.records import CHUNK
from jobs.plan.renames import RENAMED
from jobs.scope import Scope
from jobs.state.frames import Frame, Frames, columns, equal
from jobs.state.tables import CHUNK_KEY, PUBLISHED

_NAME = pa.schema([("name", pa.string())])


def within(frames: Frames, rows: Frame, scope: Scope) -> Frame:
    """Rows (at least team_id, channel_id, kind, created_at) that lie in a scope."""
    return (
        rows if scope == Scope() else frames.sql("SELECT * FROM {rows} WHERE inside", rows=_marked(frames, rows, scope))
    )


def in_scope(frames: Frames, chunks: Frame, published: Frame, scope: Scope) -> tuple[Frame, Frame]:
    """Chunks and ledger rows of a scope: a row whose chunk there is lies where the chunk does, any other by itself.

    The two may differ: a file that was written again is of another time.

    Both keep their columns: CHUNK, and those of ``published``.
    """
    if scope == Scope():
        return chunks, published
    held = columns(published.columns, "p")
    desired, given = _marked(frames, chunks, scope), _marked(frames, published, scope)
    return frames.sql(f"SELECT {columns(chunks.columns)} FROM {{desired}} WHERE inside", desired=desired), frames.sql(
        f"""
        SELECT {held} FROM {{given}} p
        ANTI JOIN (SELECT * FROM {{desired}} WHERE NOT inside) c ON {equal(CHUNK_KEY.names, "p", "c")} WHERE p.inside
        UNION ALL
        SELECT {held} FROM {{given}} p
        SEMI JOIN (SELECT * FROM {{desired}} WHERE inside) c ON {equal(CHUNK_KEY.names, "p", "c")} WHERE NOT p.inside
        """,
        given=given,
        desired=desired,
    )


def _marked(frames: Frames, rows: Frame, scope: Scope) -> Frame:
    """Rows with the column ``inside``: whether they lie in a scope. What is not known lies outside."""
    joins, terms, named = "", ["TRUE"], {"rows": rows}
    kinds = (scope.kind,) if scope.kind is not None else ()
    for column, wanted in (("team_id", scope.teams), ("channel_id", scope.channels), ("kind", kinds)):
        if wanted:
            named[column] = frames.local(_NAME, [{"name": name} for name in sorted(set(wanted))])
            joins += f" LEFT JOIN {{{column}}} of_{column} ON r.{column} = of_{column}.name"
            terms.append(f"of_{column}.name IS NOT NULL")
    if scope.since is not None:
        terms.append(f"coalesce(r.created_at >= {scope.since:d}, FALSE)")
    if scope.until is not None:
        terms.append(f"coalesce(r.created_at < {scope.until:d}, FALSE)")
    query = f"SELECT {columns(rows.columns, 'r')}, {' AND '.join(terms)} AS inside FROM {{rows}} r{joins}"
    return frames.sql(query, **named)


def actions(frames: Frames, chunks: Frame, published: Frame, vectors: Frame) -> Frame:
    """The action for each chunk: embed, reuse, update, unchanged or delete.

    ``chunks`` and ``published`` are already within the scope and the index; ``vectors`` (team_id, content_hash) within
    the space. Of several chunks with one text the first embeds and the others reuse its vector.
    Columns: CHUNK, ``action``, ``held`` (the ledger has a row of it) and ``renamed`` (only a name
    differs); of a delete only team_id and chunk_id are filled.
    """
    own = [name for name in CHUNK.names if name not in ("team_id", "chunk_id")]
    changed = "(j.held_content IS NULL OR j.held_content <> j.content_hash)"
    by_name = RENAMED.format(
        held_text="j.held_text", text="j.text_hash", held_content="j.held_content", content="j.content_hash"
    )
    return frames.sql(
        f"""
        WITH stored AS (SELECT DISTINCT team_id, content_hash FROM {{vectors}}),
        joined AS (
            SELECT coalesce(c.team_id, p.team_id) AS team_id, coalesce(c.chunk_id, p.chunk_id) AS chunk_id,
                {columns(own, "c")}, p.content_hash AS held_content, p.meta_hash AS held_meta, p.text_hash AS held_text
            FROM {{chunks}} c FULL OUTER JOIN {{published}} p ON {equal(CHUNK_KEY.names, "c", "p")})
        SELECT {columns(CHUNK.names, "j")},
            CASE WHEN j.doc_id IS NULL THEN 'delete'
                WHEN {changed} AND s.content_hash IS NOT NULL THEN 'reuse'
                WHEN {changed} THEN 'embed'
                WHEN j.held_meta <> j.meta_hash THEN 'update'
                ELSE 'unchanged' END AS action,
            j.held_content IS NOT NULL AS held,
            {by_name} AS renamed
        FROM joined j LEFT JOIN stored s ON j.team_id = s.team_id AND j.content_hash = s.content_hash
        """,
        chunks=chunks,
        published=frames.sql(f"SELECT {columns(PUBLISHED.names)} FROM {{published}}", published=published),
        vectors=vectors,
    )
