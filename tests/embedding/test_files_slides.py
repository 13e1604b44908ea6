"""PowerPoint: shapes, notes, charts of any kind, diagrams and comments; one lost slide costs itself."""

from __future__ import annotations

import io
import zipfile

import pytest

from embedding.errors import RejectedRecord
from embedding.parsers import parse_file
from tests.support.office_files import chart, frame, shape, slides, xml, zipped


def text_of(data: bytes) -> str:
    return parse_file(data, "deck.pptx").text


@pytest.mark.parametrize(
    "broken",
    [
        "<a:r><a:t>Annual</a:t></a:r><a:br/><a:r><a:t>report</a:t></a:r>",
        "<a:r><a:t>Annual_x000B_report</a:t></a:r>",  # as libraries write a vertical tab
        "<a:r><a:t>Annual_x000D__x000A_report</a:t></a:r>",  # and a line's end of Windows
    ],
)
def test_a_line_break_parts_two_words(broken: str) -> None:
    assert text_of(slides(shape(f"<a:p>{broken}</a:p>"))) == "Annual\nreport"
    assert text_of(slides(shape(f"<a:p>{broken}</a:p>", kind="title"))) == "Annual report"


@pytest.mark.parametrize(
    "kind", ["barChart", "bar3DChart", "surface3DChart", "stockChart", "ofPieChart", "bubbleChart"]
)
def test_every_kind_of_chart_gives_its_title_series_and_categories(kind: str) -> None:
    parts: dict[str, str | bytes] = {
        "ppt/charts/chart1.xml": chart(kind, "Sales", {"2025": {"North": "4.2999999999999998", "South": "2"}})
    }
    deck = slides(
        shape("By region", kind="title") + frame('<c:chart r:id="c1"/>'),
        parts=parts,
        related={"ppt/slides/slide1.xml": {"c1": ("chart", "../charts/chart1.xml")}},
    )
    assert text_of(deck) == "By region\n\nChart: Sales\n2025: North: 4.3; South: 2"


def test_a_diagram_s_words_are_read_once() -> None:
    def point(text: str, kind: str = "node") -> str:
        return f'<dgm:pt modelId="1" type="{kind}"><dgm:t><a:p><a:r><a:t>{text}</a:t></a:r></a:p></dgm:t></dgm:pt>'

    data = xml("dgm:dataModel", f"<dgm:ptLst>{point('Plan')}{point('Build')}{point('Plan', 'pres')}</dgm:ptLst>")
    deck = slides(
        frame('<dgm:relIds r:dm="d1"/>'),
        parts={"ppt/diagrams/data1.xml": data},
        related={"ppt/slides/slide1.xml": {"d1": ("diagramData", "../diagrams/data1.xml")}},
    )
    assert text_of(deck) == "Plan\nBuild"


def test_merged_cells_keep_their_columns() -> None:
    def cell(text: str, how: str = "") -> str:
        return f"<a:tc {how}><a:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></a:txBody></a:tc>"

    rows = [
        cell("Team", 'rowSpan="1"') + cell("Days", 'gridSpan="2"') + cell("", 'hMerge="1"') + cell("Sum"),
        cell("Red", 'rowSpan="2"') + cell("3") + cell("4") + cell("7"),
        cell("", 'vMerge="1"') + cell("5") + cell("6") + cell("11"),
    ]
    table = f"<a:tbl>{''.join(f'<a:tr>{row}</a:tr>' for row in rows)}</a:tbl>"
    assert text_of(slides(frame(table))) == "Team: Red; Days: 3; Days: 4; Sum: 7\nTeam: Red; Days: 5; Days: 6; Sum: 11"


