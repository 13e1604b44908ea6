"""Values: what a table's cell says, whatever type its column has. One rule for each kind of value, in ``*_of``.

``keys``, ``times``, ``flags`` and ``texts`` take a column, an Arrow array or the plain values of JSON lines. Where an
Arrow type allows it they work on the whole column, by the same rule.

A number of JSON is a ``Number``: its characters, since an id keeps them (``1.0`` is not ``1``).
"""

from __future__ import annotations

import datetime as dt
import math
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Unit = Literal["s", "ms", "us", "ns", "date"]
Column = Any  # pa.Array, or a list of plain values

# A cell is fine, or holds nothing (null, a blank text), or something that its kind of value cannot be.
FINE, NONE, BAD = 0, 1, 2

# Of time, µs: what a search can print. Years 1 to 9999; the last second has no fraction, which would round up.
FIRST = -62_135_596_800_000_000
LAST = 253_402_300_799_000_000

_MULTIPLY = {"s": 1_000_000, "ms": 1_000, "us": 1}
_ISO = re.compile(r"(?:\d{4}-\d{2}-\d{2}|\d{8})(?:[T ]\d{2}.*)?", re.DOTALL)
_DAY = re.compile(r"\d{8}")
_NUMBER = re.compile(r"[+-]?(\d+)(?:\.\d+)?(?:[eE][+-]?\d{1,3})?")
_TRUE = frozenset({"true", "t", "yes", "y", "1"})
_FALSE = frozenset({"false", "f", "no", "n", "0"})


class Number(str):
    """A number as it stands in JSON."""

    __slots__ = ()


class _Bad(Exception):
    """A cell that is none of what it should be."""


@dataclass(frozen=True, slots=True)
class Cells:
    """A column's values, and for each FINE, NONE or BAD (int8). Where it is not FINE the value means nothing."""

    values: Any  # keys: pa.StringArray; times: int64 array, µs; flags: bool array; texts: list of str
    state: np.ndarray


# -- one cell ----------------------------------------------------------------------------------------------------------


def key_of(value: object) -> str | None:
    """An id, a team or a channel: text as it is, a number as it is written. None for null and blank text."""
    match value:
        case None:
            return None
        case bool():
            raise _Bad
        case str():
            return _encodable(value) if value.strip() else None
        case bytes():
            return key_of(_decoded(value))
        case float() if not math.isfinite(value):
            raise _Bad
        case int() | float() | Decimal() | dt.date() | dt.time() | uuid.UUID():  # a datetime is a date
            return str(value)
        case _:
            raise _Bad


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
            raise _Bad
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
            raise _Bad


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
                raise _Bad
            return word in _TRUE
        case int() | float() | Decimal():
            return _one_or_zero(Decimal(value))
        case dt.date():
            return True
        case _:
            raise _Bad


def moment_flag_of(value: object, unit: Unit | None) -> bool | None:
    """Whether a row is deleted, by the time of its deletion: null and blank are no, and 0 is not a time of that."""
    moment = time_of(value, unit)
    if moment == 0:
        raise _Bad
    return None if moment is None else True


def text_of(value: object) -> str | None:
    """A text. A number is none."""
    match value:
        case None:
            return None
        case Number():
            raise _Bad
        case str():
            return value
        case bytes():
            return _decoded(value)
        case _:
            raise _Bad


