"""What a mail's headers say: encoded words, bytes above ASCII and file names become text. Never raises."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header
from email.message import EmailMessage
from urllib.parse import unquote_to_bytes

from embedding.parsers.encoding import decode_text

_ENCODED_WORD = re.compile(r"=\?([^?\s]+)\?[bBqQ]\?")
_NAMING = ("content-disposition", "content-type")
_PLAIN_LABELS = frozenset(["utf-8", "us-ascii"])
# RFC 2231 with a label: the stdlib knows fewer labels and none of their supersets.
_LABELLED_NAME = re.compile(r"\b(?:file)?name\*=([\w.:-]+)'[^']*'([^;\s]+)", re.IGNORECASE)


def header_text(message: EmailMessage, name: str) -> str:
    """Return a header's value as text, by the stdlib where it can.

    Its parser raises half a dozen types on malformed headers and knows neither web labels nor bytes above ASCII.
    """
    raw = next((str(value) for key, value in message.raw_items() if key.lower() == name.lower()), "")
    if raw.isascii() and all(label.lower() in _PLAIN_LABELS for label in _ENCODED_WORD.findall(raw)):
        try:
            return " ".join(str(message[name] or "").split())
        except Exception:  # noqa: S110
            pass
    return clear_words(raw)


def clear_words(value: str) -> str:
    """Return a header's raw value in one line, its encoded words decoded."""
    return " ".join("".join(_words(clear_text(value))).split())


def _words(value: str) -> Iterator[str]:
    if not _ENCODED_WORD.search(value):
        yield value
        return
    try:
        for piece, label in decode_header(value):
            if isinstance(piece, str):
                yield piece
            elif label:
                yield decode_text(piece, declared=label) or piece.decode("latin-1")
            else:
                # The stdlib passes the words between as raw-unicode-escape.
                yield piece.decode("raw-unicode-escape", "replace")
    except (HeaderParseError, ValueError):
        yield value


def clear_text(value: str | None) -> str:
    """Return a text of the stdlib's parser with the bytes above ASCII, which it keeps as surrogates, decoded."""
    if not value or value.isascii():
        return (value or "").strip()
    data = value.encode("utf-8", "surrogateescape")
    return (decode_text(data) or data.decode("latin-1")).strip()


def filename_of(part: EmailMessage) -> str:
    """Return the name that a part gives its content, or ""."""
    raw = " ".join(str(value) for key, value in part.raw_items() if key.lower() in _NAMING)
    if (labelled := _LABELLED_NAME.search(raw)) and labelled[1].lower() not in _PLAIN_LABELS:
        name = decode_text(unquote_to_bytes(labelled[2].strip('"')), declared=labelled[1])
        if name:
            return " ".join(name.split())
    try:
        return clear_words(part.get_filename() or "")
    except Exception:
        # Malformed RFC 2231 parameters; the attachment exists, its name does not.
        return "unnamed"
