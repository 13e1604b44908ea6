"""The differences that decide a run, as frames of SQL. Nothing here reads or writes.

What was read against ``chunks`` (``rank_owners`` to ``changed_chunks``), and ``chunks`` against what
the index holds and which vectors are stored (``actions``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from embedding.records import CHUNK
from jobs.state.frames import Frame, Frames, columns, equal
from jobs.state.tables import CHUNK_KEY, REMOVALS

_CLAIM = ("doc_id", "source_id", "partition", "version", "team_id", "channel_id", "kind", "created_at")
_TEXTS = "array_join(sort_array(collect_list(concat_ws(':', chunk_no, content_hash))), ',')"
_WATCHED = ("content_hash", "meta_hash", "version", "source_id", "partition")
_ORDER = pa.schema([("source_id", pa.string()), ("place", pa.int64())])
_OWNER = ("source_id", "partition")


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

    frames: Frames
    staged: Frame
    removed: Frame
    chunks: Frame
    removals: Frame
    covered: Frame
    protected: Frame
    certain: Frame


def rank_owners(read: Read, source_order: Sequence[str]) -> Frame:
    """Who claims each document that was read, and in which ``place``: the first decides.

    A document may stand in several partitions, or be taken away by an event in one; read now, or earlier. The newest
    version wins, and a deletion wins over a text of its own version; then the later source of the configuration, then
    the later partition: an order that does not depend on what is read first. A winner that is ``removed`` is no text.

    One row a document, partition and version; used often, so worth keeping.

    Columns: doc_id, source_id, partition, version, team_id, channel_id, kind, created_at, texts, staged, removed,
    deleted, rank, place, shared (more than one partition claims it), best_texts, best_version and best_owner.
    """
    claim = columns(_CLAIM)
    order = [{"source_id": source, "place": place} for place, source in enumerate(source_order)]
    return read.frames.sql(
        f"""
        WITH named AS (SELECT doc_id FROM {{staged}} UNION SELECT doc_id FROM {{removed}}),
        spared AS (SELECT DISTINCT doc_id FROM {{protected}}),
        known AS (
            SELECT {columns((*_CLAIM, "chunk_no", "content_hash"), "k")} FROM {{chunks}} k
            SEMI JOIN named n ON k.doc_id = n.doc_id
            LEFT JOIN {{covered}} c ON {equal(_OWNER, "k", "c")}
            LEFT JOIN spared p ON k.doc_id = p.doc_id
            WHERE c.source_id IS NULL OR p.doc_id IS NOT NULL),
        gone AS (
            SELECT {columns((*_CLAIM, "deleted"), "k")} FROM {{removals}} k
            SEMI JOIN named n ON k.doc_id = n.doc_id
            LEFT JOIN {{certain}} c ON {equal(_OWNER, "k", "c")}
            LEFT JOIN {{protected}} p ON k.doc_id = p.doc_id AND {equal(_OWNER, "k", "p")}
            WHERE c.source_id IS NULL OR p.doc_id IS NOT NULL),
        claims AS (
            SELECT {claim}, {_TEXTS} AS texts, TRUE AS staged, FALSE AS removed, FALSE AS deleted
            FROM {{staged}} GROUP BY {claim}
            UNION ALL
            SELECT {claim}, {_TEXTS} AS texts, FALSE AS staged, FALSE AS removed, FALSE AS deleted
            FROM known GROUP BY {claim}
            UNION ALL
            SELECT {claim}, CAST(NULL AS STRING) AS texts, TRUE AS staged, TRUE AS removed, deleted FROM {{removed}}
            UNION ALL
            SELECT {claim}, CAST(NULL AS STRING) AS texts, FALSE AS staged, TRUE AS removed, deleted FROM gone),
        ranked AS (
            SELECT {columns((*_CLAIM, "texts", "staged", "removed", "deleted"), "c")},
                coalesce(o.place, -1) AS rank, concat_ws(chr(0), c.source_id, c.partition) AS owner
            FROM claims c LEFT JOIN {{order}} o ON c.source_id = o.source_id)
        SELECT {columns((*_CLAIM, "texts", "staged", "removed", "deleted", "rank"))},
            row_number() OVER best AS place,
            min(owner) OVER everyone <> max(owner) OVER everyone AS shared,
            first_value(texts) OVER best AS best_texts,
            first_value(version) OVER best AS best_version,
            first_value(owner) OVER best AS best_owner
        FROM ranked
        WINDOW everyone AS (PARTITION BY doc_id),
            best AS (PARTITION BY doc_id ORDER BY version DESC NULLS LAST, deleted DESC NULLS LAST, rank DESC,
                partition DESC NULLS LAST, removed DESC, staged DESC)
        """,
        staged=read.staged,
        removed=read.removed,
        chunks=read.chunks,
        removals=read.removals,
        covered=read.covered,
        certain=read.certain,
        protected=read.protected,
        order=read.frames.local(_ORDER, order),
    )


def winning(read: Read, claims: Frame) -> Frame:
    """Chunks (CHUNK) of ``staged`` whose partition owns their document; ``claims`` as of ``rank_owners``."""
    return read.frames.sql(
        f"""
        SELECT {columns(CHUNK.names, "s")} FROM {{staged}} s
        SEMI JOIN (SELECT * FROM {{claims}} WHERE place = 1 AND staged AND NOT removed) c
        ON s.doc_id = c.doc_id AND {equal(_OWNER, "s", "c")} AND s.version = c.version
        """,
        staged=read.staged,
        claims=claims,
    )


def decided_by(read: Read, winners: Frame, claims: Frame) -> Frame:
    """Documents (doc_id) that a text or an event decided, so that nothing is held back of them.

    Those of ``winners``, and those whose newest event is that they were deleted or emptied.
    """
    return read.frames.sql(
        "SELECT doc_id FROM {winners} UNION SELECT doc_id FROM {claims} WHERE place = 1 AND removed",
        winners=winners,
        claims=claims,
    )


def overlapping(read: Read, claims: Frame) -> Frame:
    """Pairs of partitions that hold one document: source_id, partition, other."""
    return read.frames.sql(
        """
        SELECT DISTINCT a.source_id, a.partition, concat_ws(chr(0), b.source_id, b.partition) AS other
        FROM {claims} a JOIN {claims} b ON a.doc_id = b.doc_id
        WHERE a.shared AND b.shared AND (a.source_id <> b.source_id OR a.partition <> b.partition)
        """,
        claims=claims,
    )


def losing(read: Read, claims: Frame) -> Frame:
    """Claims that another one wins, as new as theirs and with another text: read now, or owners until now.

    Columns are those of ``rank_owners``.
    """
    return read.frames.sql(
        """
        SELECT * FROM {claims} WHERE place > 1 AND texts <> best_texts AND version = best_version
        AND concat_ws(chr(0), source_id, partition) <> best_owner
        """,
        claims=claims,
    )


def new_chunks(read: Read, winners: Frame) -> Frame:
    """Chunks (CHUNK) of ``winners`` that are not in the state's ``chunks``."""
    return read.frames.sql(
        f"""
        SELECT {columns(CHUNK.names, "w")} FROM {{winners}} w
        ANTI JOIN {{chunks}} c ON w.team_id = c.team_id AND w.chunk_id = c.chunk_id
        """,
        winners=winners,
        chunks=read.chunks,
    )


