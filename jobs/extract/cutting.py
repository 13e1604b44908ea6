"""Cuts documents into the rows of ``chunks``: text, what stands before it where it is encoded, and the two hashes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa

from embedding import ids
from embedding.chunking import Chunker, ChunkLimits, Span
from embedding.models.stored import StoredModel
from embedding.records import CHUNK, Document
from embedding.text.language import languages_of
from embedding.text.template import NO_CONTEXT, Template, date_words
from indexers.rows import MAX_MENTIONS

_ROOM = 8  # tokens: texts are cut by a context rounded up to these, and two are for where context and text meet
_MEETING = 2
LABEL = 200  # characters of an author's name, of a title
ROW_VERSION = "3"  # of what a row says of its document; raised, every partition is read again


@dataclass(frozen=True, slots=True)
class Chunking:
    """What an executor needs to cut and hash text. ``max_bytes``: the index's limits by column, in UTF-8 bytes.

    ``context`` stands before a text where it is encoded. ``conversations`` are made of the messages too. ``version`` is
    that of all that decides a row of ``chunks``, and ``shown`` that of what the index is given beside these rows.
    ``stored`` is where the model of ``tokenizer`` is copied from, on a machine that has none yet.
    """

    tokenizer: Path
    limits: ChunkLimits
    hash_key: bytes
    version: str
    max_bytes: Mapping[str, int]
    context: Template = NO_CONTEXT
    shown: str = ""
    conversations: bool = False
    stored: StoredModel | None = None

    def chunker(self) -> Chunker:
        """Open what cuts. Raises ResourceError where the tokenizer cannot be copied here."""
        if self.stored is not None:
            self.stored.fetch_file(self.tokenizer)
        return Chunker(self.tokenizer, self.limits)


class Piece(NamedTuple):
    """One chunk of a document. ``tokens`` are those of ``context`` and ``text`` together, specials included.

    ``language`` is an ISO 639-1 code, "" where it is unsure.
    """

    number: int
    text: str
    meta: str
    context: str
    tokens: int
    language: str = ""


class DocumentCutter:
    """Cuts documents with one tokenizer."""

    def __init__(self, chunking: Chunking) -> None:
        self._chunking = chunking
        self._chunker = chunking.chunker()
        self._narrowed = {0: self._chunker}
        self._contexts: dict[str, tuple[str, int]] = {"": ("", 0)}

    def cut(self, documents: Sequence[tuple[str, str, Document]]) -> tuple[pa.Table, list[int]]:
        """Chunks (CHUNK) of documents, each with its source_id and partition, and how many each was cut into."""
        documents = [(source, partition, _labelled(document)) for source, partition, document in documents]
        contexts = self._context([document for _, _, document in documents])
        cuts = self._cut([document.text for _, _, document in documents], [tokens for _, tokens in contexts])
        pieces = [
            [*_pieces(document, *context, spans)]
            for (_, _, document), context, spans in zip(documents, contexts, cuts, strict=True)
        ]
        columns: dict[str, list[object]] = {name: [] for name in CHUNK.names}
        for (source, partition, document), told in zip(documents, _told(documents, pieces), strict=True):
            for piece in told:
                row = chunk_row(document, piece, (source, partition), self._chunking)
                for column, value in zip(columns.values(), row, strict=True):
                    column.append(value)
        return pa.Table.from_pydict(columns, schema=CHUNK), [len(spans) for spans in cuts]

    def _context(self, documents: Sequence[Document]) -> list[tuple[str, int]]:
        """What stands before each document's texts, and its tokens."""
        template, rows = self._chunking.context, {}
        if "author" in template.fields:
            rows["author"] = pa.array([d.author for d in documents], pa.string())
        if "channel" in template.fields:
            rows["channel"] = pa.array([d.channel_name for d in documents], pa.string())
        if "title" in template.fields:
            rows["title"] = pa.array([d.title for d in documents], pa.string())
        if "date" in template.fields:
            rows["date"] = date_words(pa.array([d.created_at for d in documents], pa.int64()))
        rendered = template.render(rows, len(documents)).to_pylist()
        if len(self._contexts) > 100_000:  # a date in them: they do not come again
            self._contexts = {"": ("", 0)}
        for new in {*rendered}.difference(self._contexts):
            self._contexts[new] = self._chunker.fit_context(new)
        return [self._contexts[context] for context in rendered]

    def _cut(self, texts: Sequence[str], tokens: Sequence[int]) -> list[list[Span]]:
        """Spans of each text, beside which there is a context of so many tokens."""
        cuts: list[list[Span]] = [[] for _ in texts]
        rooms = [-(-(n + _MEETING) // _ROOM) * _ROOM if n else 0 for n in tokens]
        for room in sorted({*rooms}):
            rows = [row for row, of in enumerate(rooms) if of == room]
            if room not in self._narrowed:
                self._narrowed[room] = self._chunker.narrowed(min(room, self._chunking.limits.max_tokens // 2))
            for row, spans in zip(rows, self._narrowed[room].split_batch([texts[row] for row in rows]), strict=True):
                cuts[row] = spans
        return cuts


def _pieces(document: Document, context: str, tokens: int, spans: Sequence[Span]) -> Iterator[Piece]:
    """The chunks of a document, their languages not told yet."""
    meta, mark, marks = ids.dump_meta(document.meta), 0, document.marks
    for number, span in enumerate(spans):
        text = document.text[span.start : span.end]
        if marks:
            while mark + 1 < len(marks) and marks[mark + 1].start <= span.start:
                mark += 1
            inside = marks[mark].meta if marks[mark].start <= span.start else {}
            meta = ids.dump_meta({**document.meta, **inside})
        yield Piece(number, text, meta, context, span.tokens + tokens)


def _told(documents: Sequence[tuple[str, str, Document]], pieces: Sequence[list[Piece]]) -> Iterator[list[Piece]]:
    """The chunks of each document with their languages: the document's own, or that of the chunk's text."""
    unsaid = [
        piece.text
        for (_, _, document), of in zip(documents, pieces, strict=True)
        if not document.language
        for piece in of
    ]
    languages = dict(zip(unsaid, languages_of(unsaid), strict=True))
    for (_, _, document), of in zip(documents, pieces, strict=True):
        yield [piece._replace(language=document.language or languages[piece.text]) for piece in of]


def _labelled(document: Document) -> Document:
    """The document with names of a length, and mentions of a number, that every index takes: they are no keys."""
    author, title, mentions = document.author[:LABEL], document.title[:LABEL], document.mentions[:MAX_MENTIONS]
    if (author, title, mentions) == (document.author, document.title, document.mentions):
        return document
    return replace(document, author=author, title=title, mentions=mentions)


def chunk_row(document: Document, piece: Piece, place: tuple[str, str], chunking: Chunking) -> tuple[object, ...]:
    """A row of CHUNK, in its order; ``place`` is source_id and partition."""
    shown = (
        document.doc_id,
        piece.number,
        document.channel_id,
        document.channel_name,
        document.kind,
        document.created_at,
        document.updated_at,
        piece.meta,
        document.author,
        document.author_id,
        document.thread_id,
        document.title,
        document.visibility,
        list(document.mentions),
        document.has_file,
        piece.language,
        chunking.shown,
    )
    return (
        ids.chunk_id(document.doc_id, piece.number),
        document.doc_id,
        piece.number,
        document.team_id,
        document.channel_id,
        document.channel_name,
        document.kind,
        document.created_at,
        document.updated_at,
        piece.text,
        piece.meta,
        piece.tokens,
        ids.content_hash(chunking.hash_key, document.team_id, piece.context + piece.text),
        ids.meta_hash(shown),
        document.version,
        *place,
        document.author,
        document.author_id,
        document.thread_id,
        document.title,
        document.visibility,
        piece.context,
        ids.content_hash(chunking.hash_key, document.team_id, piece.text),
        list(document.mentions),
        document.has_file,
        piece.language,
    )
