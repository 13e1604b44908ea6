r"""RTF to text: body, tables, then headers, footnotes and comments. Reads no picture and no embedded object.

A reader of our own: striprtf stops at ``\bin`` without a number and gives up headers, footnotes and emoji.
"""

from __future__ import annotations

import dataclasses
import re

from embedding.parsers.parsed import Limits, TextBuilder, table_lines
from embedding.parsers.rtf_words import (
    CHARACTERS,
    CHARSETS,
    DOCUMENT_CODECS,
    OPTIONAL_TEXT,
    PARAGRAPH_ENDS,
    SIDE,
    SKIPPED,
    SYMBOLS,
    code_page,
)

_TOKEN = re.compile(
    rb"\\(?:([a-zA-Z]{1,32})(-?\d{1,10})? ?|'([0-9a-fA-F]{2})|(.))|([{}])|[\r\n]+|([^\\{}\r\n]+)", re.DOTALL
)


@dataclasses.dataclass(slots=True)
class _Group:
    """What a group hands down to the groups inside it."""

    story: str = ""  # "" is the body
    skip: bool = False
    optional: bool = False  # "\*" stood before the next control word
    codec: str = ""  # of the font in force; "" is the document's
    fallback: int = 1  # characters after a \u that stand for it in old readers
    deleted: bool = False


