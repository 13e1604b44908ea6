"""What people wrote onto a PDF's pages: values of form fields, text boxes, notes. A page's own text has none of it."""

from __future__ import annotations

import ctypes
import html
import re
from collections.abc import Callable, Iterator

import pypdfium2 as pdfium  # type: ignore[import-untyped]
import pypdfium2.raw as raw  # type: ignore[import-untyped]

# What is pointed at or shown by others: a link's address, the window of a note, a field (read apart).
_WITHOUT_WORDS = frozenset([raw.FPDF_ANNOT_LINK, raw.FPDF_ANNOT_POPUP, raw.FPDF_ANNOT_WIDGET])
_BOXES = frozenset([raw.FPDF_FORMFIELD_CHECKBOX, raw.FPDF_FORMFIELD_RADIOBUTTON])
_CHOICES = frozenset([raw.FPDF_FORMFIELD_COMBOBOX, raw.FPDF_FORMFIELD_LISTBOX])
_TEXTLESS_FIELDS = frozenset([raw.FPDF_FORMFIELD_PUSHBUTTON, raw.FPDF_FORMFIELD_SIGNATURE])
_PASSWORD_FIELD = 1 << 13
# Names that programs give: "f1_01[0]", "Text7", "undefined_2".
_WORDS = re.compile(r"(?!text|undefined|check ?box|field)[^\W\d_]+(?:[ -][^\W\d_]+)*$", re.IGNORECASE)
_TAGS = re.compile(r"<[^<>]*>")
_MAX_ANNOTATIONS = 20_000  # on one page; a form of 300 fields is a long one


def annotation_lines(document: pdfium.PdfDocument, page: pdfium.PdfPage) -> Iterator[str]:
    """Yield one line for each filled field and each note of a page, in the page's order, none twice."""
    seen: set[str] = set()
    form = document.formenv.raw if document.formenv is not None else None
    for number in range(min(raw.FPDFPage_GetAnnotCount(page), _MAX_ANNOTATIONS)):
        annotation = raw.FPDFPage_GetAnnot(page, number)
        if not annotation:
            continue
        try:
            line = _line(annotation, form)
        finally:
            raw.FPDFPage_CloseAnnot(annotation)
        if line and line not in seen:
            seen.add(line)
            yield line


def _line(annotation: object, form: object) -> str:
    if raw.FPDFAnnot_GetFlags(annotation) & raw.FPDF_ANNOT_FLAG_HIDDEN:
        return ""
    kind = raw.FPDFAnnot_GetSubtype(annotation)
    if kind == raw.FPDF_ANNOT_WIDGET:
        return _field(annotation, form) if form else ""
    if kind in _WITHOUT_WORDS:
        return ""
    words = _string(lambda *into: raw.FPDFAnnot_GetStringValue(annotation, b"Contents", *into))
    # A box may hold its words as XHTML alone.
    rich = "" if words else _string(lambda *into: raw.FPDFAnnot_GetStringValue(annotation, b"RC", *into))
    return words or " ".join(html.unescape(_TAGS.sub(" ", rich)).split())


def _field(annotation: object, form: object) -> str:
    kind = raw.FPDFAnnot_GetFormFieldType(form, annotation)
    if kind in _TEXTLESS_FIELDS or raw.FPDFAnnot_GetFormFieldFlags(form, annotation) & _PASSWORD_FIELD:
        return ""
    if kind in _BOXES and not raw.FPDFAnnot_IsChecked(form, annotation):
        return ""
    value = ", ".join(_chosen(annotation, form)) if kind in _CHOICES else ""
    if not value:
        value = _string(lambda *into: raw.FPDFAnnot_GetFormFieldValue(form, annotation, *into))
    label = _string(lambda *into: raw.FPDFAnnot_GetFormFieldAlternateName(form, annotation, *into))
    if not label:
        name = _string(lambda *into: raw.FPDFAnnot_GetFormFieldName(form, annotation, *into)).rpartition(".")[2]
        label = name if _WORDS.match(name) else ""
    if kind in _BOXES and not label:
        return ""  # "Yes", and nothing says to what
    return f"{label}: {value}" if value and label else value


def _chosen(annotation: object, form: object) -> Iterator[str]:
    """Yield the labels of a list's chosen entries; its value may be a code that is not shown."""
    for number in range(min(max(0, raw.FPDFAnnot_GetOptionCount(form, annotation)), 10_000)):
        if raw.FPDFAnnot_IsOptionSelected(form, annotation, number):
            yield _string(lambda *into, at=number: raw.FPDFAnnot_GetOptionLabel(form, annotation, at, *into))


def _string(read: Callable[..., int]) -> str:
    """Return a UTF-16 string that PDFium writes into a buffer, whose size in bytes it tells when asked without one."""
    size = read(None, 0)
    if size <= 2:
        return ""
    buffer = (ctypes.c_ushort * (size // 2))()
    read(buffer, size)
    return bytes(buffer).decode("utf-16-le", "replace").rstrip("\x00").strip()
