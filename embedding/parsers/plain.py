"""Formats that are text already: plain, Markdown, CSV, JSON, notebooks. Keeps wording, adds structure."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator

from embedding.errors import RejectedRecord
from embedding.parsers.json_values import whole_values
from embedding.parsers.parsed import Limits, TextBuilder, table_lines

_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*?))?(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_NOT_PARAGRAPH = re.compile(r"\s*([-*+>|]|\d+[.)]\s|$)")
_DELIMITERS = ",;\t|"
_MAX_ODD = 50


def parse_text(text: str, out: TextBuilder, limits: Limits) -> None:
    """Write the text as it is; a form feed is a page's end, not a letter to drop between two words."""
    out.add(text.replace("\x0c", "\n\n"))


def parse_markdown(text: str, out: TextBuilder, limits: Limits) -> None:
    """Keep the source as it is written and mark its headings; what looks like one inside a fence is code."""
    body: list[str] = []
    fence = ""
    for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        fenced = _FENCE.match(line)
        if fence:
            if fenced and fenced.group(1).startswith(fence) and line.strip(" `~") == "":
                fence = ""
            body.append(line)
            continue
        if fenced:
            fence = fenced.group(1)
            body.append(line)
        elif (atx := _ATX.match(line)) and atx.group(2):
            out.add("\n".join(body))
            body.clear()
            out.heading(len(atx.group(1)), atx.group(2), line)
        elif (under := _SETEXT.match(line)) and body and not _NOT_PARAGRAPH.match(body[-1]):
            name = body.pop()
            out.add("\n".join(body))
            body.clear()
            out.heading(1 if under.group(1)[0] == "=" else 2, name, f"{name}\n{line}")
        else:
            body.append(line)
    out.add("\n".join(body))


def parse_csv(text: str, out: TextBuilder, limits: Limits) -> None:
    """Write one line per row, with the column's name before each value where there is a header."""
    # The stdlib's own bound of 128 KB per field rejects honest exports; the text limit bounds it already.
    csv.field_size_limit(limits.text_characters)
    text = text.replace("\x00", "").removeprefix("\ufeff")
    rows, odd = _csv_rows(list(io.StringIO(text, newline="")), _delimiter(text))
    out.lines(table_lines(rows))
    out.meta["rows"] = len(rows)
    if odd:
        out.meta["odd_rows"] = odd


def _csv_rows(lines: list[str], delimiter: str) -> tuple[list[list[str]], int]:
    """Return the rows, and how many have a quote that never ends: such a one must not take all that follows into it."""
    rows: list[list[str]] = []
    start = odd = 0
    while start < len(lines):
        reader = csv.reader(lines[start:], delimiter=delimiter)
        begin = start
        for row in reader:
            end = start + reader.line_num
            if end == len(lines) and end - begin > 1 and odd < _MAX_ODD and _is_unbalanced(lines[begin:end]):
                rows.extend(csv.reader(lines[begin : begin + 1], delimiter=delimiter, quoting=csv.QUOTE_NONE))
                odd += 1
                start = begin + 1
                break
            rows.append(row)
            begin = end
        else:
            break
    return rows, odd


def _is_unbalanced(lines: list[str]) -> bool:
    return sum(line.count('"') for line in lines) % 2 == 1


def _delimiter(text: str) -> str:
    """Return what splits the first lines into the most columns of equal number."""
    sample = [line for line in text[:65536].splitlines()[:21] if line.strip()][:20]
    best, best_score = ",", 0.0
    for candidate in _DELIMITERS:
        counts = [line.count(candidate) for line in sample]
        if not counts or not max(counts):
            continue
        usual = max(set(counts), key=counts.count)
        score = counts.count(usual) / len(counts) * (usual > 0) + usual * 0.001
        if usual and score > best_score:
            best, best_score = candidate, score
    return best


def parse_json(text: str, out: TextBuilder, limits: Limits) -> None:
    """Write ``path: value`` lines; each record of a list is a paragraph of its own.

    Where the text is broken, the values that are whole are kept, and what is between them is counted.
    """
    text = text.removeprefix("\ufeff")
    values, lost = whole_values(text)
    # Several values after each other, as some exports and tools write them, are read as a list of them.
    value = values[0] if len(values) == 1 else values
    if isinstance(value, dict) and isinstance(value.get("cells"), list) and "nbformat" in value:
        _notebook(value, out)
    else:
        _write_records(value, out)
    for _ in range(lost):
        out.lose("records")


def _write_records(value: object, out: TextBuilder) -> None:
    records = value if isinstance(value, list) and any(isinstance(item, dict | list) for item in value) else [value]
    for record in records:
        out.lines(_flatten(record))
    if isinstance(value, list):
        out.meta["records"] = len(value)


def parse_ndjson(text: str, out: TextBuilder, limits: Limits) -> None:
    """Write one paragraph per line's record; a line that is no JSON costs itself alone and is counted.

    Raises RejectedRecord where no line is a record.
    """
    text = text.removeprefix("\ufeff")
    records: list[object] = []
    lost = 0
    for line in text.split("\n"):
        if line.strip("\x1e \t\r\v\f\x00"):
            whole, bad = _whole(line)
            records.extend(whole)
            lost += bad
    if lost and lost >= len(records):
        # One value over many lines, which the name calls something else.
        whole, bad = _whole(text)
        whole = _unpacked(whole)
        records, lost = (whole, bad) if bad < lost and len(whole) >= max(1, len(records)) else (records, lost)
    if lost and not records:
        raise RejectedRecord("unreadable_ndjson", "no line is a record")
    for record in records:
        out.lines(_flatten(record))
    out.meta["records"] = len(records)
    for _ in range(lost):
        out.lose("records")


def _whole(text: str) -> tuple[list[object], int]:
    try:
        return whole_values(text)
    except ValueError:
        return [], 1


def _unpacked(values: list[object]) -> list[object]:
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _flatten(value: object, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flatten(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        if value and all(not isinstance(item, dict | list) for item in value):
            yield _line(path, ", ".join(_scalar(item) for item in value))
            return
        for position, item in enumerate(value):
            yield from _flatten(item, f"{path}[{position}]")
    elif value is not None and value != "":
        yield _line(path, _scalar(value))


def _line(path: str, value: str) -> str:
    return f"{path}: {value}" if path else value


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)


def _notebook(book: dict[str, object], out: TextBuilder) -> None:
    cells = book["cells"]
    if not isinstance(cells, list):
        raise RejectedRecord("unreadable_json", "cells")
    limits = out.limits
    for cell in cells:
        if not isinstance(cell, dict):
            continue
        source = _joined(cell.get("source"))
        if cell.get("cell_type") == "markdown":
            parse_markdown(source, out, limits)
            continue
        out.add(source)
        for output in cell.get("outputs") or []:
            if isinstance(output, dict):
                # Pictures and HTML tables repeat what text/plain says, or say nothing to a reader of text.
                data = output.get("data")
                shown = data.get("text/plain") or data.get("text/markdown") if isinstance(data, dict) else None
                out.add(_joined(output.get("text") or shown))
                if output.get("output_type") == "error":
                    out.add(f"{output.get('ename', '')}: {output.get('evalue', '')}")
    out.meta["cells"] = len(cells)


def _joined(source: object) -> str:
    if isinstance(source, list):
        return "".join(str(line) for line in source)
    return source if isinstance(source, str) else ""
