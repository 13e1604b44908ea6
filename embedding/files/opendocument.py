"""OpenDocument (odt, ods, odp) and EPUB to text, straight from their XML: both are a zip of small documents."""

from __future__ import annotations

import io
import posixpath
import urllib.parse
import zipfile
from collections.abc import Iterator

from lxml import etree

from embedding.errors import RejectedRecord
from embedding.files.encoding import decode_text
from embedding.files.parsed import Limits, TextBuilder, table_lines
from embedding.files.web import local_name, parse_html, xml_tree

# A spreadsheet's last cell may say that it stands for the 16,000 empty ones after it.
_MAX_REPEAT = 64


def parse_odf(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write headings, paragraphs and tables; marks are headings, ``{"sheet": name}`` or ``{"slide": n}``."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        if "META-INF/manifest.xml" in names and b"encryption-data" in archive.read("META-INF/manifest.xml"):
            raise RejectedRecord("encrypted_office", "needs a password")
        root = xml_tree(archive.read("content.xml"))
        meta = xml_tree(archive.read("meta.xml")) if "meta.xml" in names else None
    body = next((element for element in root.iter(etree.Element) if local_name(element) == "body"), root)
    _write_odf(body, out)
    if meta is not None:
        titles = [element.text or "" for element in meta.iter(etree.Element) if local_name(element) == "title"]
        out.title = (titles[0] if titles else "") or out.title


def _write_odf(body: etree._Element, out: TextBuilder) -> None:
    slide = 0
    walk = etree.iterwalk(body, events=("start",))
    for _, element in walk:
        if not isinstance(element.tag, str):
            continue
        name = local_name(element)
        if name == "tracked-changes":
            walk.skip_subtree()  # holds what was deleted
        elif name == "h":
            level = _attribute(element, "outline-level")
            out.heading(int(level) if level.isdecimal() else 1, _inline(element))
            walk.skip_subtree()
        elif name == "p":
            out.add(_inline(element))
            walk.skip_subtree()
        elif name == "table":
            if local_name(body[0]) == "spreadsheet":
                out.mark({"sheet": _attribute(element, "name")})
            out.lines(table_lines(_rows(element)))
            walk.skip_subtree()
        elif name == "page":
            slide += 1
            out.mark({"slide": slide})


def _rows(table: etree._Element) -> Iterator[list[str]]:
    for row in table.iter(etree.Element):
        if local_name(row) != "table-row":
            continue
        cells: list[str] = []
        for cell in row:
            text = " ".join(_inline(p) for p in cell.iter(etree.Element) if local_name(p) in ("p", "h"))
            repeat = _attribute(cell, "number-columns-repeated")
            cells.extend([text] * min(int(repeat) if repeat.isdecimal() else 1, _MAX_REPEAT))
        yield cells


def _attribute(element: etree._Element, name: str) -> str:
    return next((str(value) for key, value in element.attrib.items() if str(key).endswith("}" + name)), "")


def _inline(element: etree._Element) -> str:
    parts: list[str] = []
    for event, node in etree.iterwalk(element, events=("start", "end")):
        if not isinstance(node.tag, str):
            continue
        if event == "start":
            name = local_name(node)
            if name in ("s", "tab"):
                parts.append(" ")
            elif name == "line-break" or (name in ("p", "h") and node is not element):
                parts.append("\n")
            parts.append(node.text or "")
        elif node is not element:
            parts.append(node.tail or "")
    return "".join(parts)


def parse_epub(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write a book's chapters in reading order, each as the HTML page that it is."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        container = xml_tree(archive.read("META-INF/container.xml"))
        package_path = next(str(e.get("full-path")) for e in container.iter(etree.Element) if e.get("full-path"))
        package = xml_tree(archive.read(package_path))
        items: dict[str | None, str] = {}
        order: list[str | None] = []
        title = ""
        for element in package.iter(etree.Element):
            name = local_name(element)
            if name == "item" and "html" in (element.get("media-type") or ""):
                items[element.get("id")] = urllib.parse.unquote(str(element.get("href")))
            elif name == "itemref":
                order.append(element.get("idref"))
            elif name == "title" and not title:
                title = element.text or ""
        folder = posixpath.dirname(package_path)
        for identifier in order:
            if identifier in items:
                page = archive.read(posixpath.normpath(posixpath.join(folder, items[identifier])))
                parse_html(decode_text(page, html=True) or "", out, limits)
    out.title = title