def test_groups_descriptions_and_both_branches_of_a_shape() -> None:
    group = f'<p:grpSp><p:nvGrpSpPr><p:cNvPr id="4" name="Group" descr="A map of the works"/></p:nvGrpSpPr>{shape("In a group")}</p:grpSp>'
    picture = '<p:pic><p:nvPicPr><p:cNvPr id="5" name="Picture 4" descr="A red gate"/></p:nvPicPr></p:pic>'
    both = f'<mc:AlternateContent><mc:Choice Requires="x">{shape("New")}</mc:Choice><mc:Fallback>{shape("Old")}</mc:Fallback></mc:AlternateContent>'
    assert text_of(slides(group + picture + both)) == "A map of the works\n\nIn a group\n\nA red gate\n\nNew"


def test_notes_and_comments_are_read() -> None:
    notes = xml(
        "p:notes",
        f"<p:cSld><p:spTree>{shape('Speak slowly', kind='body')}{shape('3', kind='sldNum')}</p:spTree></p:cSld>",
    )
    comments = xml("p:cmLst", "<p:cm><p:text>Is this so?</p:text></p:cm>")
    deck = slides(
        shape("Words"),
        parts={"ppt/notesSlides/n1.xml": notes, "ppt/comments/c1.xml": comments},
        related={
            "ppt/slides/slide1.xml": {
                "n": ("notesSlide", "../notesSlides/n1.xml"),
                "c": ("comments", "../comments/c1.xml"),
            }
        },
    )
    assert text_of(deck) == "Words\n\nNotes: Speak slowly\n\nComment: Is this so?"


def test_a_lost_slide_chart_or_note_costs_itself() -> None:
    deck = slides(
        shape("One") + frame('<c:chart r:id="c1"/>'),
        "",
        shape("Three"),
        parts={"ppt/slides/slide2.xml": "<torn"},
        related={
            "ppt/slides/slide1.xml": {
                "c1": ("chart", "../charts/gone.xml"),
                "n": ("notesSlide", "../notesSlides/gone.xml"),
            }
        },
    )
    parsed = parse_file(deck, "deck.pptx")
    assert parsed.text == "One\n\nThree"
    assert parsed.meta == {"slides": 3, "unreadable_parts": 3}
    assert [mark.meta["slide"] for mark in parsed.marks] == [1, 3]


def test_a_deck_without_a_readable_slide_is_damaged_and_one_without_words_is_not() -> None:
    with pytest.raises(RejectedRecord) as caught:
        parse_file(slides("", parts={"ppt/slides/slide1.xml": "<torn"}), "deck.pptx")
    assert (caught.value.reason, caught.value.ignored) == ("unreadable_pptx", False)
    with pytest.raises(RejectedRecord) as caught:
        parse_file(slides(""), "deck.pptx")
    assert (caught.value.reason, caught.value.ignored) == ("no_text", True)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/vnd.openxmlformats-officedocument.presentationml.template.main+xml",
        "application/vnd.openxmlformats-officedocument.presentationml.slideshow.main+xml",
        "application/vnd.ms-powerpoint.presentation.macroEnabled.main+xml",
        "application/vnd.ms-powerpoint.template.macroEnabled.main+xml",
        "application/vnd.ms-powerpoint.slideshow.macroEnabled.main+xml",
    ],
)
def test_shows_templates_and_decks_with_macros_are_decks(content_type: str) -> None:
    usual = b"application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml"
    with zipfile.ZipFile(io.BytesIO(slides(shape("Words")))) as archive:
        members: dict[str, str | bytes] = {
            name: archive.read(name).replace(usual, content_type.encode()) for name in archive.namelist()
        }
    assert text_of(zipped(members)) == "Words"


def test_a_formula_on_a_slide_is_read_once() -> None:
    formula = (
        "<m:oMath><m:sSup><m:e><m:r><m:t>x</m:t></m:r></m:e><m:sup><m:r><m:t>2</m:t></m:r></m:sup></m:sSup></m:oMath>"
    )
    both = f"<mc:AlternateContent><mc:Choice Requires='a14'>{formula}</mc:Choice><mc:Fallback><a:r><a:t>[formula]</a:t></a:r></mc:Fallback></mc:AlternateContent>"
    assert text_of(slides(shape(f"<a:p><a:r><a:t>So </a:t></a:r>{both}</a:p>"))) == "So x^2"
