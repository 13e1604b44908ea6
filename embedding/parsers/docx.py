"""Word (docx, docm, dotx, dotm) to text, from its XML: what Word shows, once, and nothing of what was deleted."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator

from lxml import etree

from embedding.parsers.bounds import bounded
from embedding.parsers.drawing import MC, A, chosen, description, graphic_lines
from embedding.parsers.omml import M, math_text
from embedding.parsers.opc import Package
from embedding.parsers.parsed import MERGED, Limits, TextBuilder, table_lines
from embedding.parsers.web import parse_html

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_WP = "{http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_V = "{urn:schemas-microsoft-com:vml}"

_TEXT = f"{_W}t"
_PROPERTIES = f"{_WP}docPr"  # of a drawing
_HEADING_STYLE = re.compile(r"(?:heading|überschrift|titre)\s*([1-9])$", re.IGNORECASE)
_SIDE_PARTS = ("footnotes", "endnotes", "comments", "header", "footer")
# A table wider than Word allows is a damaged one.
_MAX_COLUMNS = 64

# Text that is on its way out: deleted, or moved to another place where it stands again.
_GONE = frozenset([f"{_W}del", f"{_W}moveFrom"])
_TRANSPARENT = frozenset(
    f"{_W}{name}" for name in ("sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag", "body", "hdr", "ftr")
)
_NO_TEXT = frozenset(
    [f"{_W}pPr", f"{_W}rPr", f"{_W}tblPr", f"{_W}sdtPr", f"{_W}instrText", f"{_W}delText", f"{_W}sectPr"]
)
_SIGNS = {f"{_W}tab": "\t", f"{_W}ptab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}


def parse_docx(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write paragraphs and tables in order, then notes, comments, headers and footers, each part once."""
    package = Package(data, out)
    main = package.main("docx")
    root = package.root(main)
    body = root.find(f"{_W}body")
    relations = package.relations(main)
    styles = next((r.target for r in relations if r.kind == "styles"), "")
    levels = _levels(package.xml(styles)) if styles in package else {}
    _Writer(package, main, levels, out).blocks(body if body is not None else root)
    seen: set[str] = set()
    for relation in relations:
        side = package.xml(relation.target) if relation.kind in _SIDE_PARTS else None
        for block in side if side is not None else ():
            for text in _Writer(package, relation.target, {}, out).texts(block):
                # Headers exist three times over (first, even, default), mostly with the same words.
                if text.strip() and text not in seen:
                    seen.add(text)
                    out.mark({"part": relation.kind})
                    out.add(text)
    out.title = package.title() or out.title


def _levels(styles: etree._Element | None) -> dict[str, int]:
    """Return the level of every paragraph style that is a heading, by its id."""
    found: dict[str, int] = {}
    for style in styles.iter(f"{_W}style") if styles is not None else ():
        name = style.find(f"{_W}name")
        label = (name.get(f"{_W}val") or "").strip() if name is not None else ""
        match = _HEADING_STYLE.match(label)
        if match or label.lower() == "title":
            found[style.get(f"{_W}styleId") or ""] = int(match[1]) if match else 1
    return found