def _decoded(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise _Bad from None


def _encodable(value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which JSON can write
        raise _Bad from None
    return str(value)


def _one_or_zero(value: Decimal) -> bool:
    if value not in (0, 1):
        raise _Bad
    return value == 1


def _of_datetime(value: dt.datetime) -> int:
    moment = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
    try:
        since = moment - dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    except OverflowError:
        raise _Bad from None
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
            raise _Bad from None
    number = _NUMBER.fullmatch(text)
    if number is None or (unit is None and not 9 <= len(number[1]) <= 11):  # 202401, 20240101120000: who knows
        raise _Bad
    return _of_number(Decimal(text), unit)


def _of_number(value: Decimal, unit: Unit | None) -> int:
    if not value.is_finite() or value.adjusted() > 30:
        raise _Bad
    if unit == "date":
        if value != value.to_integral_value() or not _DAY.fullmatch(day := str(int(value))):
            raise _Bad
        return _of_text(day, "date") or 0
    if unit is None and looks_like_date(value):
        raise _Bad
    if unit == "ns":
        return _possible(math.floor(value / 1_000))
    return _possible(round(value * _MULTIPLY[unit or "s"]))


def looks_like_date(seconds: Any) -> Any:
    """Whether a number of seconds is more likely 20240101 or 202401011200, written as a number."""
    return ((seconds >= 19000101) & (seconds <= 21001231)) | ((seconds >= 190001010000) & (seconds <= 210012312359))


def _possible(micros: int) -> int:
    if not FIRST <= micros <= LAST:
        raise _Bad
    return micros


# -- columns -----------------------------------------------------------------------------------------------------------


def fits(name: str, kind: pa.DataType) -> bool:
    """Whether a column of this Arrow type can be what embedmill calls ``name``."""
    kind = _plain_type(kind)
    t = pa.types
    words = t.is_string(kind) or t.is_large_string(kind) or t.is_binary(kind) or t.is_large_binary(kind)
    number = t.is_integer(kind) or t.is_floating(kind) or t.is_decimal(kind)
    if t.is_null(kind):
        return True
    if name == "text":
        return words
    if name in ("created_at", "updated_at", "deleted_at"):
        return words or number or t.is_timestamp(kind) or t.is_date(kind)
    if name == "deleted":
        return words or number or t.is_timestamp(kind) or t.is_date(kind) or t.is_boolean(kind)
    return not (t.is_nested(kind) or t.is_boolean(kind) or t.is_duration(kind) or t.is_interval(kind))


def keys(column: Column) -> Cells:
    """Ids, teams or channels."""
    plain = _plain(column)
    if isinstance(plain, pa.Array) and (pa.types.is_large_string(plain.type) or pa.types.is_integer(plain.type)):
        cells = plain.cast(pa.large_string())
        blank = pc.fill_null(pc.equal(pc.utf8_trim_whitespace(cells), ""), True)
        return Cells(cells, np.where(_numpy(blank), NONE, FINE).astype(np.int8))
    found, state = _each(plain, key_of)
    return Cells(pa.array(found, pa.large_string()), state)


def times(column: Column, unit: Unit | None) -> Cells:
    """Times, µs."""
    plain = _plain(column)
    if isinstance(plain, pa.Array):
        found = _typed_times(plain, unit)
        if found is not None:
            return found
    values, state = _each(plain, lambda value: time_of(value, unit))
    return Cells(np.array([0 if value is None else value for value in values], np.int64), state)


def flags(column: Column) -> Cells:
    """Whether rows are deleted, as ``flag_of`` says."""
    return _flags(column, flag_of)


def moment_flags(column: Column, unit: Unit | None) -> Cells:
    """Whether rows are deleted, where the column says when they were."""
    return _flags(column, lambda value: moment_flag_of(value, unit))


def _flags(column: Column, rule: Callable[[object], bool | None]) -> Cells:
    plain = _plain(column)
    if isinstance(plain, pa.Array):
        kind = plain.type
        if pa.types.is_boolean(kind):
            return Cells(_numpy(pc.fill_null(plain, False)), np.zeros(len(plain), np.int8))
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return Cells(_numpy(plain.is_valid()), np.zeros(len(plain), np.int8))
        coded = plain.dictionary_encode()
        values, states = _each(_pylist(coded.dictionary), rule)
        at = _numpy(pc.fill_null(coded.indices, len(values))).astype(np.int64)  # a null is one more value
        flagged = np.array([value is True for value in values] + [False])
        return Cells(flagged[at], np.append(states, np.int8(NONE))[at])
    values, state = _each(plain, rule)
    return Cells(np.array([value is True for value in values], bool), state)


def texts(column: Column) -> Cells:
    """Texts."""
    plain = _plain(column)
    if isinstance(plain, pa.Array) and pa.types.is_large_string(plain.type):
        return Cells(plain.to_pylist(), np.where(_numpy(plain.is_valid()), FINE, NONE).astype(np.int8))
    return Cells(*_each(plain, text_of))


def _each(column: Column, rule: Callable[[object], Any]) -> tuple[list[Any], np.ndarray]:
    if isinstance(column, pa.Array) and pa.types.is_null(column.type):
        return [None] * len(column), np.full(len(column), NONE, np.int8)
    values: list[Any] = []
    state = np.zeros(len(column), np.int8)
    for at, value in enumerate(column if isinstance(column, list) else _pylist(column)):
        try:
            found = rule(value)
        except (_Bad, ArithmeticError):
            found, state[at] = None, BAD
        else:
            if found is None:
                state[at] = NONE
        values.append(found)
    return values, state


def _pylist(array: pa.Array) -> list[Any]:
    if pa.types.is_timestamp(array.type) and array.type.unit == "ns":  # as Python has it, not as pandas does
        array = array.cast(pa.timestamp("us", array.type.tz), safe=False)
    return array.to_pylist()


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    if pa.types.is_string_view(kind):
        return pa.large_string()
    return pa.large_binary() if pa.types.is_binary_view(kind) else kind


def _plain(column: Column) -> Column:
    """Without dictionaries and views, text as ``large_string``, or as bytes where a cell of it is not UTF-8."""
    if not isinstance(column, pa.Array | pa.ChunkedArray):
        return column
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(array, pa.ChunkedArray):  # more than two gigabytes
        array = pa.concat_arrays(array.chunks)
    kind = _plain_type(array.type)
    if kind != array.type:
        array = array.cast(kind)
    if pa.types.is_string(kind):
        kind = pa.large_string()
        array = array.cast(kind)
    if pa.types.is_large_string(kind):
        try:
            array.validate(full=True)
        except pa.ArrowInvalid:
            return pa.Array.from_buffers(
                pa.large_binary(), len(array), array.buffers(), array.null_count, array.offset
            )  # fmt: skip
    return array


def _numpy(array: pa.Array) -> np.ndarray:
    return np.asarray(array.to_numpy(zero_copy_only=False))


def _typed_times(array: pa.Array, unit: Unit | None) -> Cells | None:
    """Times of a column whose type says enough; None where each cell must be looked at."""
    kind, t = array.type, pa.types
    if t.is_timestamp(kind):
        return _counted(array.cast(pa.int64()), kind.unit)
    if t.is_date32(kind):
        return _counted(pc.multiply(array.cast(pa.int32()).cast(pa.int64()), 86_400), "s")
    if t.is_date64(kind):
        return _counted(array.cast(pa.int64()), "ms")
    if t.is_integer(kind) and unit != "date":
        return _counted(array, unit or "s", dates=unit is None)
    if t.is_large_string(kind):
        for wanted in (pa.timestamp("us"), pa.timestamp("us", "UTC")):
            try:
                return _counted(array.cast(wanted).cast(pa.int64()), "us")
            except pa.ArrowInvalid:
                continue
    return None


def _counted(array: pa.Array, unit: str, *, dates: bool = False) -> Cells:
    """Integers as µs. ``dates`` refuses those that look like one."""
    missing = _numpy(array.is_null())
    counts = _numpy(pc.fill_null(array, 0))
    if unit == "ns":
        low, high = FIRST * 1_000, LAST * 1_000
    else:
        low, high = -(-FIRST // _MULTIPLY[unit]), LAST // _MULTIPLY[unit]
    bounds = np.iinfo(counts.dtype)
    bad = np.zeros(len(counts), bool)
    if bounds.min < low:
        bad |= counts < low
    if bounds.max > high:
        bad |= counts > high
    if dates:
        bad |= looks_like_date(counts.astype(np.int64, copy=False))
    counts = np.where(bad, 0, counts).astype(np.int64)
    micros = counts // 1_000 if unit == "ns" else counts * _MULTIPLY[unit]
    return Cells(micros, np.where(missing, NONE, np.where(bad, BAD, FINE)).astype(np.int8))
