"""Cells: what one value of a table means, by declared rules. Each ``*_of`` raises Bad for what its kind cannot be.

A number of JSON is a ``Number``: its characters, since an id keeps them (``1.0`` is not ``1``).
"""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from decimal import Decimal
from typing import Any, Literal

Unit = Literal["s", "ms", "us", "ns", "date"]

# Of time, µs: what a search can print. Years 1 to 9999; the last second has no fraction, which would round up.
FIRST = -62_135_596_800_000_000
LAST = 253_402_300_799_000_000

MULTIPLY = {"s": 1_000_000, "ms": 1_000, "us": 1}
_ISO = re.compile(r"(?:\d{4}-\d{2}-\d{2}|\d{8})(?:[T ]\d{2}.*)?", re.DOTALL)
_DAY = re.compile(r"\d{8}")
_NUMBER = re.compile(r"[+-]?(\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?")
_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})


class Number(str):
    """A number as it stands in JSON."""

    __slots__ = ()


class Bad(Exception):
    """A cell that is none of what it should be."""


def key_of(value: object) -> str | None:
    """An id, a team or a channel: text as it is, a number as it is written. None for null and blank text."""
    match value:
        case None:
            return None
        case bool():
            raise Bad
        case str():
            return _encodable(value) if value.strip() else None
        case bytes():
            return key_of(_decoded(value))
        case float() if not math.isfinite(value):
            raise Bad
        case int() | float() | Decimal() | dt.date() | dt.time() | uuid.UUID():  # a datetime is a date
            return str(value)
        case _:
            raise Bad


def keys_of(value: object) -> list[str] | None:
    """Ids of a cell: the entries of a list, or a text with commas or blanks between them. None for none of them."""
    if isinstance(value, bytes):
        value = _decoded(value)
    if isinstance(value, str):
        entries: list[object] = [*re.split(r"[\s,]+", value)]
    else:
        entries = value if isinstance(value, list) else [value]
    return [key for entry in entries if (key := key_of(entry)) is not None] or None


def time_of(value: object, unit: Unit | None) -> int | None:
    """Microseconds since the epoch, UTC. None for null and blank text.

    A timestamp or date says itself what it is; without a time zone it is UTC. A text is ISO 8601 (``2024-01-01``,
    ``20240101``, with a time or without), else a number. A number counts ``unit`` since the epoch, or is a day
    (20240101) for the unit "date". Without a unit it is seconds, and one that looks like a date is refused.
    """
    match value:
        case None:
            return None
        case bool():
            raise Bad
        case bytes():
            return time_of(_decoded(value), unit)
        case Number():
            return _of_number(Decimal(value), unit)
        case str():
            return _of_text(value.strip(), unit)
        case dt.datetime():
            return _of_datetime(value)
        case dt.date():
            return _of_datetime(dt.datetime(value.year, value.month, value.day))
        case int() | float() | Decimal():
            return _of_number(Decimal(value), unit)
        case _:
            raise Bad


def flag_of(value: object) -> bool | None:
    """Whether a row is deleted: a boolean, 0 or 1, one of the words of the documentation. Null is no.

    In a column of timestamps or dates any value says when the row was deleted.
    """
    match value:
        case None:
            return None
        case bool():
            return value
        case bytes():
            return flag_of(_decoded(value))
        case Number():
            return _one_or_zero(Decimal(value))
        case str():
            word = value.strip().lower()
            if word not in _TRUE and word not in _FALSE:
                raise Bad
            return word in _TRUE
        case int() | float() | Decimal():
            return _one_or_zero(Decimal(value))
        case dt.date():
            return True
        case _:
            raise Bad


def moment_flag_of(value: object, unit: Unit | None) -> bool | None:
    """Whether a row is deleted, by the time of its deletion: null and blank are no, and 0 is not a time of that."""
    moment = time_of(value, unit)
    if moment == 0:
        raise Bad
    return None if moment is None else True


def text_of(value: object) -> str | None:
    """A text. A number is none."""
    match value:
        case None:
            return None
        case Number():
            raise Bad
        case str():
            return value
        case bytes():
            return _decoded(value)
        case _:
            raise Bad


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise Bad from None


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        raise Bad from None
    return str(value)


def _one_or_zero(value: Decimal) -> bool:
    if value not in (0, 1):
        raise Bad
    return value == 1


def _of_datetime(value: dt.datetime) -> int:
    moment = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    try:
        since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    except OverflowError:
        raise Bad from None
    return _possible((since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds)


def _of_text(text: str, unit: Unit | None) -> int | None:
    if not text:
        return None
    counted = _DAY.fullmatch(text) and unit not in (None, "date")
    if not counted and _ISO.fullmatch(text):
        zone = text.removesuffix(" UTC")
        try:
            return _of_datetime(dt.datetime.fromisoformat(f"{zone}+00:00" if zone != text else text))
        except ValueError:
            raise Bad from None
    number = _NUMBER.fullmatch(text)
    if number is None or (unit is None and not 9 <= len(number[1]) <= 11):  # 202401, 20240101120000: who knows
        raise Bad
    return _of_number(Decimal(text), unit)


def _of_number(value: Decimal, unit: Unit | None) -> int:
    if not value.is_finite() or value.adjusted() > 30:
        raise Bad
    if unit == "date":
        if value != value.to_integral_value() or not _DAY.fullmatch(day := str(int(value))):
            raise Bad
        return _of_text(day, "date") or 0
    if unit is None and looks_like_date(value):
        raise Bad
    if unit == "ns":
        return _possible(math.floor(value / 1_000))
    return _possible(round(value * MULTIPLY[unit or "s"]))


def looks_like_date(seconds: Any) -> Any:
    """Whether a number of seconds is more likely 20240101 or 202401011200, written as a number."""
    return ((seconds >= 19000101) & (seconds <= 21001231)) | ((seconds >= 190001010000) & (seconds <= 210012312359))


def _possible(micros: int) -> int:
    if not FIRST <= micros <= LAST:
        raise Bad
    return micros
