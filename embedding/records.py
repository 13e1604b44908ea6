"""The frozen records and Arrow schemas that pass between steps. Defined here once, used by both sides.

Times are integers: microseconds since the epoch, UTC.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

Kind = Literal["message", "file", "thread"]  # a thread is a conversation: messages of one channel, one after another
Metric = Literal["cosine", "dot"]  # how vectors of a space are compared; dot counts their lengths too
Visibility = Literal["public", "private", "direct", "shared"]


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a structural unit begins in a document's text, and what it is.

    ``start`` is a character offset; ``meta`` is small and JSON-able, e.g. ``{"page": 3}``,
    ``{"heading": "Install > Linux"}``, ``{"sheet": "Q3"}``, ``{"slide": 2}``. A mark is in force until the next.
    """

    start: int
    meta: dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Document:
    """One message, file or table row with its normalised text, ready to be chunked.

    ``version`` orders two readings of one document: edit time, else creation time (µs).
    ``refs`` are the user and channel ids whose display names went into the text or metadata. ``author`` is a display
    name; ``thread_id`` the document that began the thread that it replies in. Each is "" where there is none.
    ``mentions`` are ids of the people whom it names; ``has_file``: a file came with it. ``language`` is what the
    source says (ISO 639-1); of "" it is told by the text.
    """

    doc_id: str
    team_id: str
    channel_id: str
    channel_name: str
    kind: Kind
    created_at: int
    updated_at: int
    version: int
    text: str
    meta: dict[str, object] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    refs: frozenset[str] = frozenset()
    author: str = ""
    author_id: str = ""
    thread_id: str = ""
    title: str = ""
    visibility: Visibility = "public"
    mentions: tuple[str, ...] = ()
    has_file: bool = False
    language: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """One record that cannot be processed: becomes a row of ``quarantine``. Holds no text beyond an id.

    ``key`` is unique in its source partition (a message's ts or position, a file's path, or "" for the
    partition as a whole). ``retry`` is true where another try on the same bytes may succeed (no
    permission, I/O error). ``whole`` is true where the partition could not be read to its end, so that
    nothing may be concluded from what is absent. ``doc_id`` names the document, where that is known, so that what is
    published of it stays. Where it is not known, ``digest`` tells this record from others (hex, of its own bytes): one
    that was there before cannot be a document that is missing now. ``ignored`` is true where nothing is wrong with the
    record and embedmill has no use for its kind (a picture): it is counted by itself, fails no run and protects
    nothing.
    """

    key: str
    reason: str
    detail: str = ""
    channel_id: str = ""
    created_at: int | None = None
    retry: bool = False
    whole: bool = False
    doc_id: str = ""
    digest: str = ""
    ignored: bool = False


@dataclass(frozen=True, slots=True)
class Removed:
    """An event that takes a document away: it was deleted, or its newest version has no text left.

    It competes with every reading of the document, in whatever partition, by ``version`` (µs). Of two events with one
    version a ``deleted`` one wins over any text; one that was only emptied (``deleted`` false) ranks like a text.
    ``reason`` is what it is counted under: "deleted", "empty_text".
    """

    doc_id: str
    team_id: str
    channel_id: str
    kind: Kind
    created_at: int
    version: int
    reason: str
    deleted: bool = True


@dataclass(frozen=True, slots=True)
class Skipped:
    """Records dropped on purpose (housekeeping, duplicates), counted by reason."""

    reason: str
    count: int = 1


Record = Document | Rejected | Removed | Skipped  # what a source yields


CHUNK = pa.schema(
    [
        pa.field("chunk_id", pa.string(), nullable=False),
        pa.field("doc_id", pa.string(), nullable=False),
        pa.field("chunk_no", pa.int32(), nullable=False),
        pa.field("team_id", pa.string(), nullable=False),
        pa.field("channel_id", pa.string(), nullable=False),
        pa.field("channel_name", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("created_at", pa.int64(), nullable=False),
        pa.field("updated_at", pa.int64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("meta", pa.string(), nullable=False),  # JSON object
        pa.field("tokens", pa.int32(), nullable=False),  # of what is encoded, special tokens included
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("meta_hash", pa.string(), nullable=False),
        pa.field("version", pa.int64(), nullable=False),
        pa.field("source_id", pa.string(), nullable=False),
        pa.field("partition", pa.string(), nullable=False),
        pa.field("author", pa.string(), nullable=False),
        pa.field("author_id", pa.string(), nullable=False),
        pa.field("thread_id", pa.string(), nullable=False),  # doc_id of the thread's first message
        pa.field("title", pa.string(), nullable=False),
        pa.field("visibility", pa.string(), nullable=False),
        pa.field("context", pa.string(), nullable=False),  # stands before the text where it is encoded
        pa.field("text_hash", pa.string(), nullable=False),  # as content_hash, of the text alone
        pa.field("mentions", pa.list_(pa.string()), nullable=False),  # ids of people, sorted
        pa.field("has_file", pa.bool_(), nullable=False),
        pa.field("language", pa.string(), nullable=False),  # ISO 639-1, "" where it is unsure
    ]
)
