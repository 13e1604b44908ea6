"""Tables of HTML: which are data, where their merged cells reach, and which rows are names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from lxml import etree

from embedding.parsers.tables import MERGED, table_lines

# Stands for <br> while blanks are collapsed. A character of its own, since "\n" is a blank in HTML.
BREAK = "\u2028"

_FLOW = frozenset(["table", "pre", "h1", "h2", "h3", "h4", "h5", "h6"])
_LISTS = frozenset(["ul", "ol", "dl", "form"])
_APART = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "button",
        "caption",
        "center",
        "dd",
        "details",
        "div",
        "dl",
        "dt",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "input",
        "legend",
        "li",
        "main",
        "nav",
        "ol",
        "option",
        "p",
        "pre",
        "section",
        "select",
        "summary",
        "table",
        "td",
        "textarea",
        "th",
        "tr",
        "ul",
    ]
)
_MAX_SPAN = 100
# What stands once for many rows is said in each; a long text is not said again and again.
_MAX_REPEATED = 200
# What hostile spans could make of a small page: columns of a row, and cells said again in one table.
_MAX_COLUMNS = 1_000
_MAX_AGAIN = 200_000


@dataclass(frozen=True, slots=True)
class _Cell:
    text: str
    is_name: bool
    first_column: int
    repeated: bool = False


def cell_text(element: etree._Element) -> str:
    """Return all text of an element; blocks in it are set apart, inline elements are not."""
    parts: list[str] = []
    for event, node in etree.iterwalk(element, events=("start", "end")):
        if node is not element and node.tag in _APART:
            parts.append(" ")
        text = node.text if event == "start" else node.tail if node is not element else None
        if text:
            parts.append(text)
    return "".join(parts)


def is_data_table(table: etree._Element) -> bool:
    """Tell data from layout: a layout's cells hold tables and headings, or lists where no cell is a name.

    A table with text outside its cells is read as it flows too, so that the text is kept.
    """
    names = False
    flow = False
    for element in table.iter(etree.Element):
        if element.tag in _FLOW and element is not table:
            return False
        names = names or element.tag == "th"
        flow = flow or element.tag in _LISTS
        if element.tag in ("table", "tbody", "thead", "tfoot", "tr", "colgroup"):
            if element.text and element.text.strip():
                return False
            if any(child.tail and child.tail.strip() for child in element):
                return False
            if element.tag != "tr" and any(child.tag in ("td", "th", "p", "div", "a") for child in element):
                return False
    return names or not flow


def data_table_lines(table: etree._Element) -> list[str]:
    """Write a table's rows with the names that its ``th`` cells and ``thead`` rows give, guessed where it has none."""
    rows = list(_grid(table))
    if not any(cell is not None and cell.is_name for row in rows for cell in row):
        return table_lines([_texts(row) for row in rows])
    lines: list[str] = []
    names: list[list[_Cell | None]] = []
    body: list[list[_Cell | None]] = []
    for row in rows:
        cells = {id(cell): cell for cell in row if cell is not None}.values()
        if cells and all(cell.is_name for cell in cells) and len(row) > 1:
            if body:
                lines.extend(_section(names, body))
                names, body = ([], []) if len(cells) > 1 else (names, [])
            if len(cells) > 1:
                names.append(row)
            else:
                lines.extend(cell.text for cell in cells)  # a title over the whole width
        else:
            body.append(row)
    lines.extend(_section(names, body))
    return [line for line in lines if line.strip()]


def _section(names: list[list[_Cell | None]], body: list[list[_Cell | None]]) -> list[str]:
    if not names:
        return [_named_in_row(row) for row in body]
    return table_lines([_joined_names(names), *(_texts(row) for row in body)], header=True)


def _joined_names(rows: list[list[_Cell | None]]) -> list[str]:
    """Return one row of names of several: "2023" over "Q1" and "Q2" is "2023 Q1", "2023 Q2"."""
    joined: list[str] = []
    before: list[_Cell | None] = []
    for column in range(max(map(len, rows))):
        above = [row[column] if column < len(row) else None for row in rows]
        distinct = {id(cell): cell.text for cell in above if cell is not None and cell.text}
        same = before and all(now is then for now, then in zip(above, before, strict=True)) and distinct
        joined.append(MERGED if same else " ".join(dict.fromkeys(distinct.values())))
        before = above
    return joined


def _named_in_row(row: list[_Cell | None]) -> str:
    """Write a row without names above it: ``th`` in it name what follows them."""
    pairs: list[str] = []
    name = ""
    values: list[str] = []
    for cell in {id(cell): cell for cell in row if cell is not None and cell.text}.values():
        if cell.is_name:
            pairs.append(_pair(name, values))
            name, values = cell.text, []
        else:
            values.append(cell.text)
    pairs.append(_pair(name, values))
    return "; ".join(pair for pair in pairs if pair)


def _pair(name: str, values: list[str]) -> str:
    text = "\t".join(values) if not name else "; ".join(values)
    return f"{name}: {text}" if name and text else name or text


def _texts(row: list[_Cell | None]) -> list[str]:
    return [
        "" if cell is None else cell.text if column == cell.first_column else MERGED for column, cell in enumerate(row)
    ]


def _grid(table: etree._Element) -> Iterator[list[_Cell | None]]:
    """Yield rows with each cell in its own column, and in every row and column that it spans."""
    hanging: dict[int, tuple[_Cell, int]] = {}  # column: a cell of an earlier row, and for how many rows still
    group: etree._Element | None = None
    again = 0
    for row in table.iter("tr"):
        if row.getparent() is not group:
            hanging.clear()  # a cell does not reach out of its tbody
            group = row.getparent()
        in_head = group is not None and group.tag == "thead"
        cells: list[_Cell | None] = []
        coming: dict[int, tuple[_Cell, int]] = {}
        again += len(hanging)
        if again > _MAX_AGAIN:
            hanging = {}
        for element in row.iterchildren(etree.Element):
            _place_hanging(cells, hanging, coming)
            text = " ".join(cell_text(element).replace(BREAK, " ").replace("\xad", "").split())
            across, down = _span(element, "colspan"), _span(element, "rowspan")
            if len(cells) > _MAX_COLUMNS:
                across, down = 1, 1
            cell = _Cell(text, in_head or element.tag == "th", len(cells))
            if down > 1:
                below = cell if len(text) <= _MAX_REPEATED else _Cell("", cell.is_name, len(cells), repeated=True)
                coming.update({len(cells) + place: (below, down - 1) for place in range(across)})
            cells.extend([cell] * across)
        _place_hanging(cells, hanging, coming)
        for column in sorted(hanging):  # beyond the last cell of this row
            cells.extend([None] * (column - len(cells)))
            _place_hanging(cells, hanging, coming)
        hanging = coming
        yield cells


def _place_hanging(
    cells: list[_Cell | None], hanging: dict[int, tuple[_Cell, int]], coming: dict[int, tuple[_Cell, int]]
) -> None:
    while len(cells) in hanging:
        column = len(cells)
        cell, rows = hanging.pop(column)
        if rows > 1:
            coming[column] = (cell, rows - 1)
        cells.append(cell)


def _span(cell: etree._Element, name: str) -> int:
    given = (cell.get(name) or "1").strip()
    if not given.isdecimal():
        return 1
    number = int(given[:6])
    if name == "rowspan":
        return number if number else 65_534  # 0: to the end of the group
    return min(max(number, 1), _MAX_SPAN)
