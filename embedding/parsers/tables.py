"""Tables to lines that can stand alone. Owns every guess about what is a header; never drops a word of a row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

MAX_HEADER_CELL = 80

# A cell that the one to its left covers as well (colspan, gridSpan). A control character: no cleaned text holds one.
MERGED = "\x1d"

Row = Sequence[str]

# Lines above a table ("Owner: Kim", "Prices 2024") that may come before its header.
_MAX_TITLES = 3
# Enough rows to see whether a row's names lie above the cells; a table may have a million.
_SAMPLE = 200


def table_lines(rows: Iterable[Row], *, header: bool | None = None) -> list[str]:
    """Write a table so that each row can stand alone in a chunk: ``header: value; header: value``.

    ``header`` says whether the first row is one, where the format knows; None guesses. Without a header the cells are
    joined by tabs. Rows without a cell are left out; a name without any value below is written in a line of its own.
    A cell that is ``MERGED`` belongs to the one at its left: as a name it goes on, as a value it has all the names.
    """
    cleaned = [[cell if cell == MERGED else " ".join(cell.split()) for cell in row] for row in rows]
    lines: list[str] = []
    for table in _tables(cleaned) if header is None else [[row for row in cleaned if _used(row)]]:
        lines.extend(_lines(table, header))
    return lines


def _tables(rows: list[list[str]]) -> Iterator[list[list[str]]]:
    """Cut rows where a blank one is followed by a header of another table, which must not get the first one's names."""
    filled = [number for number, row in enumerate(rows) if _used(row)]
    begin = 0
    for at in range(1, len(filled) - 1):
        if filled[at] - filled[at - 1] > 1 and _is_new_header(*(rows[number] for number in filled[at - 1 : at + 2])):
            yield [rows[number] for number in filled[begin:at]]
            begin = at
    yield [rows[number] for number in filled[begin:]]


def _is_new_header(before: Row, row: Row, after: Row) -> bool:
    """Whether a row is a name in a column that holds numbers above and below it."""
    return _is_header(row) and any(
        above and below and name and not (_lettered(above) or _lettered(below)) and _lettered(name)
        for above, name, below in zip(before, row, after, strict=False)
    )


def _lines(table: list[list[str]], known: bool | None) -> Iterator[str]:
    at = 0 if known and len(table) > 1 else None if known is not None else _header_at(table)
    if at is None:
        yield from map(_joined, table)
        return
    yield from map(_joined, table[:at])
    header = table[at]
    used = _columns(table[at + 1 :], header)
    names: list[str] = []
    silent = False
    for position, cell in enumerate(header):
        names.append(names[-1] if cell == MERGED and names else "" if cell == MERGED else cell)
        if cell and cell != MERGED:
            silent = silent or not any(place in used for place in range(position, _end_of_cell(header, position)))
    if silent:
        yield _joined(header)
    for row in table[at + 1 :]:
        yield "; ".join(_pairs(row, names))


def _pairs(row: Row, names: Sequence[str]) -> Iterator[str]:
    width = max(len(row), len(names))
    for position, cell in enumerate(row):
        if not cell or cell == MERGED:
            continue
        end = _end_of_cell(row, position)
        above = list(dict.fromkeys(name for name in names[position:end] if name))
        # A cell over the whole width is a line between the rows; no column's name is true of it.
        whole = position == 0 and end >= width and end > 1
        yield f"{' / '.join(above)}: {cell}" if above and not whole else cell


def _end_of_cell(row: Row, position: int) -> int:
    end = position + 1
    while end < len(row) and row[end] == MERGED:
        end += 1
    return end


def _joined(row: Row) -> str:
    return "\t".join("" if cell == MERGED else cell for cell in row).strip("\t")


def _columns(rows: Iterable[Row], header: Row) -> set[int]:
    """Return the columns with a value in some row; stops once all that the header names have one."""
    missing = {position for position, name in enumerate(header) if name}
    used: set[int] = set()
    for row in rows:
        used.update(position for position, cell in enumerate(row) if cell)
        if missing <= used:
            break
    return used


def _header_at(table: list[list[str]]) -> int | None:
    """Return the place of the row that names the columns below it, or None where no row does."""
    width = max((_used(row) for row in table), default=0)
    for at, row in enumerate(table[: min(_MAX_TITLES + 1, len(table) - 1)]):
        if _used(row) == 1 and width > 1:
            continue  # a title ("Prices 2024") fills one cell of several
        if not _is_header(row):
            return None
        if _is_above(row, table[at + 1 :]):
            return at
    return None


def _is_above(header: Row, below: Sequence[Row]) -> bool:
    """Whether the cells below lie under the names, in two columns at least: else it is a line above a table."""
    named = {position for position, name in enumerate(header) if name}
    cells = [position for row in below[:_SAMPLE] for position, cell in enumerate(row) if cell]
    if sum(1 for position in cells if position in named) * 2 < len(cells):
        return False
    return len(_columns(below, header) & named) >= 2


def _used(row: Row) -> int:
    return sum(1 for cell in row if cell and cell != MERGED)


def _lettered(cell: str) -> bool:
    return any(character.isalpha() for character in cell)


def _is_header(row: Row) -> bool:
    cells = [cell for cell in row if cell and cell != MERGED]
    if len(cells) < 2 or len(set(cells)) != len(cells) or sum(1 for cell in row if cell) * 2 < len(row):
        return False
    return all(len(cell) <= MAX_HEADER_CELL and _lettered(cell) for cell in cells)
