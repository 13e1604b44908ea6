"""PDF to text, page by page. With pdf_notes, the only use of PDFium; draws nothing and runs no script of a document."""

from __future__ import annotations

import logging
import re
import threading

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as pdfium_raw  # type: ignore[import-untyped]

from embedding.errors import RejectedRecord
from embedding.files.parsed import Limits, TextBuilder
from embedding.files.pdf_notes import annotation_lines

# It says on standard error that an XFA form is read by its ordinary half, once a file.
logging.getLogger("pypdfium2").setLevel(logging.ERROR)

_XFA = (pdfium_raw.FORMTYPE_XFA_FULL, pdfium_raw.FORMTYPE_XFA_FOREGROUND)

# PDFium is not thread-safe, not even across two documents.
_PDFIUM = threading.Lock()

# What PDFium writes for a hyphen at the end of a line: the word goes on in the next one.
_LINE_END_HYPHEN = re.compile("[\x02\ufffe\uffff]\r?\n?")

# Producers that put the name of the source file where the title belongs.
_JUNK_TITLE = re.compile(
    r"^(microsoft \w+ - .*|untitled.*|.*\.(docx?|indd|pdf|tmp|tex|dvi|pptx?|xlsx?))$", re.IGNORECASE
)


def parse_pdf(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Read every page's text, then what was filled in and noted on it; marks are ``{"page": n}`` from 1."""
    with _PDFIUM:
        document = _open(data)
        try:
            _read(document, out, limits)
        finally:
            document.close()


def _open(data: bytes) -> pdfium.PdfDocument:
    try:
        return pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if error.err_code == pdfium_raw.FPDF_ERR_PASSWORD:
            raise RejectedRecord("encrypted_pdf", "needs a password") from None
        raise


def _read(document: pdfium.PdfDocument, out: TextBuilder, limits: Limits) -> None:
    count = len(document)
    if count > limits.pdf_pages:
        raise RejectedRecord("too_many_pages", f"{count} pages")
    title = str(document.get_metadata_value("Title") or "")
    if not _JUNK_TITLE.match(title.strip()):
        out.title = title
    if document.get_formtype() != pdfium_raw.FORMTYPE_NONE:
        document.init_forms()  # values of fields are only told to a form's owner
    bad = uncoded = written = 0
    for number in range(count):
        try:
            text, lines, letters = _read_page(document, number)
        except pdfium.PdfiumError:
            # One broken page of a long report is no reason to lose the others; the count tells of it.
            bad += 1
            continue
        out.mark({"page": number + 1})
        out.add(_LINE_END_HYPHEN.sub("", text))
        out.lines(lines)
        written += bool(text.strip() or lines)
        uncoded += letters
    if bad and bad == count:
        raise RejectedRecord("unreadable_pdf", "no page could be loaded")
    if not written and (uncoded or bad):
        raise RejectedRecord(
            "unreadable_pdf", "its letters have no code" if uncoded else "pages that could not be loaded"
        )
    out.meta["pages"] = count
    if bad:
        out.meta["unreadable_pages"] = bad


def _read_page(document: pdfium.PdfDocument, number: int) -> tuple[str, list[str], bool]:
    """Return a page's text, the lines of its fields and notes, and whether it has letters that say nothing."""
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            text = str(text_page.get_text_range())
            # A font without a table of its letters gives none; a scan has no letters at all.
            nothing = not text.strip("\x00\ufffd \t\r\n")
            uncoded = nothing and any(
                pdfium_raw.FPDFText_GetUnicode(text_page, at) in (0, 0xFFFD) for at in range(text_page.count_chars())
            )
        finally:
            text_page.close()
        return ("" if nothing else text), list(annotation_lines(document, page)), uncoded
    finally:
        page.close()
