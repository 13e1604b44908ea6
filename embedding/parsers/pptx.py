"""PowerPoint (pptx, pptm, potx, potm, ppsx, ppsm) to text, from its XML: slides, notes, comments, charts, diagrams."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lxml import etree

from embedding.errors import RejectedRecord
from embedding.parsers.bounds import bounded
from embedding.parsers.drawing import MC, A, body_text, chosen, description, graphic_lines
from embedding.parsers.opc import Package
from embedding.parsers.parsed import MERGED, Limits, Meta, TextBuilder, table_lines

_P = "{http://schemas.openxmlformats.org/presentationml/2006/main}"
_R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
_TITLES = ("title", "ctrTitle")
_DEFAULT_TITLES = ("powerpoint presentation", "presentation")
# A table wider than PowerPoint allows is a damaged one.
_MAX_COLUMNS = 75


def parse_pptx(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write each slide's shapes, tables, notes and comments; marks are ``{"slide": n, "heading": title}``.

    Raises RejectedRecord where no slide can be read.
    """
    package = Package(data, out)
    main = package.main("pptx")
    targets = {relation.id: relation.target for relation in package.relations(main)}
    slides = [targets.get(e.get(f"{_R}id") or "", "") for e in package.root(main).iter(f"{_P}sldId")]
    first_title = ""
    lost = 0
    for number, name in enumerate(slides, start=1):
        root = package.xml(name)
        if root is None:
            lost += 1
            continue
        title = _write_slide(root, number, name, package, out)
        first_title = first_title or title
    if slides and lost == len(slides):
        raise RejectedRecord("unreadable_pptx", "no slide could be read")
    out.meta["slides"] = len(slides)
    out.title = package.title()
    if not out.title or out.title.strip().lower() in _DEFAULT_TITLES:
        out.title = first_title


def _write_slide(root: etree._Element, number: int, name: str, package: Package, out: TextBuilder) -> str:
    shapes = list(_shapes(root.find(f"{_P}cSld/{_P}spTree")))
    titled = next((shape for shape in shapes if _placeholder(shape) in _TITLES), None)
    title = " ".join(body_text(titled.find(f"{_P}txBody")).split()) if titled is not None else ""
    meta: Meta = {"slide": number}
    if title:
        meta["heading"] = title[:200]
    out.mark(meta)
    out.add(title)
    for shape in shapes:
        if shape is not titled:
            out.lines(_shape_lines(shape, name, package, out.limits))
    for relation in package.relations(name):
        if relation.kind == "notesSlide" and (notes := package.xml(relation.target)) is not None:
            out.add(_notes(notes))
        elif relation.kind == "comments" and (comments := package.xml(relation.target)) is not None:
            out.lines(_comments(comments))
    return title


def _shapes(tree: Iterable[etree._Element] | None) -> Iterator[etree._Element]:
    """Yield the shapes of a slide, those of groups included; a group itself too, for its description."""
    for element in tree if tree is not None else ():
        if element.tag == f"{MC}AlternateContent":
            yield from _shapes(chosen(element))
        elif element.tag == f"{_P}grpSp":
            yield element
            yield from _shapes(element)
        elif element.tag in (f"{_P}sp", f"{_P}pic", f"{_P}graphicFrame", f"{_P}cxnSp"):
            yield element


def _placeholder(shape: etree._Element) -> str:
    found = shape.find(f"{_P}nvSpPr/{_P}nvPr/{_P}ph")
    return found.get("type", "body") if found is not None else ""


def _shape_lines(shape: etree._Element, name: str, package: Package, limits: Limits) -> Iterator[str]:
    if _placeholder(shape) == "sldNum":
        return
    yield body_text(shape.find(f"{_P}txBody"))
    yield description(next((e for e in shape[0] if e.tag == f"{_P}cNvPr"), None) if len(shape) else None)
    for data in shape.iterfind(f"{A}graphic/{A}graphicData"):
        for table in data.iterfind(f"{A}tbl"):
            yield from table_lines(bounded(_rows(table), limits))
        yield from graphic_lines(data, name, package)


def _rows(table: etree._Element) -> Iterator[list[str]]:
    above: list[str] = []
    for row in table.iterfind(f"{A}tr"):
        line: list[str] = []
        for cell in row.iterfind(f"{A}tc"):
            if len(line) >= _MAX_COLUMNS:
                break
            if cell.get("hMerge") in ("1", "true"):
                line.append(MERGED)
            elif cell.get("vMerge") in ("1", "true"):
                # The cell above goes on: its value is this row's too.
                line.append(above[len(line)] if len(line) < len(above) else "")
            else:
                line.append(body_text(cell.find(f"{A}txBody")))
        above = line
        yield line


def _notes(root: etree._Element) -> str:
    texts = [
        body_text(shape.find(f"{_P}txBody"))
        for shape in _shapes(root.find(f"{_P}cSld/{_P}spTree"))
        if _placeholder(shape) not in ("sldImg", "sldNum", "hdr", "ftr", "dt")
    ]
    text = "\n".join(filter(None, texts))
    return f"Notes: {text}" if text else ""


def _comments(root: etree._Element) -> Iterator[str]:
    """Yield comments of both kinds: a plain text, and a text body with replies."""
    for element in root.iter(etree.Element):
        kind = str(element.tag).rpartition("}")[2]
        text = (
            (element.text or "").strip()
            if element.tag == f"{_P}text"
            else body_text(element)
            if kind == "txBody"
            else ""
        )
        if text:
            yield f"Comment: {text}"