def changed_chunks(read: Read, winners: Frame, decided: Frame) -> Frame:
    """Chunks of the state to update, and (with ``_delete``) to remove.

    Removed are chunks whose partition is covered and which were not found, those past the end of a document that was
    read and is now shorter, and those of documents that were taken away, wherever they lie (``decided``: doc_id).
    Protected documents stay, unless a reading of theirs or an event won.

    Columns are CHUNK and ``_delete`` (boolean).
    """
    differs = " OR ".join(f"w.{column} <> c.{column}" for column in _WATCHED)
    return read.frames.sql(
        f"""
        WITH kept AS (SELECT DISTINCT p.doc_id FROM {{protected}} p ANTI JOIN {{decided}} d ON p.doc_id = d.doc_id),
        missing AS (
            SELECT c.team_id, c.chunk_id FROM {{chunks}} c
            LEFT JOIN {{covered}} v ON {equal(_OWNER, "c", "v")}
            LEFT JOIN {{decided}} d ON c.doc_id = d.doc_id
            ANTI JOIN {{winners}} w ON c.chunk_id = w.chunk_id
            ANTI JOIN kept k ON c.doc_id = k.doc_id
            WHERE v.source_id IS NOT NULL OR d.doc_id IS NOT NULL)
        SELECT {columns(CHUNK.names, "w")}, FALSE AS _delete FROM {{winners}} w
        JOIN {{chunks}} c ON w.team_id = c.team_id AND w.chunk_id = c.chunk_id WHERE {differs}
        UNION ALL
        SELECT {columns(CHUNK.names)}, FALSE AS _delete FROM {{handed}}
        UNION ALL
        SELECT {columns(CHUNK.names, "r")}, TRUE AS _delete FROM {{chunks}} r
        SEMI JOIN missing m ON {equal(CHUNK_KEY.names, "r", "m")}
        """,
        protected=read.protected,
        decided=decided,
        chunks=read.chunks,
        covered=read.covered,
        winners=winners,
        handed=_handed_on(read, decided),
    )


def handed_on(read: Read, decided: Frame) -> Frame:
    """Partitions (source_id, partition) that own a document from now on because they alone have it, unreadable."""
    return read.frames.sql("SELECT DISTINCT source_id, partition FROM {handed}", handed=_handed_on(read, decided))


