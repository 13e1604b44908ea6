"""HTML and XML: all that a reader sees, in reading order, and no column's value under another's name."""

from __future__ import annotations

import pytest

from embedding.errors import RejectedRecord
from embedding.parsers import parse_file


def text_of(page: str, name: str = "page.html") -> str:
    return parse_file(page.encode(), name).text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("<html><body><p>One</p></body></html><p>Two</p>", "One\n\nTwo"),
        ("<html><body>One</body></html>Two <b>bold</b>", "One\n\nTwo bold"),
        (
            "<html><body>One</body></html><!-- c --><p>Two<html><body>Three</body></html><!-- d --><p>Four",
            "One\n\nTwo\n\nThree\n\nFour",
        ),
        ("<!-- a --><p>Zero</p><html><body>One</body></html>", "Zero\n\nOne"),
        ("<html><body>One</body>Two<p>Three</p></html>", "One\n\nTwo\n\nThree"),
        ("<html><body>One</body></html><script>no()</script>Two", "One\n\nTwo"),
    ],
)
def test_text_outside_the_body_is_text(page: str, text: str) -> None:
    assert text_of(page) == text


def table(rows: str) -> str:
    return text_of(f"<html><body><table>{rows}</table></body></html>")


def test_a_cell_over_several_rows_is_in_each() -> None:
    rows = "<tr><th>Crane<th>Day<th>Driver<tr><td rowspan=2>North<td>Mon<td>Ida<tr><td>Tue<td>Per<tr><td>South<td>Mon<td>Kim"
    assert table(rows) == (
        "Crane: North; Day: Mon; Driver: Ida\nCrane: North; Day: Tue; Driver: Per\nCrane: South; Day: Mon; Driver: Kim"
    )


def test_a_cell_over_several_rows_at_the_end_of_a_row() -> None:
    rows = "<tr><th>Day<th>Driver<th>Crane<tr><td>Mon<td>Ida<td rowspan=0>North<tr><td>Tue<td>Per"
    assert table(rows) == "Day: Mon; Driver: Ida; Crane: North\nDay: Tue; Driver: Per; Crane: North"


def test_names_in_two_rows_are_joined() -> None:
    rows = (
        "<thead><tr><th rowspan=2>Crane<th colspan=2>2023<th>2024<tr><th>spring<th>autumn<th>spring</thead>"
        "<tr><td>North<td>1<td>2<td>3"
    )
    assert table(rows) == "Crane: North; 2023 spring: 1; 2023 autumn: 2; 2024 spring: 3"


def test_a_cell_over_several_columns_has_all_their_names_or_none() -> None:
    rows = (
        "<tr><th>Crane<th>Mon<th>Tue<tr><td colspan=3>Harbour<tr><td>North<td colspan=2>closed<tr><td>South<td>1<td>2"
    )
    assert table(rows) == "Harbour\nCrane: North; Mon / Tue: closed\nCrane: South; Mon: 1; Tue: 2"


def test_names_beside_their_values() -> None:
    rows = "<tr><th>Name<td>Ida<tr><th>Phone<td>12<tr><th>Town<td>Oslo<th>Zip<td>0150"
    assert table(rows) == "Name: Ida\nPhone: 12\nTown: Oslo; Zip: 0150"


def test_a_second_head_names_what_follows_it() -> None:
    rows = "<tr><th>Crane<th>Load<tr><td>North<td>3<tr><th>Tool<th>Price<tr><td>Saw<td>40"
    assert table(rows) == "Crane: North; Load: 3\nTool: Saw; Price: 40"


@pytest.mark.parametrize(
    "rows",
    [
        "<tr><td>Outer<td><table><tr><th>Key<th>Lock<tr><td>brass<td>north gate</table><td>After",
        "stray<tr><td>Outer<td>Key Lock brass north gate<tr>between<td>After",
        "<td>Outer<td>Key Lock<p>brass north gate</p>After",
        "<caption>Outer</caption><tr><td><p>Key</p><p>Lock</p><td><ul><li>brass<li>north gate</ul><td>After stray between",
    ],
)
def test_no_word_of_a_table_vanishes_repeats_or_grows_together(rows: str) -> None:
    words = table(rows).replace(":", " ").replace(";", " ").replace("-", " ").split()
    for word in ("Outer", "brass", "north", "gate", "After"):
        assert words.count(word) == 1, words
    assert "Key" in words and "Lock" in words