class _Writer:
    """Writes the blocks of one part; ``texts`` gives them as plain strings, for cells, boxes and notes."""

    def __init__(self, package: Package, part: str, levels: dict[str, int], out: TextBuilder) -> None:
        self._package = package
        self._part = part
        self._levels = levels
        self._out = out

    def blocks(self, parent: Iterable[etree._Element]) -> None:
        for element in parent:
            if element.tag == f"{_W}p":
                self._paragraph(element)
            elif element.tag == f"{_W}tbl":
                self._table(element)
            elif element.tag in _TRANSPARENT:
                self.blocks(element)
            elif element.tag == f"{MC}AlternateContent":
                branch = chosen(element)
                self.blocks(branch if branch is not None else ())
            elif element.tag == f"{_W}altChunk":
                self._chunk(element.get(f"{_R}id"))
            elif element.tag in (f"{M}oMathPara", f"{M}oMath"):
                self._out.add(math_text(element))

    def _paragraph(self, paragraph: etree._Element) -> None:
        style = paragraph.find(f"{_W}pPr/{_W}pStyle")
        level = self._levels.get(style.get(f"{_W}val") or "", 0) if style is not None else 0
        text = self.text(paragraph)
        if level:
            self._out.heading(level, text)
        elif paragraph.find(f"{_W}pPr/{_W}numPr") is not None and text.strip():
            self._out.add(f"- {text.strip()}", "\n")
        else:
            self._out.add(text)

    def _table(self, table: etree._Element) -> None:
        rows = list(self._rows(table))
        if len(rows) == 1 or max((len(row) for row, _ in rows), default=0) == 1:
            # A frame around other blocks, or columns of a page: its cells are no values.
            for _, cells in rows:
                for cell in cells:
                    self.blocks(cell)
            return
        self._out.lines(self._table_lines(table))

    def _table_lines(self, table: etree._Element) -> list[str]:
        marked = table.find(f"{_W}tr/{_W}trPr/{_W}tblHeader") is not None or None
        return table_lines(bounded((row for row, _ in self._rows(table)), self._out.limits), header=marked)

    def _rows(self, table: etree._Element) -> Iterator[tuple[list[str], list[etree._Element]]]:
        """Yield each row on the table's grid, and its cells."""
        above: list[str] = []
        for row in _inside(table, f"{_W}tr"):
            if row.find(f"{_W}trPr/{_W}del") is not None:
                continue
            line = [""] * _count(row.find(f"{_W}trPr/{_W}gridBefore"), 0)
            cells = list(_inside(row, f"{_W}tc"))
            for cell in cells:
                properties = cell.find(f"{_W}tcPr")
                text = "\n".join(filter(None, self.texts_of(cell)))
                beside = properties.find(f"{_W}hMerge") if properties is not None else None
                if beside is not None and beside.get(f"{_W}val", "continue") == "continue" and line and not text:
                    line.append(MERGED)  # as old programs say that the cell at the left goes on
                    continue
                if properties is not None:
                    joined = properties.find(f"{_W}vMerge")
                    if joined is not None and joined.get(f"{_W}val", "continue") == "continue" and not text:
                        # The cell above goes on: its value is this row's too.
                        text = above[len(line)] if len(line) < len(above) else ""
                line.append(text)
                span = _count(properties.find(f"{_W}gridSpan") if properties is not None else None, 1)
                line.extend([MERGED] * (span - 1))
            above = line
            yield line, cells

    def texts_of(self, parent: Iterable[etree._Element]) -> Iterator[str]:
        """Yield the blocks inside an element as plain texts."""
        for element in parent:
            yield from self.texts(element)

    def texts(self, element: etree._Element) -> Iterator[str]:
        """Yield a block as plain texts: a paragraph is one, a table is one a row."""
        if element.tag == f"{_W}p":
            yield self.text(element)
        elif element.tag == f"{_W}tbl":
            yield from self._table_lines(element)
        elif element.tag == f"{MC}AlternateContent":
            branch = chosen(element)
            yield from self.texts_of(branch if branch is not None else ())
        elif element.tag not in _GONE and element.tag not in _NO_TEXT:
            yield from self.texts_of(element)

    def text(self, paragraph: etree._Element) -> str:
        parts: list[str] = []
        self._inline(paragraph, parts)
        return "".join(parts)

    def _inline(self, parent: etree._Element, parts: list[str]) -> None:
        for element in parent:
            tag = element.tag
            if tag == _TEXT:
                parts.append(element.text or "")
            elif tag in _SIGNS:
                parts.append(_SIGNS[tag])
            elif tag in _GONE or tag in _NO_TEXT:
                continue
            elif tag in _INLINE:
                _INLINE[tag](self, element, parts)
            else:
                if described := _described(element):
                    parts.append(f"\n{described}\n")
                self._inline(element, parts)

    def _alternative(self, element: etree._Element, parts: list[str]) -> None:
        branch = chosen(element)
        if branch is not None:
            self._inline(branch, parts)

    def _text_box(self, element: etree._Element, parts: list[str]) -> None:
        parts.extend(f"\n{text}" for text in self.texts_of(element))
        parts.append("\n")

    def _graphic(self, element: etree._Element, parts: list[str]) -> None:
        parts.extend(f"\n{line}" for line in graphic_lines(element, self._part, self._package))
        self._inline(element, parts)

    def _ruby(self, element: etree._Element, parts: list[str]) -> None:
        # The reading above a word is no part of it, and comes first in the file.
        for base in element.iterchildren(f"{_W}rubyBase"):
            self._inline(base, parts)
        parts.extend(f"({self.text(reading)})" for reading in element.iterchildren(f"{_W}rt"))

    def _symbol(self, element: etree._Element, parts: list[str]) -> None:
        code = int(element.get(f"{_W}char") or "0", 16)
        parts.append(chr(code) if 0x20 <= code < 0xD800 else "")  # above: glyphs of a symbol font

    def _math(self, element: etree._Element, parts: list[str]) -> None:
        parts.append(math_text(element))

    def _drop_down(self, element: etree._Element, parts: list[str]) -> None:
        parts.append(_choice(element))

    def _chunk(self, identifier: str | None) -> None:
        """Write a piece of HTML or plain text that Word would take in when it opens the file."""
        target = next((r.target for r in self._package.relations(self._part) if r.id == identifier), "")
        ending = target.rpartition(".")[2].lower()
        try:
            if ending in ("htm", "html", "xhtml"):
                parse_html(self._package.read(target).decode("utf-8", "replace"), self._out, self._out.limits)
            elif ending == "txt":
                self._out.add(self._package.read(target).decode("utf-8", "replace"))
            else:
                self._package.lose()
        except KeyError:
            self._package.lose()


