"""PDF to text, page by page. With pdf_notes, the only use of PDFium; draws nothing and runs no script of a document."""

from __future__ import annotations

import logging
import re
import threading
import unicodedata

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as pdfium_raw  # type: ignore[import-untyped]

from embedding.errors import RejectedRecord
from embedding.parsers.parsed import Limits, TextBuilder
from embedding.parsers.pdf_notes import annotation_lines

# It says on standard error that an XFA form is read by its ordinary half, once a file.
logging.getLogger("pypdfium2").setLevel(logging.ERROR)

_XFA = (pdfium_raw.FORMTYPE_XFA_FULL, pdfium_raw.FORMTYPE_XFA_FOREGROUND)

# PDFium is not thread-safe, not even across two documents.
_PDFIUM = threading.Lock()

# PDFium writes a noncharacter for a hyphen at a line's end, whose word goes on, and for a letter without a code just as
# well; of a font that says nothing about its letters it gives their numbers in the font.
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
_HYPHENS = "\x02\ufffe\uffff"

# The numbers that TeX's two encodings give to ligatures: fonts of theirs are the usual ones that say nothing.
_LIGATURES = {
    **dict(zip("\x0b\x0c\x0e\x0f", ("ff", "fi", "ffi", "ffl"), strict=True)),
    **dict(zip("\x1b\x1c\x1d\x1e\x1f", ("ff", "fi", "fl", "ffi", "ffl"), strict=True)),
}

# TeX sets an accent as a sign of its own, and PDFium then sees blanks around it: "L\u00e1szl \u00b4 o".
_ACCENTS = "\u00b4\u00a8\u02c6\u02dc\u02c7\u02d8\u02d9\u02da\u02dd"
_COMBINING = dict(zip(_ACCENTS, "\u0301\u0308\u0302\u0303\u030c\u0306\u0307\u030a\u030b", strict=True))
_LOOSE_ACCENT = re.compile(rf"(?<=[^\W\d_]) ([{_ACCENTS}]) ([^\W\d_])")

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
        out.add(text)
        out.lines(lines)
        written += bool(text.strip() or lines)
        uncoded += letters
    if bad and bad == count:
        raise RejectedRecord("unreadable_pdf", "no page could be loaded")
    if not written and (uncoded or bad or document.get_formtype() in _XFA):
        # It has a text that was not read: no scan.
        raise RejectedRecord("unreadable_pdf", "letters without a code, lost pages, or an XFA form alone")
    out.meta["pages"] = count
    if bad:
        out.meta["unreadable_pages"] = bad
    if uncoded:
        out.meta["unreadable_letters"] = uncoded


def _read_page(document: pdfium.PdfDocument, number: int) -> tuple[str, list[str], int]:
    """Return a page's text, the lines of its fields and notes, and how many letters have no code."""
    page = document[number]
    try:
        text_page = page.get_textpage()
        try:
            text, uncoded = _page_text(text_page)
        finally:
            text_page.close()
        return text, list(annotation_lines(document, page)), uncoded
    finally:
        page.close()


def _page_text(page: pdfium.PdfTextPage) -> tuple[str, int]:
    """Return the text, with U+FFFD for each letter that its font gives no code for, and their number."""
    text = str(page.get_text_range())
    uncoded = 0
    aligned = len(text) == page.count_chars()

    def replace(found: re.Match[str]) -> str:
        nonlocal uncoded
        at, letter = found.start(), found[0]
        if letter in _HYPHENS and (not aligned or pdfium_raw.FPDFText_IsHyphen(page, at) == 1):
            return ""
        if letter in _LIGATURES and text[at - 1 : at + 2].replace(letter, "").isalpha():
            return _LIGATURES[letter]
        uncoded += 1
        return "\ufffd"

    text = _ODD.sub(replace, text)
    if not text.strip("\ufffd \t\r\n"):
        text = ""  # a font that gives codes for none of its letters; a scan has no letters at all
    return _LOOSE_ACCENT.sub(_accented, text), uncoded


def _accented(found: re.Match[str]) -> str:
    letter = unicodedata.normalize("NFC", found[2].replace("\u0131", "i") + _COMBINING[found[1]])
    return letter if len(letter) == 1 else found[0]
