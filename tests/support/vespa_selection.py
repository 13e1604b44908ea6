"""The part of Vespa's document selection language that the double knows, for conditions, visits and deletes."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator
from typing import Any

from tests.support.vespa_types import Refused, Type

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>[+-]?\d+(?:\.\d+)?)
    |(?P<op>==|!=|<=|>=|=~|[<>=().])|(?P<word>[A-Za-z_]\w*))""",
    re.X,
)
ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
}
_Value = Callable[[Type, str], Any]


class Selection:
    """An expression of the document selection language: True, False, or None where it is invalid for a document."""

    def __init__(self, text: str, types: dict[str, Type]) -> None:
        self._text, self._types = text, types
        self._tokens = list(self._split(text))
        self._at = 0
        self._evaluate = self._or()
        if self._peek() is not None:
            raise self._wrong()

    def __call__(self, kind: Type, key: str) -> bool | None:
        return _truth(self._evaluate(kind, key))

    def _split(self, text: str) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._wrong()
            yield str(found.lastgroup), found[str(found.lastgroup)]
            at = found.end()

    def _wrong(self) -> Refused:
        return Refused(400, f"Failed to parse selection, or it is not in this double: {self._text[:80]}")

    def _peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise self._wrong()
        self._at += 1
        return self._tokens[self._at - 1]

    def _or(self) -> _Value:
        parts = [self._and()]
        while str(self._peek()).lower() == "or":
            self._next()
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda k, d: _any([_truth(p(k, d)) for p in parts])

    def _and(self) -> _Value:
        parts = [self._not()]
        while str(self._peek()).lower() == "and":
            self._next()
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda k, d: _all([_truth(p(k, d)) for p in parts])

    def _not(self) -> _Value:
        if str(self._peek()).lower() == "not":
            self._next()
            inner = self._not()
            return lambda k, d: None if (found := _truth(inner(k, d))) is None else not found
        return self._comparison()

    def _comparison(self) -> _Value:
        left = self._value()
        operator = self._peek()
        if operator not in ("==", "!=", "=", *_COMPARISONS):
            return left
        self._next()
        right = self._value()
        return lambda k, d: _compare(str(operator), left(k, d), right(k, d))

    def _value(self) -> _Value:
        group, text = self._next()
        if group == "string":
            literal = re.sub(
                r"\\x([0-9a-fA-F]{2})|\\(.)",
                lambda m: chr(int(m[1], 16)) if m[1] else ESCAPES.get(m[2], m[2]),
                text[1:-1],
            )
            return lambda k, d: literal
        if group == "number":
            number: int | float = float(text) if "." in text else int(text)
            return lambda k, d: number
        if text == "(":
            inner = self._or()
            if self._next()[1] != ")":
                raise self._wrong()
            return inner
        if group != "word":
            raise self._wrong()
        if text.lower() in ("true", "false", "null"):
            constant = {"true": True, "false": False, "null": _NULL}[text.lower()]
            return lambda k, d: constant
        if self._peek() != ".":
            if text.lower() == "id":
                return lambda k, d: d
            if text not in self._types:
                raise Refused(400, f"Document type {text} not found")
            return lambda k, d: k.name == text
        self._next()
        member = self._next()[1]
        if text.lower() == "id":
            place = {"scheme": 0, "namespace": 1, "type": 2, "specific": 4}.get(member)
            if place is None:
                raise self._wrong()
            return lambda k, d: d.split(":", 4)[place]
        if text not in self._types or member not in self._types[text].fields:
            raise Refused(400, f"Field {text}.{member} not found")
        return lambda k, d: k.documents[d].get(member, _NULL) if k.name == text else _NULL


_NULL = object()


def _truth(value: Any) -> bool | None:
    return value if value is None or isinstance(value, bool) else value is not _NULL


def _all(values: list[bool | None]) -> bool | None:
    return False if False in values else None if None in values else True


def _any(values: list[bool | None]) -> bool | None:
    return True if True in values else None if None in values else False


def _compare(operator: str, left: Any, right: Any) -> bool | None:
    if operator in ("==", "!="):
        equal = left is right if _NULL in (left, right) else left == right
        return equal if operator == "==" else not equal
    if left is _NULL or right is _NULL:
        return None
    if operator == "=" and isinstance(right, str):
        return isinstance(left, str) and fnmatch.fnmatchcase(left, right)
    numbers = all(isinstance(v, int | float) for v in (left, right))
    if operator == "=" or not (numbers or all(isinstance(v, str) for v in (left, right))):
        return left == right if operator == "=" else None
    return _COMPARISONS[operator](left, right)
