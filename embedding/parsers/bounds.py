"""A bound on tables while they are read: rows are held until a header is known, and merged cells repeat a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from embedding.errors import RejectedRecord
from embedding.parsers.parsed import Limits


def bounded(rows: Iterable[Sequence[str]], limits: Limits) -> Iterator[Sequence[str]]:
    """Yield the rows; raises RejectedRecord as soon as they hold more text than a file may."""
    total = 0
    for row in rows:
        total += sum(map(len, row))
        if total > limits.text_characters:
            raise RejectedRecord("too_much_text", f"more than {limits.text_characters} characters")
        yield row
