"""JSON values out of text, broken text too: what is whole is kept, what is not is counted. Never makes up a value."""

from __future__ import annotations

import json
import re

# What stands between values of files that hold several: blanks, commas, and the record mark of RFC 7464.
_BETWEEN = re.compile(r"[\s,\x1e\x00]*")
_STRAY = re.compile(r"[\s,\x1e\x00\]}]*")
_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{}:,]|[^\s"\[\]{}:,]+|"', re.DOTALL)
_START = re.compile(r"[\[{]")
_COMMENT = re.compile(r'("(?:[^"\\]|\\.)*")|//[^\n]*|/\*.*?\*/', re.DOTALL)
_LAST_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[\]}])', re.DOTALL)
_READ_OVER = re.compile(r"\s*(?:[\]}]|/[/*])")
# Each failure reads on from a brace; a text with so many is no JSON with an odd record.
_MAX_FAILURES = 10_000

_DECODER = json.JSONDecoder(strict=False)  # a raw line break in a string is no reason to lose it


def whole_values(text: str) -> tuple[list[object], int]:
    """Return all whole values of a text in their order, and how many stretches of it were broken.

    A list that is broken or cut off gives its whole items, an object its whole members. Comments and a comma behind the
    last item are read over. Raises ValueError where nothing is whole.
    """
    values: list[object] = []
    position = _after(_BETWEEN, text, 0)
    while position < len(text):
        try:
            value, position = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            return _mended(text, values, position, error)
        values.append(value)
        position = _after(_BETWEEN, text, position)
    return values, 0


def _mended(text: str, values: list[object], position: int, error: json.JSONDecodeError) -> tuple[list[object], int]:
    if _READ_OVER.match(text, error.pos) and text.count("/*") <= _MAX_FAILURES:
        try:
            plain = _LAST_COMMA.sub(_kept, _COMMENT.sub(_kept, text[position:]))
            return [*values, _DECODER.decode(plain)], 0
        except ValueError:
            pass
    breaks: set[int] = set()  # a list and the record in it break at the same place
    while position < len(text) and len(breaks) < _MAX_FAILURES:
        try:
            value, position = _DECODER.raw_decode(text, position)
            values.append(value)
        except json.JSONDecodeError as error:
            if text[position] == "[" and error.pos > position:
                breaks.add(error.pos)
                position += 1  # its items one by one
            else:
                breaks.add(error.pos)
                begun = _begun(text, position, error.pos)
                values.extend([begun] if begun else [])
                found = _START.search(text, max(error.pos, position + 1))
                position = found.start() if found else len(text)
        if breaks:
            position = _after(_STRAY, text, position)
    if not values or not (text.lstrip()[:1] in ("[", "{") or any(isinstance(value, dict | list) for value in values)):
        raise ValueError("nothing whole")
    return values, len(breaks)


def _begun(text: str, start: int, end: int) -> object:
    """Return the value that begins at ``start`` and breaks at ``end``, with the members that were whole by then."""
    opened: list[str] = []
    is_value = True  # in an object a string may be a name, which is nothing alone
    safe, closing = start, ""
    for token in _TOKEN.finditer(text, start):
        if token.start() >= end and token[0] != '"':
            break
        sign = token[0]
        if sign in "[{":
            opened.append("]" if sign == "[" else "}")
            is_value = sign == "["
        elif sign in "]}":
            if not opened or opened.pop() != sign:
                break
            is_value = False
        elif sign == ":":
            is_value = True
            continue
        elif sign == ",":
            is_value = bool(opened) and opened[-1] == "]"
            continue
        elif not is_value:
            continue
        elif sign == '"':  # cut off within a text: what is there of it is kept
            return _loaded(text[start:].rstrip("\\") + '"' + "".join(reversed(opened)))
        safe, closing = token.end(), "".join(reversed(opened))
    return _loaded(text[start:safe] + closing)


def _loaded(text: str) -> object:
    try:
        return _DECODER.decode(text)
    except ValueError:
        return None


def _kept(found: re.Match[str]) -> str:
    return found[1] or " "


def _after(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    return found.end() if found else position
