"""Office files made of the XML that a test is about, and nothing else."""

from __future__ import annotations

import io
import zipfile

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_TYPES = {
    "docx": ("word/document.xml", "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"),
    "pptx": (
        "ppt/presentation.xml",
        "application/vnd.openxmlformats-officedocument.presentationml.presentation.main+xml",
    ),
    "xlsx": ("xl/workbook.xml", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"),
}
NAMESPACES = " ".join(
    f'xmlns:{prefix}="{uri}"'
    for prefix, uri in {
        "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
        "p": "http://schemas.openxmlformats.org/presentationml/2006/main",
        "s": "http://schemas.openxmlformats.org/spreadsheetml/2006/main",
        "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
        "c": "http://schemas.openxmlformats.org/drawingml/2006/chart",
        "dgm": "http://schemas.openxmlformats.org/drawingml/2006/diagram",
        "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
        "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
        "xdr": "http://schemas.openxmlformats.org/drawingml/2006/spreadsheetDrawing",
        "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
        "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
        "v": "urn:schemas-microsoft-com:vml",
        "r": _OFFICE,
    }.items()
)


def zipped(members: dict[str, str | bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def xml(element: str, inside: str) -> str:
    return f"<{element} {NAMESPACES}>{inside}</{element.split()[0]}>"


def relations(targets: dict[str, tuple[str, str]], folder: str = "") -> str:
    """``{id: (kind, target)}`` as a part's relations."""
    entries = "".join(
        f'<Relationship Id="{name}" Type="{_OFFICE}/{kind}" Target="{target}"/>'
        for name, (kind, target) in targets.items()
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{entries}</Relationships>'
    )


def office(
    kind: str,
    main: str,
    parts: dict[str, str | bytes] | None = None,
    related: dict[str, dict[str, tuple[str, str]]] | None = None,
    content_type: str = "",
) -> bytes:
    """A package with its main part; ``related`` is the relations of each part by its name."""
    name, usual = _TYPES[kind]
    types = f'<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Override PartName="/{name}" ContentType="{content_type or usual}"/></Types>'
    members: dict[str, str | bytes] = {
        "[Content_Types].xml": types,
        "_rels/.rels": relations({"m": ("officeDocument", name)}),
        name: main,
        **(parts or {}),
    }
    for part, targets in (related or {}).items():
        folder, _, file = part.rpartition("/")
        members[f"{folder}/_rels/{file}.rels"] = relations(targets)
    return zipped(members)


def word(
    body: str, parts: dict[str, str | bytes] | None = None, related: dict[str, tuple[str, str]] | None = None
) -> bytes:
    main = xml("w:document", f"<w:body>{body}</w:body>")
    return office("docx", main, parts, {"word/document.xml": related} if related else None)


def run(text: str) -> str:
    return f'<w:r><w:t xml:space="preserve">{text}</w:t></w:r>'


def para(*inside: str) -> str:
    return f"<w:p>{''.join(run(part) if not part.startswith('<') else part for part in inside)}</w:p>"


def slides(
    *trees: str,
    parts: dict[str, str | bytes] | None = None,
    related: dict[str, dict[str, tuple[str, str]]] | None = None,
) -> bytes:
    """A deck of the shapes of each slide."""
    names = [f"ppt/slides/slide{n}.xml" for n in range(1, len(trees) + 1)]
    ids = "".join(f'<p:sldId id="{255 + n}" r:id="r{n}"/>' for n in range(1, len(trees) + 1))
    main = xml("p:presentation", f"<p:sldIdLst>{ids}</p:sldIdLst>")
    made = {
        name: xml("p:sld", f"<p:cSld><p:spTree>{tree}</p:spTree></p:cSld>")
        for name, tree in zip(names, trees, strict=True)
    }
    listed = {f"r{n}": ("slide", f"slides/slide{n}.xml") for n in range(1, len(trees) + 1)}
    return office("pptx", main, {**made, **(parts or {})}, {"ppt/presentation.xml": listed, **(related or {})})


def shape(text: str, *, kind: str = "", descr: str = "") -> str:
    placeholder = f'<p:nvPr><p:ph type="{kind}"/></p:nvPr>' if kind else "<p:nvPr/>"
    body = text if text.startswith("<") else f"<a:p><a:r><a:t>{text}</a:t></a:r></a:p>"
    return f'<p:sp><p:nvSpPr><p:cNvPr id="2" name="Shape" descr="{descr}"/><p:cNvSpPr/>{placeholder}</p:nvSpPr><p:txBody>{body}</p:txBody></p:sp>'


def frame(data: str) -> str:
    """A frame with a table, a chart or a diagram."""
    head = '<p:nvGraphicFramePr><p:cNvPr id="9" name="Frame"/></p:nvGraphicFramePr>'
    return f"<p:graphicFrame>{head}<a:graphic><a:graphicData>{data}</a:graphicData></a:graphic></p:graphicFrame>"


def chart(kind: str, title: str, series: dict[str, dict[str, str]]) -> str:
    """A chart part; ``series`` is value by category by series name."""

    def points(values: list[str]) -> str:
        return "".join(f'<c:pt idx="{n}"><c:v>{value}</c:v></c:pt>' for n, value in enumerate(values))

    sers = "".join(
        f"<c:ser><c:tx><c:strRef><c:strCache>{points([name])}</c:strCache></c:strRef></c:tx>"
        f"<c:cat><c:strRef><c:strCache>{points(list(values))}</c:strCache></c:strRef></c:cat>"
        f"<c:val><c:numRef><c:numCache>{points(list(values.values()))}</c:numCache></c:numRef></c:val></c:ser>"
        for name, values in series.items()
    )
    heading = f"<c:title><c:tx><c:rich><a:p><a:r><a:t>{title}</a:t></a:r></a:p></c:rich></c:tx></c:title>"
    return xml("c:chartSpace", f"<c:chart>{heading}<c:plotArea><c:{kind}>{sers}</c:{kind}></c:plotArea></c:chart>")


def workbook(
    *rows: str,
    strings: str | None = None,
    styles: str | None = None,
    after: str = "",
    parts: dict[str, str | bytes] | None = None,
    related: dict[str, dict[str, tuple[str, str]]] | None = None,
    book: str = '<s:sheets><s:sheet name="Plan" sheetId="1" r:id="s1"/></s:sheets>',
) -> bytes:
    """A workbook of one sheet, from the XML of its rows."""
    listed = {"s1": ("worksheet", "worksheets/sheet1.xml"), "t": ("theme", "theme/missing.xml")}
    made: dict[str, str | bytes] = {
        "xl/worksheets/sheet1.xml": xml("s:worksheet", f"<s:sheetData>{''.join(rows)}</s:sheetData>{after}")
    }
    for name, content in (("sharedStrings", strings), ("styles", styles)):
        if content is not None:
            listed[name] = (name, f"{name}.xml")
            made[f"xl/{name}.xml"] = content
    return office(
        "xlsx", xml("s:workbook", book), {**made, **(parts or {})}, {"xl/workbook.xml": listed, **(related or {})}
    )


def row(number: int, *cells: str) -> str:
    return f'<s:row r="{number}">{"".join(cells)}</s:row>'


def text_cell(place: str, text: str) -> str:
    return f'<s:c r="{place}" t="inlineStr"><s:is><s:t xml:space="preserve">{text}</s:t></s:is></s:c>'


def number_cell(place: str, value: str, style: int = 0) -> str:
    return f'<s:c r="{place}" s="{style}"><s:v>{value}</s:v></s:c>'