# What writes an element inside a paragraph that is neither text nor only a wrapper around it.
_INLINE: dict[object, Callable[[_Writer, etree._Element, list[str]], None]] = {
    f"{MC}AlternateContent": _Writer._alternative,
    f"{_W}txbxContent": _Writer._text_box,
    f"{A}graphicData": _Writer._graphic,
    f"{_W}ruby": _Writer._ruby,
    f"{_W}sym": _Writer._symbol,
    f"{M}oMath": _Writer._math,
    f"{M}oMathPara": _Writer._math,
    f"{_W}ddList": _Writer._drop_down,
}


def _described(element: etree._Element) -> str:
    """Return the description of a picture or a shape, "" for any other element."""
    tag = element.tag
    if tag.__class__ is str and tag.startswith(_V):
        return " ".join((element.get("alt") or "").split())
    return description(element) if tag == _PROPERTIES else ""


def _inside(parent: etree._Element, tag: str) -> Iterator[etree._Element]:
    """Yield the children of a name, those inside content controls and kept changes included."""
    for element in parent:
        if element.tag == tag:
            yield element
        elif element.tag in _TRANSPARENT:
            yield from _inside(element, tag)


def _count(element: etree._Element | None, default: int) -> int:
    value = (element.get(f"{_W}val") or "") if element is not None else ""
    return min(int(value), _MAX_COLUMNS) if value.isdecimal() and int(value[:4]) > 0 else default


def _choice(field: etree._Element) -> str:
    """Return the entry of a drop-down field that is chosen."""
    entries = [entry.get(f"{_W}val") or "" for entry in field.findall(f"{_W}listEntry")]
    number = 0
    for name in ("default", "result"):
        number = _count(field.find(f"{_W}{name}"), number)
    return entries[number] if number < len(entries) else ""