def _handed_on(read: Read, decided: Frame) -> Frame:
    """Chunks whose partition let go of them while another one has their document, unreadable: from now on it owns them.

    Otherwise no run would look for them again, and they would never be deleted.
    """
    owner = {"source_id": "n.source_id", "partition": "n.partition"}
    names = ", ".join(f"{owner.get(name, f'c.{name}')} AS {name}" for name in CHUNK.names)
    return read.frames.sql(
        f"""
        WITH kept AS (SELECT {columns(("doc_id", "source_id", "partition"), "p")} FROM {{protected}} p
            ANTI JOIN {{decided}} d ON p.doc_id = d.doc_id),
        ordered AS (SELECT doc_id, source_id, partition,
            row_number() OVER (PARTITION BY doc_id ORDER BY source_id DESC, partition DESC) AS place FROM kept)
        SELECT {names} FROM {{chunks}} c
        SEMI JOIN {{covered}} v ON {equal(_OWNER, "c", "v")}
        ANTI JOIN kept k ON c.doc_id = k.doc_id AND {equal(_OWNER, "c", "k")}
        JOIN ordered n ON c.doc_id = n.doc_id AND n.place = 1
        """,
        protected=read.protected,
        decided=decided,
        chunks=read.chunks,
        covered=read.covered,
    )


def changed_removals(read: Read) -> Frame:
    """Rows of ``removals`` to write, and (with ``_delete``) to remove: those of covered partitions that are no more.

    Columns are REMOVALS and ``_delete`` (boolean).
    """
    key = ("doc_id", *_OWNER)
    stronger = "(n.version > b.version OR n.version = b.version AND n.deleted AND NOT b.deleted)"
    other = "(n.version <> b.version OR n.deleted <> b.deleted)"
    return read.frames.sql(
        f"""
        WITH ordered AS (SELECT {columns(REMOVALS.names)},
            row_number() OVER (PARTITION BY doc_id, source_id, partition
                ORDER BY version DESC NULLS LAST, deleted DESC NULLS LAST) AS place FROM {{removed}}),
        now AS (SELECT {columns(REMOVALS.names)} FROM ordered WHERE place = 1)
        SELECT {columns(REMOVALS.names, "n")}, FALSE AS _delete FROM now n
        LEFT JOIN {{removals}} b ON {equal(key, "n", "b")}
        LEFT JOIN {{certain}} c ON {equal(_OWNER, "n", "c")}
        WHERE b.doc_id IS NULL OR {stronger} OR {other} AND c.source_id IS NOT NULL
        UNION ALL
        SELECT {columns(REMOVALS.names, "b")}, TRUE AS _delete FROM {{removals}} b
        SEMI JOIN {{certain}} c ON {equal(_OWNER, "b", "c")}
        ANTI JOIN now n ON {equal(key, "b", "n")}
        ANTI JOIN {{protected}} p ON {equal(key, "b", "p")}
        """,
        removed=read.removed,
        removals=read.removals,
        certain=read.certain,
        protected=read.protected,
    )


def staying(read: Read, holding: Frame, named: Frame, decided: Frame) -> Frame:
    """Documents that stay although their partition was read and does not show them.

    ``holding`` (source_id, partition, anything, listed, reason) are partitions that hold back what they own: all that
    is missing where ``anything``, else the ``named`` (source_id, partition, doc_id, named_reason, waits). One row a
    partition and reason: the number of documents, ``ids`` where it is single documents that are held, and in
    ``waiting`` those of them that wait for a suspect to go (``listed``).
    """
    return read.frames.sql(
        f"""
        WITH owned AS (
            SELECT DISTINCT c.doc_id, c.source_id, c.partition, h.anything, h.listed, h.reason
            FROM {{chunks}} c JOIN {{holding}} h ON {equal(_OWNER, "c", "h")}),
        held AS (
            SELECT o.doc_id, o.source_id, o.partition, coalesce(n.named_reason, o.reason) AS why,
                n.named_reason IS NOT NULL OR o.listed AS single, coalesce(n.waits, o.listed) AS waits
            FROM owned o ANTI JOIN {{decided}} d ON o.doc_id = d.doc_id
            LEFT JOIN {{named}} n ON o.doc_id = n.doc_id AND {equal(_OWNER, "o", "n")}
            WHERE o.anything OR n.named_reason IS NOT NULL)
        SELECT source_id, partition, why, count(*) AS documents,
            collect_list(CASE WHEN single THEN doc_id END) AS ids,
            collect_list(CASE WHEN waits THEN doc_id END) AS waiting
        FROM held GROUP BY source_id, partition, why
        """,
        chunks=read.chunks,
        holding=holding,
        named=named,
        decided=decided,
    )
