"""PDF: what was filled in and noted on a page is read with it, and glyphs without a code are reported as lost."""

from __future__ import annotations

import pytest

from embedding.errors import RejectedRecord
from embedding.parsers import parse_file


def pdf(page: str = "", annotations: str = "", objects: dict[int, str] | None = None, form: str = "") -> bytes:
    """A page of 300 by 200; ``objects`` are numbered from 10, ``annotations`` are references to them."""
    content = f"BT /F1 12 Tf 20 150 Td {page} ET" if page else ""
    made = {
        1: f"<</Type/Catalog/Pages 2 0 R{f'/AcroForm<<{form}/DA(/F1 12 Tf)/DR<</Font<</F1 5 0 R>>>>>>' if form else ''}>>",
        2: "<</Type/Pages/Kids[3 0 R]/Count 1>>",
        3: f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 300 200]/Contents 4 0 R/Resources<</Font<</F1 5 0 R/F2 6 0 R>>>>/Annots[{annotations}]>>",
        4: f"<</Length {len(content)}>>stream\n{content}\nendstream",
        5: "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
        # A font that says nothing of which letters its glyphs are, as old typesetting programs write.
        6: "<</Type/Font/Subtype/Type3/FontBBox[0 0 1 1]/FontMatrix[1 0 0 1 0 0]/FirstChar 7/LastChar 14/Widths[1 1 1 1 1 1 1 1]"
        "/Encoding<</Differences[7/g7/g7/g7/g7/g7/g7/g7/g7]>>/CharProcs<</g7 7 0 R>>>>",
        7: "<</Length 24>>stream\n1 0 d0 0 0 .6 .6 re f    \nendstream",
        **(objects or {}),
    }
    out, places = b"%PDF-1.7\n", {}
    for number, body in made.items():
        places[number] = len(out)
        out += f"{number} 0 obj\n{body}\nendobj\n".encode("latin-1")
    size = max(made) + 1
    rows = "".join(f"{places[n]:010} 00000 n \n" if n in places else "0000000000 65535 f \n" for n in range(size))
    return out + f"xref\n0 {size}\n{rows}trailer<</Size {size}/Root 1 0 R>>\nstartxref\n{len(out)}\n%%EOF".encode()


def widget(kind: str, rest: str) -> str:
    return f"<</Type/Annot/Subtype/Widget/FT/{kind}/Rect[50 50 250 70]/F 4{rest}>>"


def text_of(data: bytes) -> str:
    return parse_file(data, "form.pdf").text


@pytest.mark.parametrize("page", ["(Name of applicant:) Tj", ""])
@pytest.mark.parametrize(
    "field, line",
    [
        (widget("Tx", "/T(name)/V(Jane Roe of Leeds)"), "name: Jane Roe of Leeds"),
        (widget("Tx", "/T(f1_01[0])/V(Jane Roe of Leeds)"), "Jane Roe of Leeds"),
        (widget("Tx", "/T(f1_01[0])/TU(Your name)/V(Jane Roe)"), "Your name: Jane Roe"),
        (widget("Tx", "/T(name)/V<FEFF004A0069015900ED>"), "name: Jiří"),
        (widget("Ch", "/Ff 131072/T(land)/V(de)/Opt[[(de)(Germany)][(fr)(France)]]"), "land: Germany"),
        (widget("Btn", "/T(agree)/TU(I agree)/V/Yes/AS/Yes/AP<</N<</Yes 7 0 R/Off 7 0 R>>>>"), "I agree: Yes"),
    ],
)
def test_a_field_s_value_is_read_with_its_name_also_on_a_page_without_text(page: str, field: str, line: str) -> None:
    data = pdf(page, "10 0 R", {10: field}, form="/Fields[10 0 R]")
    assert text_of(data) == f"Name of applicant:\n\n{line}" if page else line


@pytest.mark.parametrize(
    "field",
    [
        widget("Btn", "/T(agree)/TU(I agree)/V/Off/AS/Off/AP<</N<</Yes 7 0 R/Off 7 0 R>>>>"),
        widget("Tx", "/Ff 8192/T(pin)/V(4711)"),
        widget("Tx", "/T(empty)"),
        widget("Tx", "/T(name)/V(seen by none)").replace("/F 4", "/F 2"),
    ],
)
def test_boxes_without_a_tick_passwords_and_hidden_fields_are_not(field: str) -> None:
    assert text_of(pdf("(Form) Tj", "10 0 R", {10: field}, form="/Fields[10 0 R]")) == "Form"


@pytest.mark.parametrize("kind", ["FreeText", "Text", "Highlight", "Stamp"])
def test_what_was_noted_on_a_page_is_read(kind: str) -> None:
    note = f"<</Type/Annot/Subtype/{kind}/Contents(Reviewed, pay by Friday)/Rect[50 50 250 70]/F 4>>"
    popup = "<</Type/Annot/Subtype/Popup/Parent 10 0 R/Contents(Reviewed, pay by Friday)/Rect[0 0 9 9]>>"
    assert text_of(pdf("(Invoice) Tj", "10 0 R 11 0 R", {10: note, 11: popup})) == "Invoice\n\nReviewed, pay by Friday"


def test_a_letter_without_a_code_is_shown_as_lost_and_a_hyphen_joins_its_word() -> None:
    parsed = parse_file(pdf("(an) Tj /F2 12 Tf <07> Tj /F1 12 Tf (el to im-) Tj 0 -14 Td (portant) Tj"), "x.pdf")
    assert parsed.text == "an\ufffdel to important" and parsed.meta["unreadable_letters"] == 1


def test_a_ligature_of_a_typesetter_s_font_is_spelled_out() -> None:
    assert text_of(pdf("(di) Tj /F2 12 Tf <0E> Tj /F1 12 Tf (cult) Tj")) == "difficult"


def test_a_page_of_letters_without_codes_is_no_scan() -> None:
    with pytest.raises(RejectedRecord) as caught:
        parse_file(pdf("/F2 12 Tf <070707> Tj"), "x.pdf")
    assert (caught.value.reason, caught.value.ignored) == ("unreadable_pdf", False)
    with pytest.raises(RejectedRecord) as caught:
        parse_file(pdf(), "scan.pdf")
    assert (caught.value.reason, caught.value.ignored) == ("no_text", True)


@pytest.mark.parametrize("written, shown", [("(L\\341szl \\264 o) Tj", "László"), ("(a \\264 2) Tj", "a ´ 2")])
def test_an_accent_that_was_set_apart_is_put_on_its_letter(written: str, shown: str) -> None:
    font = {5: "<</Type/Font/Subtype/Type1/BaseFont/Helvetica/Encoding/WinAnsiEncoding>>"}
    assert text_of(pdf(written, objects=font)) == shown


def test_a_box_whose_words_are_xhtml_alone_is_read() -> None:
    note = "<</Type/Annot/Subtype/FreeText/RC(<body><p>Paid &amp; done</p></body>)/Rect[50 50 250 70]/F 4>>"
    assert text_of(pdf("(Invoice) Tj", "10 0 R", {10: note})) == "Invoice\n\nPaid & done"
