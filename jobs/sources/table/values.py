"""Values: a table's columns, by the rules of ``cells``. Where an Arrow type allows it, a whole column at once.

``keys``, ``lists``, ``times``, ``flags`` and ``texts`` take an Arrow array, or the plain values of JSON lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.sources.table.cells import (
    FIRST,
    LAST,
    MULTIPLY,
    Bad,
    Unit,
    flag_of,
    key_of,
    keys_of,
    looks_like_date,
    moment_flag_of,
    text_of,
    time_of,
)

_ALIKE = {str: pa.large_string(), int: pa.int64(), bool: pa.bool_()}
Column = Any  # pa.Array, or a list of plain values

# A cell is fine, or holds nothing (null, a blank text), or something that its kind of value cannot be.
FINE, NONE, BAD = 0, 1, 2


@dataclass(frozen=True, slots=True)
class Cells:
    """A column's values, and for each FINE, NONE or BAD (int8). Where it is not FINE the value means nothing."""

    values: Any  # keys: array of large_string; lists: list of lists; times: int64, µs; flags: bool; texts: list of str
    state: np.ndarray


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
    if name == "mentions" and (t.is_list(kind) or t.is_large_list(kind)):
        return fits(name, kind.value_type)
    if name in ("deleted", "has_file"):
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


def lists(column: Column) -> Cells:
    """Several ids in a cell; None where there is none, and where one of them is none."""
    return Cells(*_each(_plain(column), keys_of))


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
    if isinstance(column, list) and set(map(type, column)) <= {str, type(None)}:
        return Cells(column, np.array([NONE if value is None else FINE for value in column], np.int8))
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
        except (Bad, ArithmeticError):
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
        return _alike(column)
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
            return pa.Array.from_buffers(pa.large_binary(), len(array), array.buffers(), array.null_count, array.offset)
    return array


def _alike(column: list[Any]) -> Column:
    """Plain values as an Arrow array where they are all of one type, which is faster to look at."""
    kinds = set(map(type, column)) - {type(None)}
    kind = _ALIKE.get(kinds.pop()) if len(kinds) == 1 else None
    try:
        return column if kind is None else pa.array(column, kind)
    except (UnicodeEncodeError, OverflowError):
        return column


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
        low, high = -(-FIRST // MULTIPLY[unit]), LAST // MULTIPLY[unit]
    bounds = np.iinfo(counts.dtype)
    bad = np.zeros(len(counts), bool)
    if bounds.min < low:
        bad |= counts < low
    if bounds.max > high:
        bad |= counts > high
    if dates:
        bad |= looks_like_date(counts.astype(np.int64, copy=False))
    counts = np.where(bad, 0, counts).astype(np.int64)
    micros = counts // 1_000 if unit == "ns" else counts * MULTIPLY[unit]
    return Cells(micros, np.where(missing, NONE, np.where(bad, BAD, FINE)).astype(np.int8))
