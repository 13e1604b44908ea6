"""What a file format is to ``parse_file``: how it is recognised, read, and named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from embedding.parsers.parsed import Limits, TextBuilder

Parser = Callable[[bytes, TextBuilder, Limits], None]


@dataclass(frozen=True, slots=True)
class Format:
    """One file format.

    ``parse`` hands the text of a file's bytes to the builder, block by block; what it raises rejects the file as
    ``unreadable_NAME``. ``claims`` says by content and name that a file is of this format, before any other is tried;
    None leaves that to ``detect``. ``holds_more``: a file without text is not empty (a drawing, a scan). ``version`` is
    of a format from outside: change it with whatever changes a file's text, and its files are read again.
    """

    media_type: str
    parse: Parser
    claims: Callable[[bytes, str], bool] | None = None
    holds_more: bool = False
    version: str = "1"
