"""Excel (xlsx, xlsm, xltx, xltm, xlam) to text, from its XML: shown values, comments, text boxes and charts.

openpyxl's reader fails as a whole on one odd style or one missing part; its knowledge of date formats is used here.
"""

from __future__ import annotations

import datetime
import io
import re
from collections.abc import Iterable, Iterator, Sequence

from lxml import etree
from openpyxl.styles.numbers import BUILTIN_FORMATS, is_date_format, is_timedelta_format
from openpyxl.utils.datetime import CALENDAR_MAC_1904, CALENDAR_WINDOWS_1900, from_excel

from embedding.errors import RejectedRecord
from embedding.parsers.bounds import bounded
from embedding.parsers.drawing import A, body_text, description, graphic_lines
from embedding.parsers.opc import Package, Relation
from embedding.parsers.parsed import MERGED, Limits, TextBuilder, table_lines

_S = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_XDR = "{http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing}"

# A character that XML cannot hold, or an underscore that would look like the start of one.
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_PLACE = re.compile(r"\$?([A-Za-z]{1,3})\$?([0-9]{1,7})")
_ZEROS = re.compile(r"0{2,}")
_MAX_COLUMNS = 16_384
# Rows of merged areas, all together, that take a value; one area may be a whole column.
_MAX_MERGED_ROWS = 1_000_000


def parse_xlsx(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write each sheet, hidden ones included, as a table of shown values; marks are ``{"sheet": name}``.

    Raises RejectedRecord where no sheet can be read.
    """
    package = Package(data, out)
    main = package.main("xlsx")
    book = package.root(main)
    relations = package.relations(main)
    targets = {relation.id: relation for relation in relations}
    by_kind = {relation.kind: relation.target for relation in relations}
    values = _Values(
        list(_shared_strings(package.xml(by_kind["sharedStrings"]) if "sharedStrings" in by_kind else None)),
        _formats(package.xml(by_kind["styles"]) if "styles" in by_kind else None),
        _epoch(book.find(f"{_S}workbookPr")),
    )
    names: list[str] = []
    read = 0
    for sheet in book.iter(f"{_S}sheet"):
        relation = targets.get(sheet.get(f"{_R}id") or "", Relation("", "", ""))
        name = sheet.get("name") or ""
        names.append(name)
        out.mark({"sheet": name})
        read += _write_sheet(package, relation, values, out, limits)
    if not read:
        raise RejectedRecord("unreadable_xlsx", "no sheet that can be read")
    out.meta["sheets"] = names
    out.title = package.title()


def _epoch(properties: etree._Element | None) -> datetime.datetime:
    """Return the day that dates are counted from, which workbooks of old Macs have four years later."""
    late = properties is not None and properties.get("date1904") in ("1", "true")
    return CALENDAR_MAC_1904 if late else CALENDAR_WINDOWS_1900


def _write_sheet(package: Package, relation: Relation, values: _Values, out: TextBuilder, limits: Limits) -> bool:
    """Write one sheet and what is drawn on it; False where it cannot be read at all."""
    try:
        data = package.read(relation.target)
    except Exception:  # missing, or damaged in the zip: zipfile and zlib have errors of their own
        package.lose()
        return False
    if relation.kind == "worksheet":
        out.lines(table_lines(bounded(_rows(data, values, package), limits)))
    for side in package.relations(relation.target):
        if side.kind not in ("drawing", "comments", "threadedComment"):
            continue
        root = package.xml(side.target)
        if root is None:
            continue
        out.lines(_drawn(root, side.target, package) if side.kind == "drawing" else _comments(root))
    return True


class _Values:
    """Turns a cell's stored value into what is shown of it."""

    def __init__(self, strings: Sequence[str], formats: Sequence[str], epoch: datetime.datetime) -> None:
        self._strings = strings
        self._formats = formats
        self._epoch = epoch
        self._dates = [is_date_format(code) for code in formats]

    def shown(self, cell: etree._Element) -> str:
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            return "".join(_texts(cell))
        value = cell.findtext(f"{_S}v") or ""
        if kind == "s":
            return self._strings[int(value)] if value.isdecimal() and int(value) < len(self._strings) else ""
        if kind == "str":
            return unescaped(value)
        if kind == "b":
            return "true" if value in ("1", "true") else "false"
        if kind == "e" or not value:
            return ""
        if kind == "d":
            return value.replace("T00:00:00", "").replace("T", " ")
        return self._number(value, cell.get("s", "0"))

    def _number(self, text: str, style: str) -> str:
        try:
            number = float(text)
        except ValueError:
            return text
        place = int(style) if style.isdecimal() else 0
        code = self._formats[place] if place < len(self._formats) else "General"
        if place < len(self._dates) and self._dates[place]:
            try:
                return shown(from_excel(number, self._epoch, timedelta=is_timedelta_format(code)))
            except (ValueError, OverflowError):
                return shown(number)
        if "%" in code and '"' not in code and "\\" not in code:
            return f"{number * 100:.12g}%"
        if _ZEROS.fullmatch(code) and number.is_integer() and number >= 0:
            return f"{number:.0f}".zfill(len(code))  # a number that stands for a code: 00501
        return shown(number) if "." in text or "e" in text.lower() else text


def unescaped(text: str) -> str:
    """Undo the ``_x000D_`` by which spreadsheets write characters that XML cannot hold."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def _texts(holder: etree._Element) -> Iterator[str]:
    """Yield the runs of a rich text, without the readings that stand above them."""
    for element in holder.iter(f"{_S}t"):
        parent = element.getparent()
        if parent is None or parent.tag != f"{_S}rPh":
            yield unescaped(element.text or "")


def _shared_strings(root: etree._Element | None) -> Iterator[str]:
    for item in root.iterfind(f"{_S}si") if root is not None else ():
        yield "".join(_texts(item))


def _formats(root: etree._Element | None) -> list[str]:
    """Return the number format of every cell style."""
    if root is None:
        return []
    custom = {e.get("numFmtId"): e.get("formatCode") or "" for e in root.iterfind(f"{_S}numFmts/{_S}numFmt")}
    found = []
    for style in root.iterfind(f"{_S}cellXfs/{_S}xf"):
        number = style.get("numFmtId", "0")
        code = custom.get(number) or (BUILTIN_FORMATS.get(int(number)) if number.isdecimal() else None)
        found.append(code or "General")
    return found


def _rows(data: bytes, values: _Values, package: Package) -> Iterator[list[str]]:
    """Yield the rows on the sheet's grid; what follows a tear in the XML is counted as lost."""
    data = package.transitional(data)
    merged = _merged(data)
    above: dict[int, str] = {}
    last = 0
    parser = etree.iterparse(
        io.BytesIO(data), tag=f"{_S}row", resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False
    )
    try:
        for _, row in parser:
            number = row.get("r") or ""
            at = int(number) if number.isdecimal() else last + 1
            if at > last + 1 and last:
                yield []  # tables are told apart by blank rows; one says it
            last = at
            line: list[str] = []
            for cell in row.iterchildren(f"{_S}c"):
                column = _column(cell.get("r") or "", len(line))
                if column >= _MAX_COLUMNS:
                    continue
                line.extend([""] * (column - len(line)))
                line[column:] = [values.shown(cell)]
            if at in merged:
                _join(line, merged[at], above)
            yield line
            row.clear()
            while row.getprevious() is not None:
                parent = row.getparent()
                assert parent is not None
                del parent[0]
    except etree.XMLSyntaxError:
        package.lose()


def _join(line: list[str], areas: Iterable[tuple[int, int, bool]], above: dict[int, str]) -> None:
    """Let a merged area's value be that of every row it covers, and of all its columns at once."""
    for left, right, is_first in areas:
        line.extend([""] * (right + 1 - len(line)))
        if is_first:
            above[left] = line[left]
        elif not line[left]:
            line[left] = above.get(left, "")
        if line[left]:
            for column in range(left + 1, right + 1):
                line[column] = line[column] or MERGED


def _merged(data: bytes) -> dict[int, list[tuple[int, int, bool]]]:
    """Return the merged areas by row: left and right column, and whether the row is the area's first."""
    found: dict[int, list[tuple[int, int, bool]]] = {}
    left_over = _MAX_MERGED_ROWS
    for match in re.finditer(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]{1,3})(\d{1,7}):([A-Z]{1,3})(\d{1,7})"', data):
        left, right = _letters(match[1].decode()), _letters(match[3].decode())
        top, bottom = int(match[2]), int(match[4])
        left_over -= max(0, bottom - top) + 1
        if left_over < 0:
            break
        for row in range(top, bottom + 1):
            found.setdefault(row, []).append((left, min(right, left + 255), row == top))
    return found


