"""Excel: what a sheet shows is read as it is shown; one odd style, part or sheet costs itself."""

from __future__ import annotations

import io
import zipfile

import openpyxl
import pytest

from embedding.errors import RejectedRecord
from embedding.parsers import parse_file
from tests.support.office_files import chart, number_cell, row, text_cell, workbook, xml, zipped


def text_of(data: bytes) -> str:
    return parse_file(data, "plan.xlsx").text


def saved(book: openpyxl.Workbook) -> bytes:
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "written, shown",
    [
        ("Annual_x000D_\nreport", "Annual report"),
        ("tab_x0009_stop", "tab stop"),
        ("_x005F_x000D_ is how it is written", "_x000D_ is how it is written"),
        ("snake_x_case_xyz1_", "snake_x_case_xyz1_"),
    ],
)
@pytest.mark.parametrize("kind", ["inline", "shared", "formula"])
def test_an_escaped_character_is_that_character(kind: str, written: str, shown: str) -> None:
    strings = xml("s:sst", f"<s:si><s:t>{written}</s:t></s:si>")
    cells = {
        "inline": text_cell("A1", written),
        "shared": '<s:c r="A1" t="s"><s:v>0</s:v></s:c>',
        "formula": f'<s:c r="A1" t="str"><s:f>B1</s:f><s:v>{written}</s:v></s:c>',
    }
    assert " ".join(text_of(workbook(row(1, cells[kind]), strings=strings)).split()) == shown


def test_numbers_are_shown_by_their_format() -> None:
    codes = {164: "0%", 165: "00000", 166: "[h]:mm:ss", 167: "dd.mm.yyyy", 168: '#,##0.00 "kg"'}
    formats = "".join(
        f'<s:numFmt numFmtId="{n}" formatCode="{code.replace(chr(34), "&quot;")}"/>' for n, code in codes.items()
    )
    styles = "".join(f'<s:xf numFmtId="{n}"/>' for n in (0, *codes, 14, 10))
    sheet = workbook(
        row(
            1,
            number_cell("A1", "0.14", 1),
            number_cell("B1", "501", 2),
            number_cell("C1", "1.25", 3),
            number_cell("D1", "45413", 4),
            number_cell("E1", "3.0", 5),
            number_cell("F1", "45413.5", 6),
            number_cell("G1", "0.0825", 7),
            number_cell("H1", "4.2999999999999998"),
            number_cell("I1", "1E-3"),
            '<s:c r="J1" t="b"><s:v>1</s:v></s:c>',
            '<s:c r="K1" t="e"><s:v>#REF!</s:v></s:c>',
        ),
        styles=xml("s:styleSheet", f"<s:numFmts>{formats}</s:numFmts><s:cellXfs>{styles}</s:cellXfs>"),
    )
    assert text_of(sheet).split("\t") == [
        "14%",
        "00501",
        "30:00:00",
        "2024-05-01",
        "3",
        "2024-05-01 12:00:00",
        "8.25%",
        "4.3",
        "0.001",
        "true",
    ]


def test_dates_of_an_old_mac_are_counted_from_its_own_first_day() -> None:
    styles = xml("s:styleSheet", '<s:cellXfs><s:xf numFmtId="14"/></s:cellXfs>')
    book = '<s:workbookPr date1904="1"/><s:sheets><s:sheet name="Plan" sheetId="1" r:id="s1"/></s:sheets>'
    assert text_of(workbook(row(1, number_cell("A1", "43951")), styles=styles, book=book)) == "2024-05-01"


def test_hidden_sheets_rich_text_and_dates_of_a_library_s_file() -> None:
    book = openpyxl.Workbook()
    book.active.title = "Shown"
    book.active.append(["Item", "Price"])
    book.active.append(["Box", 3])
    book.create_sheet("Hidden").append(["kept", "too"])
    book["Hidden"].sheet_state = "hidden"
    parsed = parse_file(saved(book), "x.xlsx")
    assert parsed.text == "Item: Box; Price: 3\n\nkept\ttoo"
    assert parsed.meta == {"sheets": ["Shown", "Hidden"]}


def test_a_merged_cell_keeps_its_columns_and_is_said_of_all_its_rows() -> None:
    book = openpyxl.Workbook()
    for line in (["Region", "Days", None, "Sum"], ["North", 3, 4, 7], [None, 5, 6, 11], ["South", 1, 2, 3]):
        book.active.append(line)
    for area in ("B1:C1", "A2:A3"):
        book.active.merge_cells(area)
    assert text_of(saved(book)) == (
        "Region: North; Days: 3; Days: 4; Sum: 7\nRegion: North; Days: 5; Days: 6; Sum: 11\nRegion: South; Days: 1; Days: 2; Sum: 3"
    )


