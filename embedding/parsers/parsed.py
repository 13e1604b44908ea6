"""What a parsed file is, and how every parser builds one: blocks in, cleaned text and right offsets out.

Parsers never compute an offset themselves; they hand blocks to :class:`TextBuilder`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from embedding.errors import RejectedRecord
from embedding.parsers.tables import MERGED, table_lines
from embedding.records import Mark
from embedding.text.clean import clean_text

__all__ = ["MERGED", "Limits", "Meta", "ParsedFile", "TextBuilder", "table_lines"]

Meta = dict[str, str | int]

MAX_TITLE = 200


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that keep one hostile file from taking a worker with it."""

    text_characters: int = 20_000_000
    pdf_pages: int = 5_000
    unpacked_bytes: int = 512 * 1024 * 1024
    # Sheets full of zeros honestly compress 100 to 1; the ratio alone would reject them when they are small.
    unpacked_ratio: int = 200
    unpacked_ratio_from: int = 100 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ParsedFile:
    """A file's cleaned text with its structure.

    ``title`` is the document's own title where it has one, else the file's name without its ending.
    ``meta`` is JSON-able and small (counts, sheet names, mail addresses), never the document's text.
    """

    text: str
    marks: tuple[Mark, ...]
    media_type: str
    title: str
    meta: dict[str, object] = field(default_factory=dict)


class TextBuilder:
    """Joins cleaned blocks and records where each structural unit begins in the joined text."""

    def __init__(self, limits: Limits) -> None:
        """Start empty; ``limits`` bounds the text while it grows, not only when it is done."""
        self.limits = limits
        self._parts: list[str] = []
        self._length = 0
        self._marks: list[Mark] = []
        self._pending: Meta | None = None
        self._headings: list[tuple[int, str]] = []
        self.title = ""
        self.meta: dict[str, object] = {}

    def mark(self, meta: Meta) -> None:
        """Let ``meta`` be in force from the next block that has text."""
        self._pending = dict(meta)

    def add(self, block: str, separator: str = "\n\n") -> None:
        """Append a block; ``separator`` is a single newline between lines of one list or table.

        Raises RejectedRecord past the limit of characters.
        """
        cleaned = clean_text(block)
        if not cleaned:
            return
        if self._parts:
            self._parts.append(separator)
            self._length += len(separator)
        if self._pending is not None:
            if not self._marks or self._marks[-1].meta != self._pending:
                self._marks.append(Mark(self._length, self._pending))
            self._pending = None
        self._parts.append(cleaned)
        self._length += len(cleaned)
        if self._length > self.limits.text_characters:
            raise RejectedRecord("too_much_text", f"more than {self.limits.text_characters} characters")

    def lines(self, lines: Iterable[str]) -> None:
        """Append lines that belong together: a table, a list."""
        separator = "\n\n"
        for line in lines:
            before = self._length
            self.add(line, separator)
            if self._length > before:
                separator = "\n"

    def heading(self, level: int, text: str, block: str | None = None, extra: Meta | None = None) -> None:
        """Append a heading and mark the path to it; ``block`` is how it is written, where that differs."""
        flat = " ".join(clean_text(text).split())
        if not flat:
            return
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()
        self._headings.append((level, flat[:MAX_TITLE]))
        self.mark({**(extra or {}), "heading": " > ".join(name for _, name in self._headings)})
        if not self.title:
            self.title = flat
        self.add(block if block is not None else flat)

    def lose(self, what: str) -> None:
        """Count one part that could not be read (``what`` in plural); the rest of the file is kept."""
        key = f"unreadable_{what}"
        seen = self.meta.get(key, 0)
        self.meta[key] = seen + 1 if isinstance(seen, int) else 1

    def build(self, media_type: str, fallback_title: str) -> ParsedFile:
        """Return the finished file. Raises RejectedRecord for one without text, which no search could find."""
        if not self._parts:
            raise RejectedRecord("no_text", media_type)
        title = " ".join(clean_text(self.title).split())[:MAX_TITLE] or fallback_title
        return ParsedFile("".join(self._parts), tuple(self._marks), media_type, title, self.meta)
