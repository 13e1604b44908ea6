"""Word: what Word shows is read, once, in its place; what was deleted or moved away is not."""

from __future__ import annotations

import io
import random
import zipfile

import pytest

from embedding.errors import RejectedRecord
from embedding.parsers import parse_file
from tests.support.office_files import chart, office, para, run, word, xml


def text_of(data: bytes) -> str:
    return parse_file(data, "letter.docx").text


def cell(*blocks: str, span: int = 1, merge: str = "") -> str:
    merged = {"": "", "start": '<w:vMerge w:val="restart"/>', "on": "<w:vMerge/>"}[merge]
    grid = f'<w:gridSpan w:val="{span}"/>' if span > 1 else ""
    inside = "".join(block if block.startswith("<") else para(block) for block in blocks)
    return f"<w:tc><w:tcPr>{grid}{merged}</w:tcPr>{inside}</w:tc>"


def table(*rows: str) -> str:
    return f"<w:tbl>{''.join(f'<w:tr>{row}</w:tr>' for row in rows)}</w:tbl>"


def box(text: str) -> str:
    """A text box as Word writes it: for itself, and again for older programs."""
    inside = f"<w:txbxContent>{para(text)}</w:txbxContent>"
    new = f"<w:drawing><wp:inline><a:graphic><a:graphicData><wps:wsp><wps:txbx>{inside}</wps:txbx></wps:wsp></a:graphicData></a:graphic></wp:inline></w:drawing>"
    return f'<w:r><mc:AlternateContent><mc:Choice Requires="wps">{new}</mc:Choice><mc:Fallback><w:pict><v:textbox>{inside}</v:textbox></w:pict></mc:Fallback></mc:AlternateContent></w:r>'


def test_a_name_over_two_columns_is_that_of_both_and_no_value_gets_the_next_one() -> None:
    body = table(cell("Person", span=2) + cell("Town"), cell("Ann") + cell("Lee") + cell("Oslo"))
    assert text_of(word(body)) == "Person: Ann; Person: Lee; Town: Oslo"


def test_a_value_over_two_columns_does_not_shift_the_ones_behind_it() -> None:
    body = table(
        cell("May") + cell("June") + cell("Sum"), cell("12", span=2) + cell("24"), cell("5") + cell("6") + cell("11")
    )
    assert text_of(word(body)) == "May / June: 12; Sum: 24\nMay: 5; June: 6; Sum: 11"


def test_cells_that_old_programs_merged_keep_their_columns() -> None:
    on = "<w:tc><w:tcPr><w:hMerge/></w:tcPr><w:p/></w:tc>"
    start = cell("Person").replace("<w:tcPr>", '<w:tcPr><w:hMerge w:val="restart"/>')
    assert (
        text_of(word(table(start + on + cell("Town"), cell("Ann") + cell("Lee") + cell("Oslo"))))
        == "Person: Ann; Person: Lee; Town: Oslo"
    )


def test_a_value_over_two_rows_is_said_of_both() -> None:
    body = table(
        cell("Region") + cell("Town"),
        cell("North", merge="start") + cell("Oslo"),
        cell("", merge="on") + cell("Bergen"),
    )
    assert text_of(word(body)) == "Region: North; Town: Oslo\nRegion: North; Town: Bergen"


def test_a_row_that_begins_later_keeps_its_columns() -> None:
    body = table(
        cell("A1") + cell("Town"), "<w:trPr><w:gridBefore w:val='1'/></w:trPr>" + cell("Oslo"), cell("x") + cell("Rome")
    )
    assert text_of(word(body)) == "Town: Oslo\nA1: x; Town: Rome"


def test_a_table_in_a_cell_is_read_once() -> None:
    inner = table(cell("Volt") + cell("Watt"), cell("230") + cell("50"))
    body = table(cell("Item") + cell("Data"), cell("Pump") + cell(inner + para()), cell("Fan") + cell("none"))
    assert text_of(word(body)) == "Item: Pump; Data: Volt: 230; Watt: 50\nItem: Fan; Data: none"


