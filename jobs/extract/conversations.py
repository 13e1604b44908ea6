"""Conversations: what was said in one place one after another, as documents of kind ``thread`` beside the messages.

A conversation is a part of a group: the replies of a thread with the message that began it, or what else was said in a
channel on a day (UTC). They are made of the messages in ``chunks``, after it was decided which of them count, and
only those of groups that a run has touched: what is far away stays, and what another run reads is not needed.

Where one ends depends on the messages near by alone. A message begins a new one after a long gap, or where the hash of
its id is the least of the ``RADIUS`` messages before and behind it. So a message that comes, goes or changes moves no
border but its own neighbours'.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding import ids
from embedding.chunking import Chunker
from embedding.records import CHUNK, Document
from embedding.text.language import languages_of
from indexers.rows import MAX_MENTIONS
from jobs.extract.cutting import LABEL, Chunking, Piece, chunk_row
from jobs.state.among import Among
from jobs.state.frames import Frame, Frames, columns, equal
from jobs.state.pieces import group_starts
from jobs.state.tables import CHUNK_KEY, CONVERSATIONS
from jobs.telemetry.error_reporting import without_messages

if TYPE_CHECKING:
    from jobs.state.store import State

_FEW_GROUPS = 20_000  # whose messages are read once for all questions
RADIUS = 3  # conversations of 4 to some 8 messages
GAP = 4 * 3600 * 1_000_000  # µs
_SAID = "kind = 'message' AND chunk_no = 0 AND channel_id != ''"
_KEY = ("team_id", "group_id")
_WATCHED = ("content_hash", "meta_hash", "version")
# The group_id of a message: its thread's, the channel's on its day, and the thread's that it may have begun.
_THREAD = "concat_ws(chr(0), channel_id, thread_id)"
_DAY = "concat_ws(chr(0), channel_id, CAST(CAST(floor(created_at / 86400000000) AS BIGINT) AS STRING))"
_BEGUN = "concat_ws(chr(0), channel_id, doc_id)"
_UNKNOWN = ("thread_id", "context", "visibility")  # to rows of an earlier version
_TAKEN = (
    "team_id",
    "channel_id",
    "channel_name",
    "doc_id",
    "thread_id",
    "created_at",
    "updated_at",
    "version",
    "visibility",
    "context",
    "text",
    "tokens",
    "author",
    "mentions",
    "has_file",
    "language",
)
MESSAGE = pa.schema([pa.field("group_id", pa.string()), *[CHUNK.field(name).with_nullable(True) for name in _TAKEN]])


def touched_groups(frames: Frames, messages: Frame) -> Frame:
    """Groups (team_id, group_id) that chunks (CHUNK) are in, and those of the threads that they may have begun."""
    return frames.sql("SELECT DISTINCT team_id, group_id FROM {grouped}", grouped=_grouped(frames, messages))


def messages_of(frames: Frames, chunks: Frame, groups: Frame) -> Frame:
    """The messages (MESSAGE) of some groups (team_id, group_id); what may have begun a thread is in its group too."""
    return frames.sql(
        f"SELECT {columns(MESSAGE.names, 'm')} FROM {{grouped}} m "
        "SEMI JOIN {groups} g ON m.team_id = g.team_id AND m.group_id = g.group_id",
        grouped=_grouped(frames, chunks),
        groups=groups,
    )


def _grouped(frames: Frames, chunks: Frame) -> Frame:
    """The messages (MESSAGE) among chunks (CHUNK), once for each group that they are in.

    What an earlier version did not know of them is empty.
    """
    known = ", ".join(f"coalesce({name}, '') AS {name}" if name in _UNKNOWN else name for name in _TAKEN)
    names = columns(_TAKEN)
    return frames.sql(
        f"""
        WITH said AS (SELECT {known} FROM {{chunks}} WHERE {_SAID})
        SELECT {_THREAD} AS group_id, {names} FROM said WHERE thread_id <> ''
        UNION ALL
        SELECT {_DAY} AS group_id, {names} FROM said WHERE thread_id = ''
        UNION ALL
        SELECT {_BEGUN} AS group_id, {names} FROM said WHERE thread_id = ''
        """,
        chunks=chunks,
    )


@dataclass(frozen=True, slots=True)
class Commit:
    """What a commit changes of the messages in ``chunks``, and what was read: chunks (CHUNK).

    ``changed`` has ``_delete`` too, ``new`` was not there. ``unsure`` is what else may be in a conversation that is not
    right. ``chunks`` of the state are those of the same documents, at least.
    """

    state: State
    chunks: Frame
    unsure: Frame
    new: Frame
    changed: Frame


@contextmanager
def changed_conversations(frames: Frames, commit: Commit, chunking: Chunking) -> Iterator[tuple[Frame, Frame]]:
    """Within the block, conversations that a commit makes: new (CHUNK) and changed (CHUNK and ``_delete``)."""
    names = columns(CHUNK.names)
    key = CHUNK_KEY.names
    looked_at = frames.sql(
        f"SELECT {names} FROM {{unsure}} UNION ALL SELECT {names} FROM {{new}} UNION ALL "
        f"SELECT {names} FROM {{changed}} UNION ALL "
        f"SELECT {columns(CHUNK.names, 'c')} FROM {{chunks}} c SEMI JOIN {{changed}} k ON {equal(key, 'c', 'k')}",
        unsure=commit.unsure,
        new=commit.new,
        changed=commit.changed,
        chunks=commit.chunks,
    )
    with (
        frames.keep(touched_groups(frames, looked_at)) as groups,
        _in_groups(frames, _of_channels(frames, commit.state, looked_at), groups) as chunks,
    ):
        now = frames.sql(
            f"SELECT {columns(CHUNK.names, 'c')} FROM {{chunks}} c ANTI JOIN {{changed}} k ON {equal(key, 'c', 'k')} "
            f"UNION ALL SELECT {names} FROM {{new}} UNION ALL SELECT {names} FROM {{changed}} WHERE NOT _delete",
            chunks=chunks,
            changed=commit.changed,
            new=commit.new,
        )
        made = build_conversations(frames, messages_of(frames, now, groups), chunking)
        held = frames.sql(
            f"SELECT {columns(CHUNK.names, 'c')} FROM {{chunks}} c "
            "SEMI JOIN {groups} g ON c.team_id = g.team_id AND c.partition = g.group_id WHERE c.kind = 'thread'",
            chunks=chunks,
            groups=groups,
        )
        with frames.keep(made) as desired:
            new = frames.sql(
                f"SELECT {columns(CHUNK.names, 'd')} FROM {{desired}} d ANTI JOIN {{held}} h ON {equal(key, 'd', 'h')}",
                desired=desired,
                held=held,
            )
            differs = " OR ".join(f"d.{name} <> h.{name}" for name in _WATCHED)
            altered = frames.sql(
                f"SELECT {columns(CHUNK.names, 'd')}, FALSE AS _delete FROM {{desired}} d "
                f"JOIN {{held}} h ON {equal(key, 'd', 'h')} WHERE {differs} "
                f"UNION ALL SELECT {columns(CHUNK.names, 'h')}, TRUE AS _delete FROM {{held}} h "
                f"ANTI JOIN {{desired}} d ON {equal(key, 'h', 'd')}",
                desired=desired,
                held=held,
            )
            yield new, altered


@contextmanager
def _in_groups(frames: Frames, chunks: Frame, groups: Frame) -> Iterator[Frame]:
    """Of chunks (CHUNK) at least the messages and the conversations of some groups (team_id, group_id).

    Those of few groups are read once, and kept within the block.
    """
    found = frames.collect(frames.sql("SELECT count(*) AS found FROM {groups}", groups=groups))
    if found["found"][0].as_py() > _FEW_GROUPS:
        yield chunks
        return
    ours = (_THREAD, _DAY, _BEGUN, "partition")  # a conversation's partition is its group
    any_of = " OR ".join(f"concat_ws(chr(0), team_id, {of}) IN (SELECT id FROM {{ids}})" for of in ours)
    ids = frames.sql("SELECT concat_ws(chr(0), team_id, group_id) AS id FROM {groups}", groups=groups)
    rows = frames.sql(f"SELECT {columns(CHUNK.names)} FROM {{chunks}} WHERE {any_of}", chunks=chunks, ids=ids)
    with frames.keep(rows) as kept:
        yield kept


def _of_channels(frames: Frames, state: State, messages: Frame) -> Frame:
    """The ``chunks`` of the teams and channels that messages (CHUNK) were said in, and some others."""
    said = frames.sql(f"SELECT DISTINCT team_id, channel_id FROM {{messages}} WHERE {_SAID}", messages=messages)
    named = frames.collect(said)
    if not len(named):
        return frames.local(CHUNK, [])
    among = Among.rows(named, "channel_id")
    return frames.table(state, "chunks", teams=among.teams, wanted=among.wanted)


def build_conversations(frames: Frames, messages: Frame, chunking: Chunking) -> Frame:
    """The conversations (CHUNK) of messages (MESSAGE) of whole groups."""
    return frames.map(messages, partial(_build, chunking), CHUNK, by=_KEY, order=("created_at", "doc_id"))


def _build(chunking: Chunking, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """For ``Frames.map``: MESSAGE rows in, sorted by team, group and time; conversations (CHUNK) out."""
    with without_messages():
        chunker = chunking.chunker()
        rest = MESSAGE.empty_table()
        for batch in batches:
            rows = pa.concat_tables([rest, pa.Table.from_batches([batch]).cast(MESSAGE)])
            starts = group_starts(rows, _KEY)
            last = int(starts[-1]) if len(starts) else 0
            rest = rows.slice(last)  # the last group may go on in the next batch
            yield from conversations(rows.slice(0, last), chunker, chunking).to_batches()
        yield from conversations(rest, chunker, chunking).to_batches()


def conversations(rows: pa.Table, chunker: Chunker, chunking: Chunking) -> pa.Table:
    """The conversations (CHUNK) of whole groups of messages (MESSAGE), sorted by team, group and time."""
    rows = _without_lone_beginnings(rows)
    if not len(rows):
        return CHUNK.empty_table()
    own = rows["tokens"].to_numpy() - chunker.added + 1  # and one for the line that each begins
    cuts = _cuts(rows, own, chunking.limits.max_tokens - chunker.added)
    lines = rows["text"].to_pylist()
    shown = rows.drop_columns(["text", "tokens"]).to_pylist()
    ends = [*cuts[1:].tolist(), len(rows)]
    texts = ["\n".join(lines[start:end]) for start, end in zip(cuts.tolist(), ends, strict=True)]
    alone = rows["tokens"].take(pa.array(cuts)).to_pylist()
    # One span, but for words that take more tokens side by side than each alone.
    spans = [of_text[0] for of_text in chunker.split_batch(texts)]
    texts = [text[: span.end] for text, span in zip(texts, spans, strict=True)]
    said = [shown[start:end] for start, end in zip(cuts.tolist(), ends, strict=True)]
    tokens = [span.tokens if len(one) > 1 else own for one, span, own in zip(said, spans, alone, strict=True)]
    made = zip(said, texts, tokens, _languages(said, texts), strict=True)
    found = [_row(*conversation, chunking) for conversation in made]
    return pa.Table.from_pydict(dict(zip(CHUNK.names, map(list, zip(*found, strict=True)), strict=True)), schema=CHUNK)


def _without_lone_beginnings(rows: pa.Table) -> pa.Table:
    """Whole groups (MESSAGE), without those of threads that no message replied in."""
    rows = rows.combine_chunks()
    if not len(rows):
        return rows
    starts = group_starts(rows, _KEY)
    replies = pc.not_equal(rows["thread_id"], "").to_numpy()
    of_thread = pc.equal(
        rows["group_id"], pc.binary_join_element_wise(rows["channel_id"], rows["doc_id"], "\0")
    ).to_numpy()
    lone = np.logical_and.reduceat(of_thread, starts) & ~np.logical_or.reduceat(replies, starts)
    sizes = np.diff(np.append(starts, len(rows)))
    return rows.filter(pa.array(np.repeat(~lone, sizes))).combine_chunks()


def _row(
    said: Sequence[dict[str, Any]], text: str, tokens: int, language: str, chunking: Chunking
) -> tuple[object, ...]:
    first = said[0]
    document = Document(
        doc_id=ids.conversation_id(first["team_id"], first["channel_id"], first["group_id"], first["doc_id"]),
        team_id=first["team_id"],
        channel_id=first["channel_id"],
        channel_name=first["channel_name"],
        kind="thread",
        created_at=first["created_at"],
        updated_at=max(one["updated_at"] for one in said),
        version=max(one["version"] for one in said),
        text=text,
        thread_id=said[-1]["thread_id"] or "",
        author=", ".join(dict.fromkeys(one["author"] for one in said if one["author"]))[:LABEL],
        visibility=first["visibility"] or "private",
        mentions=tuple(sorted({person for one in said for person in one["mentions"] or ()})[:MAX_MENTIONS]),
        has_file=any(one["has_file"] for one in said),
    )
    meta = ids.dump_meta({"messages": [one["doc_id"] for one in said]})
    # Of one message it is encoded as that is, and has its vector; of more, names would be most of a short text.
    context = first["context"] if len(said) == 1 else ""
    piece = Piece(0, text, meta, context, tokens, language)
    return chunk_row(document, piece, (CONVERSATIONS, first["group_id"]), chunking)


def _languages(said: Sequence[Sequence[dict[str, Any]]], texts: Sequence[str]) -> list[str]:
    """Those of most messages, of two the first; where each is too short to tell, those of the whole texts."""
    told = [Counter(one["language"] for one in messages if one["language"]).most_common(1) for messages in said]
    untold = iter(languages_of([text for text, found in zip(texts, told, strict=True) if not found]))
    return [str(found[0][0]) if found else next(untold) for found in told]


def _cuts(rows: pa.Table, tokens: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """Places of the rows that begin a conversation; none has more than ``most`` tokens, but of one message."""
    count = len(rows)
    begins = np.zeros(count, bool)
    begins[group_starts(rows, _KEY)] = True
    created = rows["created_at"].to_numpy()
    in_thread = pc.not_equal(pc.fill_null(rows["thread_id"], ""), "").to_numpy()
    begins[1:] |= (np.diff(created) > GAP) & ~in_thread[1:]
    run = np.cumsum(begins)
    digests = np.array([ids.border_hash(doc) for doc in rows["doc_id"].to_pylist()], np.uint64)
    least = np.arange(count) - np.flatnonzero(begins)[run - 1] > RADIUS
    for offset in range(1, RADIUS + 1):
        lower = (digests[offset:] < digests[:-offset]) & (run[offset:] == run[:-offset])
        higher = (digests[offset:] >= digests[:-offset]) & (run[offset:] == run[:-offset])
        least[offset:] &= ~higher
        least[:-offset] &= ~lower
    cuts = np.flatnonzero(begins | least)
    return _fitting(cuts, tokens, most)


def _fitting(cuts: npt.NDArray[np.int64], tokens: npt.NDArray[np.int64], most: int) -> npt.NDArray[np.int64]:
    """The cuts, and more of them where what lies between two is longer than ``most`` tokens."""
    ends = np.append(cuts[1:], len(tokens))
    long = np.add.reduceat(tokens, cuts) > most
    more: list[int] = []
    for start, end in zip(cuts[long].tolist(), ends[long].tolist(), strict=True):
        held = 0
        for row in range(start, end):
            if held and held + tokens[row] > most:
                more.append(row)
                held = 0
            held += int(tokens[row])
    return np.union1d(cuts, np.array(more, np.int64))