def parse_rtf(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write paragraphs and tables in order, then headers, footers, notes and comments, each once."""
    _Reader(data, out).read()


class _Reader:
    def __init__(self, data: bytes, out: TextBuilder) -> None:
        self._data = data
        self._out = out
        self._document_codec = "cp1252"
        self._fonts: dict[int, str] = {}
        self._font = 0  # the one that is being defined
        self._group = _Group()
        self._stack: list[_Group] = []
        self._bytes = bytearray()
        self._parts: dict[str, list[str]] = {"": []}
        self._skip_characters = 0
        self._level = 0
        self._in_table = False
        self._row: list[str] = []
        self._rows: list[list[str]] = []

    def read(self) -> None:
        position, end, begins = 0, len(self._data), False
        while position < end:
            token = _TOKEN.match(self._data, position)
            if token is None:  # a backslash at the very end
                break
            opened, begins = begins, token[5] == b"{"
            position = token.end()
            word, number, code, symbol, brace, text = token.groups()
            if brace:
                if not self._brace(brace):
                    break  # what stands behind the document's own group is none of it
            elif word == b"bin":
                # Raw bytes follow, braces among them; without a number there are none of them.
                position += max(0, int(number or 0))
            elif word:
                self._word(word, int(number) if number is not None else None)
            elif code:
                self._text(bytes([int(code, 16)]), 1)
            elif symbol is not None:
                self._symbol(symbol, opened)
            elif text:
                self._text(text, len(text))
        self._flush()
        self._end_paragraph()
        self._end_table()
        self._write_sides()

    def _brace(self, brace: bytes) -> bool:
        """Begin or end a group; False where that ended the document."""
        self._flush()
        if brace == b"{":
            self._stack.append(self._group)
            self._group = dataclasses.replace(self._group, optional=False)
            self._skip_characters = 0
        elif self._stack:
            self._close(self._stack.pop())
        return bool(self._stack)

    def _close(self, outer: _Group) -> None:
        inner, self._group = self._group, outer
        self._skip_characters = 0
        if inner.story != outer.story and inner.story not in ("", "fonts", "name", "value"):
            self._parts.setdefault(inner.story, []).append("\n")

    def _word(self, word: bytes, number: int | None) -> None:
        group = self._group
        optional, group.optional = group.optional, False
        if optional and word not in OPTIONAL_TEXT:
            group.skip = True
        elif self._destination(word, group):
            return
        elif group.story == "fonts":
            self._define_font(word, number)
        elif word == b"u" and number is not None:
            self._flush()
            self._skip_characters = group.fallback
            if not group.skip:
                self._add(chr(number & 0xFFFF))
        elif word in CHARACTERS:
            self._character(CHARACTERS[word])
        elif word in PARAGRAPH_ENDS or word in (b"cell", b"row", b"nestcell", b"nestrow"):
            self._flush()
            if not group.skip and not group.story:
                self._structure(word)
            elif not group.skip:
                self._add("\n")
        else:
            self._set(word, number, group)

    def _destination(self, word: bytes, group: _Group) -> bool:
        """Whether the word begins text of another kind; the group is told of it."""
        if word in SIDE:
            group.story, group.skip, group.fallback = SIDE[word], group.deleted, 1
        elif word == b"fonttbl":
            group.story, group.skip = "fonts", False
        elif word == b"title" and group.skip:
            group.story, group.skip = "title", False
        elif word == b"sn":
            group.story, group.skip = "name", False
            self._parts["name"] = []
        elif word == b"sv" and "".join(self._parts.get("name", [])).strip() == "wzDescription":
            group.story, group.skip = "pictures", False
        elif word in (b"ud", b"shptxt", b"shpinst", b"picprop"):
            group.skip = word == b"picprop" or group.deleted
        elif word in (b"listtext", b"pntext"):
            group.skip = True
            self._add("- ") if not group.story else None
        elif word in SKIPPED or (word.startswith(b"m") and word.endswith(b"Pr")):
            group.skip = True
        else:
            return False
        self._flush()
        return True

    def _define_font(self, word: bytes, number: int | None) -> None:
        if word == b"f":
            self._font = number or 0
        elif word == b"fcharset" and number in CHARSETS:
            self._fonts[self._font] = CHARSETS[number]
        elif word == b"cpg":
            self._fonts[self._font] = code_page(number)

    def _set(self, word: bytes, number: int | None, group: _Group) -> None:
        """Follow the properties that text depends on."""
        if word in (b"f", b"plain", b"deff"):
            self._flush()
            group.codec = self._fonts.get(number or 0, "")
            if word == b"plain":
                group.deleted = False
        elif word == b"uc":
            group.fallback = max(0, number if number is not None else 1)
        elif word == b"ansicpg":
            self._document_codec = code_page(number)
        elif word in DOCUMENT_CODECS:
            self._document_codec = DOCUMENT_CODECS[word]
        elif word == b"deleted":
            self._flush()
            group.deleted = number != 0
        elif word == b"pard":
            self._in_table, self._level = False, 0
        elif word == b"intbl":
            self._in_table = True
        elif word == b"outlinelevel":
            self._level = number + 1 if number is not None and 0 <= number < 9 else 0

    def _symbol(self, symbol: bytes, opened: bool) -> None:
        """Take a control symbol; ``opened``: it is the first token of its group."""
        if symbol == b"*":
            self._group.optional = opened  # elsewhere it is a writer's slip and means nothing
        elif symbol in (b"\n", b"\r"):
            self._word(b"par", None)
        elif symbol in SYMBOLS:
            self._character(SYMBOLS[symbol])

    def _character(self, text: str) -> None:
        if self._skip_characters:
            self._skip_characters -= 1
        elif not self._group.skip:
            self._flush()
            self._add(text)

    def _text(self, text: bytes, length: int) -> None:
        if self._skip_characters:
            skipped = min(self._skip_characters, length)
            self._skip_characters -= skipped
            text = text[skipped:]
        if not self._group.skip and text:
            # Not decoded yet: the second byte of a character may come as a plain letter, or in the next code.
            self._bytes += text

    def _flush(self) -> None:
        if not self._bytes:
            return
        codec = self._group.codec or self._document_codec
        self._add(self._bytes.decode(codec, "replace"))
        self._bytes.clear()

    def _add(self, text: str) -> None:
        if not self._group.deleted and self._group.story != "fonts":
            self._parts.setdefault(self._group.story, []).append(text)

    def _structure(self, word: bytes) -> None:
        if word == b"row":
            self._rows.append(self._row)
            self._row = []
        elif word == b"cell":
            self._row.append(self._taken())
        elif word in (b"nestcell", b"nestrow") or self._in_table:
            self._add(" " if word == b"nestcell" else "\n")
        else:
            self._end_paragraph()

    def _taken(self) -> str:
        text = _joined(self._parts[""])
        self._parts[""] = []
        return text

    def _end_paragraph(self) -> None:
        text = self._taken()
        if not text.strip():
            return
        self._end_table()
        if self._level:
            self._out.heading(self._level, text)
        else:
            self._out.add(text, "\n" if text.startswith("- ") else "\n\n")

    def _end_table(self) -> None:
        rows = [*self._rows, self._row] if self._row else self._rows
        if rows:
            self._out.lines(table_lines(rows))
        self._rows, self._row = [], []

    def _write_sides(self) -> None:
        title = _joined(self._parts.pop("title", [])).strip()
        if title:
            self._out.title = title
        seen: set[str] = set()
        for story in ("footnotes", "comments", "pictures", "header", "footer"):
            for line in _joined(self._parts.get(story, [])).split("\n"):
                if line.strip() and line.strip() not in seen:
                    seen.add(line.strip())
                    self._out.mark({"part": story})
                    self._out.add(line.strip())


def _joined(parts: list[str]) -> str:
    """Join characters, two of which may be the halves of one beyond the first 65,536."""
    return "".join(parts).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
