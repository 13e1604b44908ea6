"""Templates of ``[text]``: which fields of a chunk stand before its text where it is encoded, and what BM25 reads.

Pure, and by columns: a template is applied to all rows of a batch at once.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

FIELDS = ("author", "channel", "date", "title", "text")
_MONTHS = ("January", "February", "March", "April", "May", "June") + (
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


@dataclass(frozen=True, slots=True)
class Template:
    """Fields and what is written between them: ``{author}: {text}``.

    What follows a field belongs to it: a row where the field is empty has neither. ``parts`` are fields with what
    follows each; the first may be "" for what stands before them all.
    """

    parts: tuple[tuple[str, str], ...]

    @staticmethod
    def parse(source: str) -> Template:
        """Raises ValueError, in one line, for what is no template over FIELDS."""
        try:
            found = list(string.Formatter().parse(source))
        except ValueError as error:
            raise ValueError(f"{error}; write a brace that is meant as such twice") from None
        parts: list[tuple[str, str]] = []
        for literal, name, form, conversion in found:
            if literal:
                field, after = parts.pop() if parts else ("", "")
                parts.append((field, after + literal))
            if name is None:
                continue
            if name not in FIELDS or form or conversion:
                raise ValueError(f"{{{name}}} is none of the fields {', '.join(f'{{{one}}}' for one in FIELDS)}")
            parts.append((name, ""))
        if [name for name, _ in parts].count("text") != 1:
            raise ValueError("it must hold {text} once")
        return Template(tuple(parts))

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it holds."""
        return frozenset(name for name, _ in self.parts if name)

    def context(self) -> Template:
        """What stands before the text. Raises ValueError where something stands after it."""
        if self.parts[-1] != ("text", ""):
            raise ValueError("it must end with {text}: what is put in front of a text is its context")
        return Template(self.parts[:-1])

    def render(self, rows: Mapping[str, pa.Array], length: int) -> pa.Array:
        """Apply it to ``length`` rows; ``rows`` has a string column for each of its fields. Null is empty."""
        pieces: list[pa.Array] = []
        for name, after in self.parts:
            if not name:
                pieces.append(pa.repeat(after, length))
                continue
            value = pc.fill_null(rows[name], "")
            following = pc.if_else(pc.equal(value, ""), "", after) if after else pa.repeat("", length)
            pieces += [value, following]
        return pc.binary_join_element_wise(*pieces, "") if pieces else pa.repeat("", length)


def date_words(created: pa.Array) -> pa.Array:
    """Moments (int64, µs since 1970) as a day in words, UTC: "8 May 2023"."""
    moments = created.cast(pa.timestamp("us"))
    month = pa.array(_MONTHS).take(pc.subtract(pc.month(moments), 1))
    day, year = (part(moments).cast(pa.string()) for part in (pc.day, pc.year))
    return pc.binary_join_element_wise(day, month, year, " ")


BARE = Template.parse("{text}")
NO_CONTEXT = BARE.context()
