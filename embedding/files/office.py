"""Word, PowerPoint and Excel (OOXML, and xls) to text. Never follows a link or runs a macro."""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any

import docx
import openpyxl  # type: ignore[import-untyped]
import pptx
import xlrd  # type: ignore[import-untyped]
from lxml import etree

from embedding.errors import RejectedRecord
from embedding.files.parsed import Limits, Meta, TextBuilder, table_lines
from embedding.files.web import xml_tree

_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_FALLBACK = "{http://schemas.openxmlformats.org/markup-compatibility/2006}Fallback"
_HEADING_STYLE = re.compile(r"(?:heading|überschrift|titre)\s*([1-9])$", re.IGNORECASE)
_SIDE_PARTS = ("footnotes", "endnotes", "comments", "header", "footer")


def parse_docx(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write paragraphs and tables in order, then notes, comments, headers and footers, each part once."""
    document = docx.Document(io.BytesIO(data))
    levels = {style.style_id: level for style in document.styles if (level := _level(style.name or ""))}
    _write_body(document.element.body, levels, out)
    title = document.core_properties.title
    seen: set[str] = set()
    for relation in document.part.rels.values():
        kind = relation.reltype.rpartition("/")[2]
        if kind not in _SIDE_PARTS or relation.is_external:
            continue
        for paragraph in xml_tree(relation.target_part.blob).iter(f"{_W}p"):
            text = _paragraph(paragraph).strip()
            # Headers exist three times over (first, even, default), mostly with the same words.
            if text and text not in seen:
                seen.add(text)
                out.mark({"part": kind})
                out.add(text)
    if title:
        out.title = title


def _level(style: str) -> int:
    if style.lower() == "title":
        return 1
    match = _HEADING_STYLE.match(style.strip())
    return int(match.group(1)) if match else 0


def _write_body(body: Any, levels: dict[str, int], out: TextBuilder) -> None:
    # The XML, not the library's paragraphs: those leave out content controls and tracked insertions.
    for element in body:
        if element.tag == f"{_W}p":
            style = element.find(f"{_W}pPr/{_W}pStyle")
            level = levels.get(style.get(f"{_W}val") or "", 0) if style is not None else 0
            text = _paragraph(element)
            if level:
                out.heading(level, text)
            elif element.find(f"{_W}pPr/{_W}numPr") is not None and text.strip():
                out.add(f"- {text.strip()}", "\n")
            else:
                out.add(text)
        elif element.tag == f"{_W}tbl":
            out.lines(table_lines(_docx_rows(element)))
        elif element.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml"):
            _write_body(element, levels, out)


def _docx_rows(table: Any) -> Iterator[list[str]]:
    for row in table.iter(f"{_W}tr"):
        yield [" ".join(_paragraph(p) for p in cell.iter(f"{_W}p")) for cell in row.iter(f"{_W}tc")]


def _paragraph(paragraph: etree._Element) -> str:
    parts: list[str] = []
    walk = etree.iterwalk(paragraph, events=("start",))
    for _, element in walk:
        if element.tag == _FALLBACK:
            walk.skip_subtree()  # the same text box again, for older programs
        elif element.tag == f"{_W}t":
            parts.append(element.text or "")
        elif element.tag == f"{_W}tab":
            parts.append("\t")
        elif element.tag in (f"{_W}br", f"{_W}cr") or (element.tag == f"{_W}p" and element is not paragraph):
            parts.append("\n")
        elif element.tag == f"{_W}noBreakHyphen":
            parts.append("-")
    return "".join(parts)


def parse_pptx(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write each slide's shapes, tables and speaker notes; marks are ``{"slide": n, "heading": title}``."""
    deck = pptx.Presentation(io.BytesIO(data))
    first_title = ""
    for number, slide in enumerate(deck.slides, start=1):
        meta: Meta = {"slide": number}
        shape = slide.shapes.title
        title = " ".join(shape.text_frame.text.split()) if shape is not None else ""
        if title:
            meta["heading"] = title[:200]
            first_title = first_title or title
        out.mark(meta)
        out.add(title)
        _write_shapes((s for s in slide.shapes if shape is None or s.shape_id != shape.shape_id), out)
        if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None and notes.text.strip():
            out.add(f"Notes: {notes.text}")
    out.meta["slides"] = len(deck.slides)
    out.title = deck.core_properties.title or first_title
    if out.title.strip().lower() in ("powerpoint presentation", "presentation"):
        out.title = first_title


def _write_shapes(shapes: Iterable[Any], out: TextBuilder) -> None:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            _write_shapes(shape.shapes, out)
        elif getattr(shape, "has_text_frame", False):
            out.add(shape.text_frame.text)
        elif getattr(shape, "has_table", False):
            out.lines(table_lines([cell.text_frame.text for cell in row.cells] for row in shape.table.rows))
        elif getattr(shape, "has_chart", False):
            _write_chart(shape.chart, out)


def _write_chart(chart: Any, out: TextBuilder) -> None:
    if chart.has_title and chart.chart_title.has_text_frame:
        out.add(f"Chart: {chart.chart_title.text_frame.text}")
    for plot in chart.plots:
        names = [series.name for series in plot.series if series.name]
        out.add("; ".join([*names, *(str(category) for category in plot.categories)]))


def parse_xlsx(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write each sheet as a table of shown values; marks are ``{"sheet": name}``."""
    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    try:
        if not book.worksheets:
            # ISO "strict" workbooks load without an error and without a sheet.
            raise RejectedRecord("unreadable_xlsx", "no sheet that can be read")
        names = []
        for sheet in book.worksheets:
            # Writers lie about the used range: some say A1, some a million rows.
            sheet.reset_dimensions()
            rows = _bounded(sheet.iter_rows(values_only=True), limits)
            names.append(str(sheet.title))
            out.mark({"sheet": str(sheet.title)})
            out.lines(table_lines(rows))
        out.meta["sheets"] = names
        out.title = book.properties.title or ""
    finally:
        book.close()


def parse_xls(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write a workbook of Excel 97-2003 as ``parse_xlsx`` does."""
    try:
        book = xlrd.open_workbook(file_contents=data, logfile=io.StringIO(), on_demand=True)
    except xlrd.XLRDError as error:
        if "encrypted" in str(error):
            raise RejectedRecord("encrypted_office", "needs a password") from None
        raise
    for sheet in book.sheets():
        out.mark({"sheet": sheet.name})
        rows = ([_xls_value(cell, book.datemode) for cell in sheet.row(n)] for n in range(sheet.nrows))
        out.lines(table_lines(_bounded(rows, limits)))
    out.meta["sheets"] = book.sheet_names()


def _xls_value(cell: Any, datemode: int) -> object:
    if cell.ctype == xlrd.XL_CELL_DATE:
        try:
            return xlrd.xldate_as_datetime(cell.value, datemode)
        except (ValueError, OverflowError):
            return cell.value
    if cell.ctype == xlrd.XL_CELL_BOOLEAN:
        return bool(cell.value)
    return None if cell.ctype == xlrd.XL_CELL_ERROR else cell.value


def _bounded(rows: Iterable[Iterable[object]], limits: Limits) -> Iterator[list[str]]:
    """Stop while reading, not after: a sheet's rows are held until its header is known."""
    total = 0
    for row in rows:
        cells = [_shown(value) for value in row]
        if not any(cells):
            continue
        total += sum(map(len, cells))
        if total > limits.text_characters:
            raise RejectedRecord("too_much_text", f"more than {limits.text_characters} characters")
        yield cells


def _shown(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
    return str(value)
