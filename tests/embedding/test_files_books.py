"""EPUB and OpenDocument: what can be read is read, what is lost is counted, and nothing is glued or shifted."""

from __future__ import annotations

import pytest

from embedding.errors import RejectedRecord
from embedding.parsers import parse_file
from tests.support.office_files import zipped

CONTAINER = '<container><rootfiles><rootfile full-path="OPS/book.opf"/></rootfiles></container>'


def book(
    pages: dict[str, str], *, spine: list[str] | None = None, extra: dict[str, str | bytes] | None = None
) -> bytes:
    names = list(spine if spine is not None else pages)
    items = "".join(
        f'<item id="i{n}" href="{name}" media-type="application/xhtml+xml"/>' for n, name in enumerate(names)
    )
    order = "".join(f'<itemref idref="i{n}"/>' for n in range(len(names)))
    return zipped(
        {
            "mimetype": "application/epub+zip",
            "META-INF/container.xml": CONTAINER,
            "OPS/book.opf": f"<package><metadata><title>A Book</title></metadata><manifest>{items}</manifest><spine>{order}</spine></package>",
            **{f"OPS/{name}": f"<html><body>{page}</body></html>" for name, page in pages.items()},
            **(extra or {}),
        }
    )


def test_a_missing_chapter_costs_itself_and_is_counted() -> None:
    parsed = parse_file(
        book({"a.xhtml": "<p>One", "c.xhtml": "<p>Three"}, spine=["a.xhtml", "b.xhtml", "c.xhtml"]), "x.epub"
    )
    assert parsed.text == "One\n\nThree" and parsed.title == "A Book"
    assert parsed.meta == {"unreadable_chapters": 1}


def test_a_chapter_that_no_one_can_read_costs_itself() -> None:
    deep = "<div>" * 5000
    parsed = parse_file(book({"a.xhtml": "<p>One", "b.xhtml": deep + "x"}), "x.epub")
    assert parsed.text == "One" and parsed.meta == {"unreadable_chapters": 1}


def test_a_book_of_which_nothing_can_be_read_is_damaged() -> None:
    with pytest.raises(RejectedRecord) as caught:
        parse_file(book({}, spine=["a.xhtml"]), "x.epub")
    assert (caught.value.reason, caught.value.ignored) == ("unreadable_epub", False)


def test_names_are_found_whatever_their_case_and_a_book_without_contents_still_has_pages() -> None:
    assert (
        parse_file(
            book({"Chapter%201.xhtml": ""}, extra={"OPS/chapter 1.xhtml": "<p>One"}, spine=["Chapter%201.XHTML"]), "x"
        ).text
        == "One"
    )
    pages: dict[str, str | bytes] = {"mimetype": "application/epub+zip", "b.xhtml": "<p>Two", "a.xhtml": "<p>One"}
    assert parse_file(zipped(pages), "x.epub").text == "One\n\nTwo"


def test_locked_chapters_are_told_from_locked_fonts() -> None:
    def locks(algorithm: str, name: str) -> dict[str, str | bytes]:
        entry = (
            f'<EncryptedData><EncryptionMethod Algorithm="{algorithm}"/><CipherReference URI="{name}"/></EncryptedData>'
        )
        return {"META-INF/encryption.xml": f"<encryption>{entry}</encryption>"}

    assert (
        parse_file(
            book({"a.xhtml": "<p>One"}, extra=locks("http://www.idpf.org/2008/embedding", "OPS/f.otf")), "x"
        ).text
        == "One"
    )
    with pytest.raises(RejectedRecord) as caught:
        parse_file(
            book({"a.xhtml": "\x07"}, extra=locks("http://www.w3.org/2001/04/xmlenc#aes128-cbc", "OPS/a.xhtml")), "x"
        )
    assert caught.value.reason == "encrypted_epub"


# -- OpenDocument ------------------------------------------------------------------------------------------------------

ODF = (
    " ".join(
        f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{uri}:1.0"'
        for name, uri in {
            "office": "office",
            "text": "text",
            "table": "table",
            "draw": "drawing",
            "svg": "svg-compatible",
            "style": "style",
            "chart": "chart",
            "presentation": "presentation",
        }.items()
    )
    + ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:xlink="http://www.w3.org/1999/xlink"'
)


