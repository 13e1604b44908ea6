"""OpenDocument (odt, ods, odp, their templates, and StarOffice's) to text, straight from the XML in their zip."""

from __future__ import annotations

import io
import posixpath
import re
import zipfile
from collections.abc import Iterator, Sequence

from lxml import etree

from embedding.errors import RejectedRecord
from embedding.parsers.bounds import bounded
from embedding.parsers.parsed import MERGED, Limits, TextBuilder, table_lines
from embedding.parsers.web import local_name, xml_tree

# A spreadsheet's last cell may say that it stands for the 16,000 empty ones after it, its last row for a million.
_MAX_REPEAT = 64
_SIGNS = {"s": " ", "tab": " ", "tab-stop": " ", "line-break": "\n"}
_SIDE = {"note": "footnotes", "annotation": "comments"}
_TEXTLESS = frozenset(
    [
        "tracked-changes",
        "note-citation",
        "forms",
        "creator",
        "date",
        "date-string",
        "event-listeners",
        "page-number",
        "page-count",
        "sheet-name",
        "time",  # fields: what they show depends on the page
    ]
)
_PAGE_LABEL = re.compile(r"(?:page|seite|página|pagina)?[\W_]*$", re.IGNORECASE)


def parse_odf(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write headings, paragraphs and tables, then notes, comments, headers and footers.

    Marks are headings, ``{"sheet": name}``, ``{"slide": n}`` or ``{"part": name}``.

    Raises RejectedRecord for an encrypted file.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = set(archive.namelist())
        if "META-INF/manifest.xml" in names and b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise RejectedRecord("encrypted_office", "needs a password")
        writer = _Writer(archive, out)
        root = xml_tree(archive.read("content.xml"))
        body = next((element for element in root.iter(etree.Element) if local_name(element) == "body"), root)
        writer.body(body)
        writer.sides(writer.tree("styles.xml") if "styles.xml" in names else None)
        meta = writer.tree("meta.xml") if "meta.xml" in names else None
    if meta is not None:
        titles = [element.text or "" for element in meta.iter(etree.Element) if local_name(element) == "title"]
        out.title = (titles[0] if titles else "") or out.title


class _Writer:
    def __init__(self, archive: zipfile.ZipFile, out: TextBuilder) -> None:
        self._archive = archive
        self._out = out
        self._notes: list[tuple[str, str]] = []

    def tree(self, name: str) -> etree._Element | None:
        """Return a part's root, or None for one that cannot be read, which is counted."""
        try:
            return xml_tree(self._archive.read(name))
        except Exception:  # missing, damaged in the zip, torn XML: the other parts are there
            self._out.lose("parts")
            return None

    def body(self, body: etree._Element) -> None:
        slide = 0
        is_spreadsheet = len(body) > 0 and local_name(body[0]) == "spreadsheet"
        walk = etree.iterwalk(body, events=("start",))
        for _, element in walk:
            name = local_name(element) if isinstance(element.tag, str) else ""
            if name in _TEXTLESS:
                walk.skip_subtree()
            elif name == "h":
                level = _attribute(element, "outline-level") or _attribute(element, "level")
                self._out.heading(int(level) if level.isdecimal() else 1, self.inline(element))
                walk.skip_subtree()
            elif name == "p":
                self._out.add(self.inline(element))
                walk.skip_subtree()
            elif name == "table":
                self._table(element, is_spreadsheet)
                walk.skip_subtree()
            elif name == "page":
                slide += 1
                self._out.mark({"slide": slide})
            elif name in ("title", "desc"):
                self._out.add(element.text or "")
            elif name == "object":
                self._out.lines(self.embedded(element))

    def _table(self, table: etree._Element, is_sheet: bool) -> None:
        """Write a table, and what is drawn upon it."""
        if is_sheet:
            self._out.mark({"sheet": _attribute(table, "name")})
        self._out.lines(table_lines(self.bounded_rows(table)))
        for shapes in table:
            if local_name(shapes) == "shapes":
                self._out.add(self.inline(shapes))

    def sides(self, styles: etree._Element | None) -> None:
        """Write what was met inside paragraphs, and each page style's header and footer."""
        found = [*self._notes]
        for element in styles.iter(etree.Element) if styles is not None else ():
            # Of text documents and sheets the element is called so, of a slide's master the class.
            part = _attribute(element, "class") if local_name(element) == "frame" else local_name(element)
            part = part.removesuffix("-left").removesuffix("-first")
            if part in ("header", "footer") and _attribute(element, "display") != "false":
                found.extend((part, self.inline(p)) for p in element.iter(etree.Element) if local_name(p) in ("p", "h"))
        seen: set[str] = set()
        for part, text in found:
            if text not in seen and not _PAGE_LABEL.match(text):
                seen.add(text)
                self._out.mark({"part": part})
                self._out.add(text)

    def bounded_rows(self, table: etree._Element) -> Iterator[Sequence[str]]:
        """Yield a table's rows, which repeats may multiply, as far as a file's text may go."""
        return bounded(self.rows(table), self._out.limits)

    def rows(self, table: etree._Element) -> Iterator[list[str]]:
        above: list[str] = []
        for row in _inside(table, "table-row"):
            cells: list[str] = []
            spanned = 0  # columns that the last cell covers still
            for cell in _inside(row, "table-cell", "covered-table-cell"):
                repeat = _number(cell, "number-columns-repeated")
                if local_name(cell) == "covered-table-cell":
                    for _ in range(repeat):
                        up = above[len(cells)] if len(cells) < len(above) else ""
                        cells.append(MERGED if spanned > 0 else up)
                        spanned -= 1
                    continue
                cells.extend([self.cell(cell)] * repeat)
                spanned = _number(cell, "number-columns-spanned") - 1
            above = cells
            for _ in range(_number(row, "number-rows-repeated") if any(cells) else 1):
                yield cells

    def cell(self, cell: etree._Element) -> str:
        lines: list[str] = []
        for element in cell:
            name = local_name(element) if isinstance(element.tag, str) else ""
            if name == "table":
                lines.extend(table_lines(self.bounded_rows(element)))
            elif name:
                lines.append(self.inline(element) if name not in _SIDE else self._aside(element))
        return "\n".join(filter(None, lines)) or _attribute(cell, "string-value")

    def _aside(self, element: etree._Element) -> str:
        part = _SIDE[local_name(element)]
        if part == "footnotes" and _attribute(element, "note-class") == "endnote":
            part = "endnotes"
        for p in element.iter(etree.Element):
            if local_name(p) in ("p", "h"):
                self._notes.append((part, self.inline(p)))
        return ""

    def inline(self, parent: etree._Element) -> str:
        parts: list[str] = []
        self._inline(parent, parts)
        return "".join(parts)

    def _inline(self, parent: etree._Element, parts: list[str]) -> None:
        parts.append(parent.text or "")
        for node in parent:
            name = local_name(node) if isinstance(node.tag, str) else ""
            if name in _SIGNS:
                parts.append(_SIGNS[name])
            elif name in _SIDE:
                self._aside(node)
            elif name in ("title", "desc"):
                parts.append(f"\n{node.text or ''}\n")
            elif name == "object":
                parts.extend(f"\n{line}" for line in self.embedded(node))
            elif name == "table":
                parts.extend(f"\n{line}" for line in table_lines(self.bounded_rows(node)))
            elif name == "ruby-text":
                parts.append(f"({self.inline(node)})")  # the reading above a word is no part of it
            elif name and name not in _TEXTLESS:
                if name in ("p", "h", "list-item"):
                    parts.append("\n")
                self._inline(node, parts)
            parts.append(node.tail or "")

    def embedded(self, element: etree._Element) -> Iterator[str]:
        """Yield the lines of a formula or a chart that is a document of its own in the same zip."""
        place = posixpath.normpath(posixpath.join(_attribute(element, "href"), "content.xml"))
        if place not in self._archive.namelist():
            return
        root = self.tree(place)
        if root is None:
            return
        if local_name(root) == "math":
            notes = [e.text or "" for e in root.iter(etree.Element) if local_name(e) == "annotation"]
            yield notes[0] if notes else "".join(str(text).strip() for text in root.itertext())
            return
        for node in root.iter(etree.Element):
            if local_name(node) in ("title", "subtitle") and len(node):
                yield self.inline(node)
            elif local_name(node) == "table":
                yield from table_lines(self.bounded_rows(node))


def _inside(parent: etree._Element, *names: str) -> Iterator[etree._Element]:
    """Yield the children of some names, those inside groups of rows and headers included, not those of inner tables."""
    for element in parent:
        name = local_name(element) if isinstance(element.tag, str) else ""
        if name in names:
            yield element
        elif name.startswith("table-") and name not in ("table-cell", "table-row"):
            yield from _inside(element, *names)


def _number(element: etree._Element, name: str) -> int:
    value = _attribute(element, name)
    return min(int(value), _MAX_REPEAT) if value.isdecimal() and int(value[:9]) > 0 else 1


def _attribute(element: etree._Element, name: str) -> str:
    return next((str(value) for key, value in element.attrib.items() if str(key).endswith("}" + name)), "")
