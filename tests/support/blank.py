"""Rows with nothing in them, whatever columns a table has."""

from __future__ import annotations

import pyarrow as pa


def nothing(kind: pa.DataType) -> object:
    """The empty value of a column's type."""
    if pa.types.is_string(kind):
        return ""
    if pa.types.is_list(kind):
        return []
    return False if pa.types.is_boolean(kind) else 0


def blank(schema: pa.Schema) -> dict[str, object]:
    """A row with the empty value in each column."""
    return {field.name: nothing(field.type) for field in schema}