def test_a_table_that_only_arranges_blocks_is_read_as_those_blocks() -> None:
    inner = table(cell("Volt") + cell("Watt"), cell("230") + cell("50"))
    assert (
        text_of(word(table(cell(para("Left."), inner, para()) + cell("Right."))))
        == "Left.\n\nVolt: 230; Watt: 50\n\nRight."
    )


@pytest.mark.parametrize("place", ["paragraph", "cell"])
def test_a_text_box_is_read_once_wherever_it_is(place: str) -> None:
    paragraph = para("Before", box("In the box"))
    body = paragraph if place == "paragraph" else table(cell("A") + cell("B"), cell(paragraph) + cell("x"))
    assert text_of(word(body)).count("In the box") == 1


def test_moved_text_stands_in_its_new_place_only_and_so_does_a_deleted_row_nowhere() -> None:
    moved = para(f"<w:moveFrom>{run('The clause.')}</w:moveFrom>")
    here = para(f"<w:moveTo>{run('The clause.')}</w:moveTo>")
    gone = table(
        "<w:trPr><w:del/></w:trPr>" + cell("old") + cell("row"), cell("kept") + cell("row"), cell("2") + cell("3")
    )
    changed = para("Pay ", f"<w:del>{run('ten')}</w:del>", f"<w:ins>{run('twelve')}</w:ins>")
    assert (
        text_of(word(moved + para("Middle.") + here + changed + gone))
        == "Middle.\n\nThe clause.\n\nPay twelve\n\nkept: 2; row: 3"
    )


def test_a_formula_is_one_line_of_text() -> None:
    def r(text: str) -> str:
        return f"<m:r><m:t>{text}</m:t></m:r>"

    root = f"<m:rad><m:radPr/><m:deg/><m:e><m:sSup><m:e>{r('b')}</m:e><m:sup>{r('2')}</m:sup></m:sSup>{r('-4ac')}</m:e></m:rad>"
    formula = f"<m:oMath>{r('x=')}<m:f><m:num>{r('-b±')}{root}</m:num><m:den>{r('2a')}</m:den></m:f></m:oMath>"
    assert text_of(word(para("Here ", formula, " it is."))) == "Here x=(-b±√(b^2-4ac))/2a it is."


@pytest.mark.parametrize(
    "descr, read",
    [
        ("A red gate in a wall", True),
        ("Power generated by month", True),
        ("A close up of a sign&#10;&#10;Description automatically generated", False),
        ("Ein Bild, das Text enthält.&#10;&#10;Automatisch generierte Beschreibung", False),
        ("A graph AI-generated content may be incorrect.", False),
        ("C:\\Users\\jo\\logo.png", False),
        ("IMG_2041.jpg", False),
        ("Picture 3", False),
    ],
)
def test_what_an_author_says_of_a_picture_is_read_and_what_office_guessed_is_not(descr: str, read: bool) -> None:
    picture = (
        f'<w:r><w:drawing><wp:inline><wp:docPr id="1" name="Picture 1" descr="{descr}"/></wp:inline></w:drawing></w:r>'
    )
    text = text_of(word(para("Seen:", picture)))
    assert text == (f"Seen:\n{descr}" if read else "Seen:")


def test_a_lost_part_costs_itself_and_is_counted() -> None:
    related = {
        "i": ("image", "NULL"),
        "h": ("header", "header1.xml"),
        "f": ("footer", "footer1.xml"),
        "s": ("styles", "gone.xml"),
    }
    parsed = parse_file(
        word(para("The body."), {"word/footer1.xml": xml("w:ftr", para("Page foot"))}, related), "x.docx"
    )
    assert parsed.text == "The body.\n\nPage foot"
    assert parsed.meta == {"unreadable_parts": 1}  # the header: a lost picture has no text to lose


def test_a_document_whose_only_words_are_lost_is_damaged_and_one_without_words_is_not() -> None:
    for notes, reason, ignored in (("<torn", "unreadable_docx", False), (xml("w:footnotes", ""), "no_text", True)):
        with pytest.raises(RejectedRecord) as caught:
            parse_file(word(para(), {"word/notes.xml": notes}, {"n": ("footnotes", "notes.xml")}), "x.docx")
        assert (caught.value.reason, caught.value.ignored) == (reason, ignored)