def _column(place: str, default: int) -> int:
    match = _PLACE.fullmatch(place)
    return max(default, _letters(match[1])) if match else default


def _letters(column: str) -> int:
    number = 0
    for letter in column.upper():
        number = number * 26 + ord(letter) - 64
    return number - 1


def _comments(root: etree._Element) -> Iterator[str]:
    for comment in root.iter(etree.Element):
        if not str(comment.tag).endswith(("}comment", "}threadedComment")):
            continue
        text = "".join(t.text or "" for t in comment.iter(etree.Element) if str(t.tag).endswith(("}t", "}text")))
        text = unescaped(text).strip()
        # Old programs get a copy of a thread that tells them to be updated.
        if text and not text.startswith("[Threaded comment]"):
            yield f"Comment on {comment.get('ref')}: {text}" if comment.get("ref") else f"Comment: {text}"


def _drawn(root: etree._Element, part: str, package: Package) -> Iterator[str]:
    """Yield text boxes, descriptions of pictures, and charts."""
    for element in root.iter(f"{_XDR}cNvPr", f"{_XDR}txBody", f"{A}graphicData"):
        if element.tag == f"{_XDR}cNvPr":
            yield description(element)
        elif element.tag == f"{_XDR}txBody":
            yield body_text(element)
        else:
            yield from graphic_lines(element, part, package)


def shown(value: object) -> str:
    """Write a cell's value as people read it: whole numbers without a point, dates as ISO."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else f"{value:.12g}"
    if isinstance(value, datetime.datetime):
        return value.date().isoformat() if value.time() == datetime.time() else value.isoformat(" ", "seconds")
    if isinstance(value, datetime.timedelta):
        seconds = round(value.total_seconds())
        return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return str(value)
