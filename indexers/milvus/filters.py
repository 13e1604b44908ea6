"""Filter expressions of Milvus: which rows a search, a scan or a delete may touch."""

from __future__ import annotations

from collections.abc import Sequence

_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def literal(value: str) -> str:
    r"""Quote a string for a filter expression.

    Only the escapes that both engines' grammars have: JSON's own ``\u0001`` is an error in Milvus Lite, and
    servers before 2.5 have no filter templates. Any other character stands for itself.
    """
    return '"' + "".join(_ESCAPES.get(char, char) for char in value) + '"'


def any_of(column: str, values: Sequence[str]) -> str:
    """Filter expression: the column holds one of the values."""
    return f"{column} in [{', '.join(map(literal, values))}]"


def search_filter(team_id: str, channels: Sequence[str], kind: str | None) -> str:
    """Filter expression of a search. The team is always in it."""
    parts = [f"team_id == {literal(team_id)}"]
    if channels:
        parts.append(any_of("channel_id", channels))
    if kind is not None:
        parts.append(f"kind == {literal(kind)}")
    return " and ".join(parts)