def odf(body: str, kind: str = "text", parts: dict[str, str | bytes] | None = None) -> bytes:
    content = f"<office:document-content {ODF}><office:body><office:{kind}>{body}</office:{kind}></office:body></office:document-content>"
    return zipped({"mimetype": f"application/vnd.oasis.opendocument.{kind}", "content.xml": content, **(parts or {})})


def test_notes_and_comments_are_not_glued_into_the_word_before_them() -> None:
    note = '<text:note text:note-class="footnote"><text:note-citation>1</text:note-citation><text:note-body><text:p>See annex B</text:p></text:note-body></text:note>'
    comment = "<office:annotation><dc:creator>JR</dc:creator><dc:date>2024-01-01</dc:date><text:p>Is this so?</text:p></office:annotation>"
    parsed = parse_file(odf(f"<text:p>The total{note} is{comment} five.</text:p>"), "x.odt")
    assert parsed.text == "The total is five.\n\nSee annex B\n\nIs this so?"
    assert [mark.meta["part"] for mark in parsed.marks] == ["footnotes", "comments"]


def test_merged_cells_keep_their_columns_and_inner_tables_are_read_once() -> None:
    def cell(text: str, how: str = "") -> str:
        return f"<table:table-cell {how}><text:p>{text}</text:p></table:table-cell>"

    covered = "<table:covered-table-cell/>"
    rows = [
        cell("Team") + cell("Days", 'table:number-columns-spanned="2"') + covered + cell("Sum"),
        cell("Red", 'table:number-rows-spanned="2"') + cell("3") + cell("4") + cell("7"),
        covered + cell("5") + cell("6") + cell("11"),
    ]
    table = f'<table:table table:name="T">{"".join(f"<table:table-row>{row}</table:table-row>" for row in rows)}</table:table>'
    assert (
        parse_file(odf(table), "x.odt").text
        == "Team: Red; Days: 3; Days: 4; Sum: 7\nTeam: Red; Days: 5; Days: 6; Sum: 11"
    )


def test_headers_footers_descriptions_and_embedded_charts() -> None:
    picture = "<draw:frame><svg:title>A red gate</svg:title></draw:frame>"
    object_ = '<draw:frame><draw:object xlink:href="./Object 1"/></draw:frame>'
    chart = f"<office:document-content {ODF}><office:body><office:chart><chart:chart><chart:title><text:p>Rain</text:p></chart:title></chart:chart></office:chart></office:body></office:document-content>"
    styles = f"<office:document-styles {ODF}><office:master-styles><style:master-page><style:header><text:p>Acme Ltd</text:p></style:header><style:footer><text:p>Page <text:page-number>1</text:page-number></text:p></style:footer></style:master-page></office:master-styles></office:document-styles>"
    data = odf(
        f"<text:p>Seen: {picture}</text:p><text:p>{object_}</text:p>",
        parts={"styles.xml": styles, "Object 1/content.xml": chart},
    )
    assert parse_file(data, "x.odt").text == "Seen:\nA red gate\n\nRain\n\nAcme Ltd"


def test_a_torn_side_part_costs_itself() -> None:
    parsed = parse_file(odf("<text:p>Kept</text:p>", parts={"meta.xml": "<torn", "styles.xml": "<torn"}), "x.odt")
    assert parsed.text == "Kept" and parsed.meta == {"unreadable_parts": 2}


def test_a_document_whose_kind_is_not_written_down_is_no_archive() -> None:
    data = odf("<text:p>Kept</text:p>", parts={"mimetype": "", "meta.xml": "<m/>"})
    assert parse_file(data, "x.odt").text == "Kept"
    with pytest.raises(RejectedRecord) as caught:
        parse_file(zipped({"Index/Document.iwa": b"\0", "preview.jpg": b""}), "letter.pages")
    assert (caught.value.detail, caught.value.ignored) == ("application/vnd.apple.iwork", False)


def test_a_cell_that_says_it_stands_for_millions_meets_the_limit_and_not_the_memory() -> None:
    cell = f'<table:table-cell table:number-columns-repeated="9999"><text:p>{"x" * 50_000}</text:p></table:table-cell>'
    with pytest.raises(RejectedRecord) as caught:
        parse_file(
            odf(
                f'<table:table><table:table-row table:number-rows-repeated="99999">{cell}</table:table-row></table:table>',
                "spreadsheet",
            ),
            "x.ods",
        )
    assert caught.value.reason == "too_much_text"
