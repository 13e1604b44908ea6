"""PDF to text, page by page. Owns the only use of PDFium; draws nothing and runs no script of a document."""

from __future__ import annotations

import re
import threading

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as pdfium_raw  # type: ignore[import-untyped]

from embedding.errors import RejectedRecord
from embedding.files.parsed import Limits, TextBuilder

# PDFium is not thread-safe, not even across two documents.
_PDFIUM = threading.Lock()

# What PDFium writes for a hyphen at the end of a line: the word goes on in the next one.
_LINE_END_HYPHEN = re.compile("[\x02\ufffe\uffff]\r?\n?")

# Producers that put the name of the source file where the title belongs.
_JUNK_TITLE = re.compile(
    r"^(microsoft \w+ - .*|untitled.*|.*\.(docx?|indd|pdf|tmp|tex|dvi|pptx?|xlsx?))$", re.IGNORECASE
)


def parse_pdf(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Read every page's text layer; marks are ``{"page": n}`` from 1."""
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
    bad = 0
    for number in range(count):
        try:
            text = _page_text(document, number)
        except pdfium.PdfiumError:
            # One broken page of a long report is no reason to lose the others; the count tells of it.
            bad += 1
            continue
        out.mark({"page": number + 1})
        out.add(_LINE_END_HYPHEN.sub("", text))
    if bad and bad == count:
        raise RejectedRecord("unreadable_pdf", "no page could be loaded")
    out.meta["pages"] = count
    if bad:
        out.meta["unreadable_pages"] = bad


def _page_text(document: pdfium.PdfDocument, number: int) -> str:
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            return str(text_page.get_text_range())
        finally:
            text_page.close()
    finally:
        page.close()
