"""Files to text: detects a file's format by its content and parses it, or rejects it with a stable reason.

Never raises anything but RejectedRecord, writes no temporary file, and reveals none of the text in a rejection.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from importlib import import_module

from embedding.errors import RejectedRecord
from embedding.extensions import load_extensions
from embedding.parsers.formats import Format, Parser
from embedding.parsers.parsed import Limits, ParsedFile, TextBuilder

__all__ = [
    "DEFAULT_LIMITS",
    "FORMATS",
    "PARSER_VERSION",
    "REASONS",
    "Format",
    "Limits",
    "ParsedFile",
    "decoded",
    "parse_file",
    "parser_version",
]

# Part of what shapes a vector: raise it with every change that alters any file's text or marks.
PARSER_VERSION = "2"

DEFAULT_LIMITS = Limits()


def decoded(parse: Callable[[str, TextBuilder, Limits], None], *, html: bool = False) -> Parser:
    """A parser of bytes from one of text, whose charset is guessed; ``html``: what the markup says of it counts."""

    def parse_bytes(data: bytes, out: TextBuilder, limits: Limits) -> None:
        from embedding.parsers.encoding import decode_text

        parse(decode_text(data, html=html) or "", out, limits)

    return parse_bytes


def _in(module: str, name: str) -> Callable[..., None]:
    """A parser of this package, whose module is imported when it first parses.

    Most commands open a source and parse nothing: the libraries of all formats cost them a fifth of a core-second.
    """

    def parse(*given: object) -> None:
        getattr(import_module(f"{__name__}.{module}"), name)(*given)

    return parse


def _office(name: str) -> str:
    return f"application/vnd.openxmlformats-officedocument.{name}"


# Formats by name. Those with ``claims`` are asked first, in this order; ``detect`` tells the others apart.
FORMATS: dict[str, Format] = {
    "pdf": Format("application/pdf", _in("pdf", "parse_pdf"), holds_more=True),
    "docx": Format(_office("wordprocessingml.document"), _in("docx", "parse_docx"), holds_more=True),
    "pptx": Format(_office("presentationml.presentation"), _in("pptx", "parse_pptx"), holds_more=True),
    "xlsx": Format(_office("spreadsheetml.sheet"), _in("xlsx", "parse_xlsx"), holds_more=True),
    "xls": Format("application/vnd.ms-excel", _in("xls", "parse_xls"), holds_more=True),
    "odf": Format("application/vnd.oasis.opendocument", _in("opendocument", "parse_odf"), holds_more=True),
    "epub": Format("application/epub+zip", _in("epub", "parse_epub"), holds_more=True),
    "eml": Format("message/rfc822", _in("mail", "parse_eml")),
    "mbox": Format("application/mbox", _in("mail", "parse_mbox")),
    "rtf": Format("application/rtf", _in("rtf", "parse_rtf"), holds_more=True),
    "xml": Format("application/xml", _in("markup", "parse_xml"), holds_more=True),
    "txt": Format("text/plain", decoded(_in("plain", "parse_text"))),
    "md": Format("text/markdown", decoded(_in("plain", "parse_markdown"))),
    "csv": Format("text/csv", decoded(_in("plain", "parse_csv"))),
    "json": Format("application/json", decoded(_in("plain", "parse_json"))),
    "ndjson": Format("application/x-ndjson", decoded(_in("plain", "parse_ndjson"))),
    "html": Format("text/html", decoded(_in("web", "parse_html"), html=True), holds_more=True),
    "ics": Format("text/calendar", decoded(_in("calendar", "parse_calendar"))),
    "vcf": Format("text/vcard", decoded(_in("calendar", "parse_calendar"))),
}
_OURS = frozenset(FORMATS)

# A format from outside adds its own ``unreadable_NAME``.
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
        *(f"unreadable_{kind}" for kind in FORMATS),
    ]
)


def parser_version() -> str:
    """The version of everything that shapes a file's text: ours, and of each format from outside its own."""
    load_extensions()
    others = [f"{name}={kind.version}" for name, kind in sorted(FORMATS.items()) if name not in _OURS]
    return ",".join([PARSER_VERSION, *others])


def parse_file(data: bytes, name: str, limits: Limits = DEFAULT_LIMITS) -> ParsedFile:
    """Return the text and structure of a file; raises RejectedRecord with one of ``REASONS``.

    ``empty_file`` and ``no_text`` are no faults: the file was read whole and holds none. A ``no_text`` is ``ignored``
    where the format can hold other things than text (a PDF of scanned pages), not for a text file of blanks.
    """
    from embedding.parsers.detect import detect

    load_extensions()
    if not data:
        raise RejectedRecord("empty_file", "0 bytes")
    kind = "txt"
    out = TextBuilder(limits)
    try:
        kind = _claimed(data, name) or detect(data, name, limits)
        with warnings.catch_warnings():
            # Parsers warn about styles and extensions that they skip; none of it concerns text.
            warnings.simplefilter("ignore")
            FORMATS[kind].parse(data, out, limits)
        return out.build(FORMATS[kind].media_type, _stem(name))
    except RejectedRecord as rejected:
        if rejected.reason == "no_text" and any(key.startswith("unreadable_") for key in out.meta):
            raise RejectedRecord(f"unreadable_{kind}", "the parts with its text") from None
        if rejected.reason == "no_text" and FORMATS[kind].holds_more:
            raise RejectedRecord("no_text", rejected.detail, ignored=True) from None
        raise
    except ImportError:  # the fault of an installation, and not of the file
        raise
    except MemoryError:
        raise RejectedRecord("out_of_memory", kind) from None
    except Exception as error:
        raise RejectedRecord(f"unreadable_{kind}", type(error).__name__) from None


def _claimed(data: bytes, name: str) -> str | None:
    """The first format that says that the file is its own."""
    return next((kind for kind, form in FORMATS.items() if form.claims and form.claims(data, name)), None)


def _stem(name: str) -> str:
    from embedding.parsers.detect import ending_of

    base = name.replace("\\", "/").rpartition("/")[2]
    ending = ending_of(name)
    return base[: -len(ending) - 1] if ending else base