def test_blocks_in_a_cell_or_heading_are_words_apart_and_inline_elements_are_not() -> None:
    rows = "<tr><th>Crane<th>Note<tr><td>No<b>r</b>th<td><p>oil</p><div>sand</div>wax<br>paint"
    assert table(rows) == "Crane: North; Note: oil sand wax paint"
    assert text_of("<html><h2><div>Part</div><div>One</div></h2>") == "Part One"


def test_fields_formulas_and_what_pictures_show() -> None:
    page = '<html><p>Name<input value="Ida Berg"><input type=hidden value=token1>Role</p><p><img alt="A red crane"> x<sup>2</sup>'
    page += "<p><math><mi>a</mi><mo>=</mo><mn>3</mn><annotation>a=3</annotation></math></p><p>Hafen&shy;kran</p>"
    assert text_of(page) == "Name Ida Berg Role\n\nA red crane x2\n\na=3\n\nHafenkran"


@pytest.mark.parametrize("sign", ["\x08", "\x0b", "&#8;", "&#xFFFF;", "\x00", "\ufffe"])
def test_a_control_character_costs_nothing_else(sign: str) -> None:
    words = text_of(f"<html><p>oil<br>{sign}sand <img alt='a{sign}crane'>{sign}wax</p>").split()
    assert [word.strip("\ufffe\uffff\ufffd") for word in words if len(word) > 1][:2] == [
        "oil",
        "sand",
    ] and "wax" in words[-1]
    assert "sand" in text_of(f"{XML}<r><a>oil{sign}</a><b>sand</b></r>", "a.xml")


XML = '<?xml version="1.0"?>'


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ("<doc><p>The <b>old</b> crane <i>is</i> red</p></doc>", "p: The old crane is red"),
        ("<doc><p>cr<b>an</b>e</p><p>two</p></doc>", "p: crane\np: two"),
        ("<doc><p>Ask <name>Ida <em>Berg</em></name> first</p></doc>", "p: Ask Ida Berg first"),
        (
            "<d><p>Take <list><item>oil</item><item>sand</item></list> along</p></d>",
            "p: Take\nitem: oil\nitem: sand\np: along",
        ),
        ("<d><p>one<br/>two</p></d>", "p: one two"),
        (
            "<d>one<para>two.</para><para>three</para>four<note>five</note>, six</d>",
            "d: one two. three four five , six",
        ),
        ("<r><who>Ida</who><where>Oslo</where></r>", "who: Ida\nwhere: Oslo"),
        (
            '<r><row Name="Ida" Town="Oslo"/><row Name="Per" Town="Rome"/></r>',
            "row: Name: Ida; Town: Oslo\nrow: Name: Per; Town: Rome",
        ),
        ('<!DOCTYPE r [<!ENTITY co "Harbour Ltd">]><r><a>By &co; only</a></r>', "a: By Harbour Ltd only"),
    ],
)
def test_xml_keeps_reading_order(document: str, text: str) -> None:
    assert text_of(XML + document, "a.xml") == text


def test_a_slip_in_xml_costs_a_part_and_is_counted() -> None:
    parsed = parse_file(f"{XML}<r><a>Salt &amp; oil&nbsp;here</a></r>".encode(), "a.xml")
    assert parsed.text == "a: Salt & oil here".replace("l h", "l\xa0h") or parsed.text == "a: Salt & oil here"
    torn = parse_file(f"{XML}<r><a>first words</a><b>second & third</b><c>fourth".encode(), "a.xml")
    assert "first words" in torn.text and "fourth" in torn.text and torn.meta["unreadable_parts"] == 1


def test_a_document_that_is_an_attack_is_still_refused() -> None:
    deep = XML + "<a>" * 100_000
    with pytest.raises(RejectedRecord) as caught:
        parse_file(deep.encode(), "a.xml")
    assert caught.value.reason == "unreadable_xml"
