"""Filter expressions of Milvus: which rows a search, a scan or a delete may touch."""

from __future__ import annotations

from collections.abc import Sequence

from indexers.base import SearchRequest

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


def search_filter(request: SearchRequest) -> str:
    """Filter expression of a search. The team is always in it."""
    parts = [f"team_id == {literal(request.team_id)}"]
    seen = ['visibility == "public"'] if request.public else []
    seen += [any_of("channel_id", request.channels)] if request.channels else []
    if seen:
        parts.append(f"({' or '.join(seen)})" if len(seen) > 1 else seen[0])
    listed = {"kind": request.kinds, "author_id": request.author_ids, "language": request.languages}
    parts += [any_of(column, values) for column, values in listed.items() if values]
    if request.thread_id is not None:
        parts.append(f"thread_id == {literal(request.thread_id)}")
    if request.mentions:
        parts.append(f"array_contains_any(mentions, [{', '.join(map(literal, request.mentions))}])")
    if request.has_file:
        parts.append("has_file == true")
    if request.since is not None:
        parts.append(f"created_at >= {request.since}")
    if request.until is not None:
        parts.append(f"created_at < {request.until}")
    return " and ".join(parts)