def test_comments_text_boxes_descriptions_and_charts_of_a_sheet() -> None:
    drawing = (
        '<xdr:sp><xdr:nvSpPr><xdr:cNvPr id="2" name="TextBox 1"/></xdr:nvSpPr><xdr:txBody><a:p><a:r><a:t>Ask Kim first</a:t></a:r></a:p></xdr:txBody></xdr:sp>'
        '<xdr:pic><xdr:nvPicPr><xdr:cNvPr id="3" name="Picture 2" descr="A red gate"/></xdr:nvPicPr></xdr:pic>'
        '<xdr:graphicFrame><a:graphic><a:graphicData><c:chart r:id="c1"/></a:graphicData></a:graphic></xdr:graphicFrame>'
    )
    sheet = workbook(
        row(1, text_cell("A1", "Words")),
        parts={
            "xl/drawings/d1.xml": xml("xdr:wsDr", drawing),
            "xl/charts/c1.xml": chart("bar3DChart", "Rain", {"Bergen": {"May": "88"}}),
            "xl/comments1.xml": xml(
                "s:comments",
                '<s:commentList><s:comment ref="A1"><s:text><s:r><s:t>Is this so?</s:t></s:r></s:text></s:comment></s:commentList>',
            ),
        },
        related={
            "xl/worksheets/sheet1.xml": {"d": ("drawing", "../drawings/d1.xml"), "k": ("comments", "../comments1.xml")},
            "xl/drawings/d1.xml": {"c1": ("chart", "../charts/c1.xml")},
        },
    )
    assert (
        text_of(sheet)
        == "Words\n\nAsk Kim first\nA red gate\nChart: Rain\nBergen: May: 88\n\nComment on A1: Is this so?"
    )


def test_a_lost_sheet_and_a_torn_one_cost_themselves() -> None:
    book = "".join(f'<s:sheet name="{name}" sheetId="{n}" r:id="s{n}"/>' for n, name in enumerate(("Plan", "Gone"), 1))
    sheet = workbook(row(1, text_cell("A1", "kept")), book=f"<s:sheets>{book}</s:sheets>")
    parsed = parse_file(sheet, "x.xlsx")
    assert parsed.text == "kept" and parsed.meta == {"unreadable_parts": 1, "sheets": ["Plan", "Gone"]}
    with zipfile.ZipFile(io.BytesIO(sheet)) as archive:
        members: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
    torn = members["xl/worksheets/sheet1.xml"]
    assert isinstance(torn, bytes)
    members["xl/worksheets/sheet1.xml"] = torn.replace(b"</s:sheetData>", b"<s:row r='2'><s:c")
    parsed = parse_file(zipped(members), "x.xlsx")
    assert parsed.text == "kept" and parsed.meta["unreadable_parts"] == 2


@pytest.mark.parametrize("lost", ["strings", "styles"])
def test_a_torn_table_of_strings_or_styles_costs_what_it_held(lost: str) -> None:
    cells = (text_cell("A1", "Box"), '<s:c r="B1" t="s"><s:v>0</s:v></s:c>', number_cell("C1", "45413", 1))
    torn = "<s:torn"
    sheet = workbook(row(1, *cells), strings=torn) if lost == "strings" else workbook(row(1, *cells), styles=torn)
    parsed = parse_file(sheet, "x.xlsx")
    assert parsed.text.split("\t")[0] == "Box" and "45413" in parsed.text


def test_a_workbook_without_a_readable_sheet_is_damaged() -> None:
    with pytest.raises(RejectedRecord) as caught:
        parse_file(workbook(row(1), book="<s:sheets/>"), "x.xlsx")
    assert (caught.value.reason, caught.value.ignored) == ("unreadable_xlsx", False)


@pytest.mark.parametrize("writer", ["xltx", "xltm", "xlsm"])
def test_templates_are_workbooks(writer: str) -> None:
    book = openpyxl.Workbook()
    book.active.append(["kept", "too"])
    book.template = writer.startswith("xlt")
    data = saved(book)
    if writer.endswith("m"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members: dict[str, str | bytes] = {name: archive.read(name) for name in archive.namelist()}
        types = members["[Content_Types].xml"]
        assert isinstance(types, bytes)
        kind = b"application/vnd.openxmlformats-officedocument.spreadsheetml."
        types = types.replace(kind + b"template.main", b"application/vnd.ms-excel.template.macroEnabled.main")
        members["[Content_Types].xml"] = types.replace(
            kind + b"sheet.main", b"application/vnd.ms-excel.sheet.macroEnabled.main"
        )
        data = zipped(members)
    assert text_of(data) == "kept\ttoo"


def test_a_binary_workbook_is_named_and_not_ignored() -> None:
    types = '<Types><Override PartName="/xl/workbook.bin" ContentType="application/vnd.ms-excel.sheet.binary.macroEnabled.main"/></Types>'
    with pytest.raises(RejectedRecord) as caught:
        parse_file(zipped({"[Content_Types].xml": types, "xl/workbook.bin": b"\0"}), "x.xlsb")
    assert caught.value.detail == "application/vnd.ms-excel.sheet.binary.macroEnabled.12" and not caught.value.ignored