def test_torn_notes_and_comments_cost_themselves() -> None:
    parts: dict[str, str | bytes] = {
        "word/footnotes.xml": "<w:footnotes",
        "word/comments.xml": xml("w:comments", f"<w:comment>{para('Check this')}</w:comment>"),
    }
    related = {"n": ("footnotes", "footnotes.xml"), "c": ("comments", "comments.xml")}
    parsed = parse_file(word(para("The body."), parts, related), "x.docx")
    assert parsed.text == "The body.\n\nCheck this" and parsed.meta == {"unreadable_parts": 1}


@pytest.mark.parametrize(
    "content_type",
    [
        "application/vnd.ms-word.document.macroEnabled.main+xml",
        "application/vnd.ms-word.template.macroEnabledTemplate.main+xml",
        "application/vnd.openxmlformats-officedocument.wordprocessingml.template.main+xml",
    ],
)
def test_templates_and_documents_with_macros_are_documents(content_type: str) -> None:
    data = office("docx", xml("w:document", f"<w:body>{para('Dear all')}</w:body>"), content_type=content_type)
    assert text_of(data) == "Dear all"


def test_a_strict_file_is_read_too() -> None:
    data = xml("w:document", f"<w:body>{para('Strictly speaking')}</w:body>").replace(
        "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "http://purl.oclc.org/ooxml/wordprocessingml/main",
    )
    assert text_of(office("docx", data)) == "Strictly speaking"


def test_fields_content_controls_and_readings() -> None:
    field = "<w:r><w:fldChar/><w:instrText>PAGE</w:instrText></w:r>" + run("see annex")
    control = f"<w:sdt><w:sdtPr><w:alias/></w:sdtPr><w:sdtContent>{run(' (final)')}</w:sdtContent></w:sdt>"
    choice = "<w:r><w:fldChar><w:ffData><w:ddList><w:result w:val='1'/><w:listEntry w:val='no'/><w:listEntry w:val='yes'/></w:ddList></w:ffData></w:fldChar></w:r>"
    ruby = f"<w:r><w:ruby><w:rt>{run('とうきょう')}</w:rt><w:rubyBase>{run('東京')}</w:rubyBase></w:ruby></w:r>"
    assert (
        text_of(word(para(field, control) + para("Agreed: ", choice) + para(ruby)))
        == "see annex (final)\n\nAgreed: yes\n\n東京(とうきょう)"
    )


def test_a_chart_in_a_document_is_read() -> None:
    drawing = '<w:r><w:drawing><wp:inline><a:graphic><a:graphicData><c:chart r:id="c1"/></a:graphicData></a:graphic></wp:inline></w:drawing></w:r>'
    parts: dict[str, str | bytes] = {
        "word/charts/chart1.xml": chart("barChart", "Rain", {"Bergen": {"May": "88", "June": "91"}})
    }
    assert (
        text_of(word(para(drawing), parts, {"c1": ("chart", "charts/chart1.xml")}))
        == "Chart: Rain\nBergen: May: 88; June: 91"
    )


def test_parts_that_cannot_be_unpacked_cost_themselves() -> None:
    noise = bytes(random.Random(1).randrange(256) for _ in range(4000))
    parts: dict[str, str | bytes] = {
        "word/media/image1.png": noise.hex(),
        "word/footnotes.xml": xml("w:footnotes", f"<w:footnote>{para(noise.hex())}</w:footnote>"),
    }
    related = {"i": ("image", "media/image1.png"), "n": ("footnotes", "footnotes.xml")}
    data = bytearray(word(para("The body."), parts, related))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in parts:
            info = archive.getinfo(name)
            begin = info.header_offset + 30 + len(name) + info.compress_size // 2
            data[begin : begin + 200] = bytes(200)
    parsed = parse_file(bytes(data), "x.docx")
    assert parsed.text == "The body." and parsed.meta == {"unreadable_parts": 1}


def test_a_long_value_over_many_rows_meets_the_limit_and_not_the_memory() -> None:
    rows = [cell("x" * 100_000, merge="start") + cell("a"), *[cell("", merge="on") + cell("b")] * 5000]
    with pytest.raises(RejectedRecord) as caught:
        parse_file(word(table(cell("Text") + cell("Sign"), *rows)), "x.docx")
    assert caught.value.reason == "too_much_text"
