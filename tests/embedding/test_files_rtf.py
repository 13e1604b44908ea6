"""RTF: what Word shows is read, whatever a picture's bytes look like, and nothing of a picture is."""

from __future__ import annotations

import pytest

from embedding.parsers import parse_file


def rtf(body: bytes | str, head: str = r"\ansi\ansicpg1252") -> bytes:
    return b"{\\rtf1" + head.encode() + b" " + (body if isinstance(body, bytes) else body.encode("latin-1")) + b"}"


def text_of(body: bytes | str, head: str = r"\ansi\ansicpg1252") -> str:
    return parse_file(rtf(body, head), "letter.rtf").text


@pytest.mark.parametrize(
    "picture",
    [
        rb"{\pict\pngblip\bin 89504e47}",
        rb"{\pict\pngblip{\*\blipuid 00ff}\bin 89504e47}",
        rb"{\pict\jpegblip\bin7 ab{\}x}}",
        rb"{\*\shppict{\pict\bin4 }}}}}}",
        rb"{\object\objemb{\*\objdata 0105}{\result{\pict\bin3 {{{}}}",
        rb"{\pict\bin-4 ffd8}",
        rb"{\pict{\*\picprop{\sp{\sn shapeType}{\sv 75}}}\bin 89}",
    ],
)
def test_a_picture_s_bytes_are_passed_over_and_what_follows_is_read(picture: bytes) -> None:
    assert text_of(rb"Before.\par" + picture + rb"\par After.\par") == "Before.\n\nAfter."


@pytest.mark.parametrize("side", ["header", "footer", "footnote", "annotation"])
def test_a_side_text_that_its_writer_calls_optional_is_read_too(side: str) -> None:
    text = text_of(rf"Total{{\*\{side}\chftn\~\plain\pard {{\pard See annex B\par}}}}.\par")
    assert text.split("\n\n") == ["Total.", "See annex B"]


def test_headers_footnotes_and_comments_are_read_after_the_body() -> None:
    body = r"{\header Acme Ltd}{\footerf Page}Total{\footnote See annex B}.\par{\*\annotation{\*\atnid JR}Check this}"
    parsed = parse_file(rtf(body), "x.rtf")
    assert parsed.text == "Total.\n\nSee annex B\n\nCheck this\n\nAcme Ltd\n\nPage"
    assert [mark.meta["part"] for mark in parsed.marks] == ["footnotes", "comments", "header", "footer"]


@pytest.mark.parametrize(
    "written, shown",
    [
        (r"\u-10179?\u-8704?", "\U0001f600"),
        (r"\u8364\'80 5", "\u20ac 5"),
        (r"{\uc2\u29233\'88\'a4!}", "\u7231!"),
        (r"{\uc0\u233t\u233}", "\u00e9t\u00e9"),
        (r"{\upr{ansi}{\*\ud{\u8984?}}}", "\u2318"),
        (r"Stra\'dfe\~1 \endash  2\_3", "Stra\u00dfe\u00a01 \u2013 2-3"),
    ],
)
def test_characters_beyond_the_code_page(written: str, shown: str) -> None:
    assert text_of(written) == shown


def test_each_font_has_its_code_page_and_a_character_may_be_half_a_letter() -> None:
    fonts = r"{\fonttbl{\f0\fcharset0 Arial;}{\f1\fcharset204 Arial Cyr;}{\f2\fcharset128 MS Mincho;}}"
    assert (
        text_of(fonts + r"\f0 \'e9 {\f1 \'ec\'e8\'f0} {\f2 \'83A\'83\'42} \'e9")
        == "\u00e9 \u043c\u0438\u0440 \u30a2\u30a3 \u00e9"
    )
    assert text_of(r"\'f0\'e5\'ea\'e0", r"\ansi\ansicpg1251") == "\u0440\u0435\u043a\u0430"


def test_a_table_keeps_its_columns_and_headings_their_level() -> None:
    row = r"\trowd\cellx1\cellx2\pard\intbl {}\cell {}\cell\row"
    body = (
        r"\pard\outlinelevel0 Rates\par\pard "
        + row.format("Town", "Rate")
        + row.format("Bern", r"4\par 5")
        + r"\pard End\par"
    )
    parsed = parse_file(rtf(body), "x.rtf")
    assert parsed.text == "Rates\n\nTown: Bern; Rate: 4 5\n\nEnd"
    assert parsed.marks[0].meta == {"heading": "Rates"}


def test_deleted_text_and_a_field_s_instruction_are_not_read_and_its_result_is() -> None:
    body = r'Pay {\deleted ten}{\revised twelve} {\field{\*\fldinst HYPERLINK "http://x.example"}{\fldrslt here}}'
    assert text_of(body) == "Pay twelve here"


def test_a_text_box_is_read_once_and_a_picture_s_description_too() -> None:
    box = r"{\shp{\*\shpinst{\sp{\sn shapeType}{\sv 202}}{\sp{\sn wzDescription}{\sv A red gate}}{\shptxt In a box}}{\shprslt In a box}}"
    assert text_of(box + r"\par") == "In a box\n\nA red gate"


def test_only_the_first_word_of_a_group_can_be_optional() -> None:
    assert text_of(r"{\loch\f2\*\cs7 The quick fox}") == "The quick fox"
    assert text_of(r"{\*\unknown hidden}seen") == "seen"


def test_a_torn_end_and_words_behind_the_document() -> None:
    assert parse_file(rb"{\rtf1 Kept}behind", "x.rtf").text == "Kept"
    assert parse_file(b"{\\rtf1 Kept\\", "x.rtf").text == "Kept"


def test_the_title_is_the_document_s_own() -> None:
    assert parse_file(rtf(r"{\info{\title Minutes}{\author A}}Words"), "x.rtf").title == "Minutes"
