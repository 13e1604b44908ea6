"""Files to text: detects a file's format by its content and parses it, or rejects it with a stable reason.

Never raises anything but RejectedRecord, writes no temporary file, and reveals none of the text in a rejection.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

from embedding.errors import RejectedRecord
from embedding.parsers.calendar import parse_calendar
from embedding.parsers.detect import detect, ending_of
from embedding.parsers.docx import parse_docx
from embedding.parsers.encoding import decode_text
from embedding.parsers.epub import parse_epub
from embedding.parsers.mail import parse_eml, parse_mbox
from embedding.parsers.markup import parse_xml
from embedding.parsers.opendocument import parse_odf
from embedding.parsers.parsed import Limits, ParsedFile, TextBuilder
from embedding.parsers.pdf import parse_pdf
from embedding.parsers.plain import parse_csv, parse_json, parse_markdown, parse_ndjson, parse_text
from embedding.parsers.pptx import parse_pptx
from embedding.parsers.rtf import parse_rtf
from embedding.parsers.web import parse_html
from embedding.parsers.xls import parse_xls
from embedding.parsers.xlsx import parse_xlsx

__all__ = ["DEFAULT_LIMITS", "PARSER_VERSION", "REASONS", "Limits", "ParsedFile", "parse_file"]

# Part of what shapes a vector: raise it with every change that alters any file's text or marks.
PARSER_VERSION = "2"

DEFAULT_LIMITS = Limits()

_BYTES: dict[str, Callable[[bytes, TextBuilder, Limits], None]] = {
    "pdf": parse_pdf,
    "docx": parse_docx,
    "pptx": parse_pptx,
    "xlsx": parse_xlsx,
    "xls": parse_xls,
    "odf": parse_odf,
    "epub": parse_epub,
    "eml": parse_eml,
    "mbox": parse_mbox,
    "rtf": parse_rtf,
    "xml": parse_xml,
}
_TEXT: dict[str, Callable[[str, TextBuilder, Limits], None]] = {
    "txt": parse_text,
    "md": parse_markdown,
    "csv": parse_csv,
    "json": parse_json,
    "ndjson": parse_ndjson,
    "html": parse_html,
    "ics": parse_calendar,
    "vcf": parse_calendar,
}
_MEDIA_TYPES = {
    "pdf": "application/pdf",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "xls": "application/vnd.ms-excel",
    "odf": "application/vnd.oasis.opendocument",
    "epub": "application/epub+zip",
    "eml": "message/rfc822",
    "mbox": "application/mbox",
    "rtf": "application/rtf",
    "xml": "application/xml",
    "txt": "text/plain",
    "md": "text/markdown",
    "csv": "text/csv",
    "json": "application/json",
    "ndjson": "application/x-ndjson",
    "html": "text/html",
    "ics": "text/calendar",
    "vcf": "text/vcard",
}

# Without a text these are not empty: they are drawings, scans, pictures in a letter.
_HOLD_MORE_THAN_TEXT = frozenset(["pdf", "docx", "pptx", "xlsx", "xls", "odf", "epub", "rtf", "html", "xml"])

REASONS = frozenset(
    [
        "empty_file",
        "no_text",
        "unsupported_type",
        "encrypted_pdf",
        "encrypted_office",
        "encrypted_epub",
        "too_large_unpacked",
        "too_many_pages",
        "too_much_text",
        "out_of_memory",
        "unreadable_ole",
        "unreadable_zip",
        *(f"unreadable_{kind}" for kind in _MEDIA_TYPES),
    ]
)


def parse_file(data: bytes, name: str, limits: Limits = DEFAULT_LIMITS) -> ParsedFile:
    """Return the text and structure of a file; raises RejectedRecord with one of ``REASONS``.

    ``empty_file`` and ``no_text`` are no faults: the file was read whole and holds none. A ``no_text`` is ``ignored``
    where the format can hold other things than text (a PDF of scanned pages), not for a text file of blanks.
    """
    if not data:
        raise RejectedRecord("empty_file", "0 bytes")
    kind = "txt"
    out = TextBuilder(limits)
    try:
        kind = detect(data, name, limits)
        with warnings.catch_warnings():
            # Parsers warn about styles and extensions that they skip; none of it concerns text.
            warnings.simplefilter("ignore")
            if kind in _BYTES:
                _BYTES[kind](data, out, limits)
            else:
                _TEXT[kind](decode_text(data, html=kind == "html") or "", out, limits)
        return out.build(_MEDIA_TYPES[kind], _stem(name))
    except RejectedRecord as rejected:
        if rejected.reason == "no_text" and any(key.startswith("unreadable_") for key in out.meta):
            raise RejectedRecord(f"unreadable_{kind}", "the parts with its text") from None
        if rejected.reason == "no_text" and kind in _HOLD_MORE_THAN_TEXT:
            raise RejectedRecord("no_text", rejected.detail, ignored=True) from None
        raise
    except MemoryError:
        raise RejectedRecord("out_of_memory", kind) from None
    except Exception as error:
        raise RejectedRecord(f"unreadable_{kind}", type(error).__name__) from None


def _stem(name: str) -> str:
    base = name.replace("\\", "/").rpartition("/")[2]
    ending = ending_of(name)
    return base[: -len(ending) - 1] if ending else base
