"""DrawingML, which Word, PowerPoint and Excel share: text, charts, diagrams, and what pictures are said to show."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from lxml import etree

from embedding.parsers.omml import M, math_text
from embedding.parsers.opc import Package

A = "{http://schemas.openxmlformats.org/drawingml/2006/main}"
C = "{http://schemas.openxmlformats.org/drawingml/2006/chart}"
DGM = "{http://schemas.openxmlformats.org/drawingml/2006/diagram}"
R = "{http://schemas.openxmlformats.org/officeDocument/2006/relationships}"
MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_CX = "{http://schemas.microsoft.com/office/drawing/2014/chartex}"

# Office writes these by itself: a guess about the picture, a file's name, "Picture 3".
_GENERATED = re.compile(
    r"automatic(?:ally)? (?:generated|created)|automatisch (?:generier|erstell|gegenereerd)|(?:AI|KI)[- ]gener"
    r"|automatiquement|autom[aá]tic?amente|automaticamente|automatiskt? gener|автоматически|自動|自动"
    r"|^\S+\.(?:png|jpe?g|gif|bmp|tiff?|emf|wmf|svg|webp|pdf)$|^(?:[a-z]:\\|https?://|file:)\S*$"
    r"|^(?:picture|image|bild|grafik|graphic|shape|text ?box|object|chart|table|diagram)\s*\d*$",
    re.IGNORECASE,
)

# A vertical tab, or a line's end as libraries write what XML cannot hold.
_BREAK = re.compile(r"\x0b|(?:_x000[aA]_|_x000[dD]_)+|_x000[bB]_")


def chosen(element: etree._Element | None) -> etree._Element | None:
    """Return the one branch to read of an ``mc:AlternateContent``: the others say the same for older programs."""
    if element is None:
        return None
    choice = element.find(f"{MC}Choice")
    return choice if choice is not None and len(choice) else element.find(f"{MC}Fallback")


def description(properties: etree._Element | None) -> str:
    """Return what an author says that a picture shows, from its ``docPr`` or ``cNvPr``; "" for what Office guessed."""
    if properties is None or properties.get("hidden") in ("1", "true"):
        return ""
    for name in ("descr", "title"):
        text = " ".join((properties.get(name) or "").split())
        if text and not _GENERATED.search(text):
            return text
    return ""


def body_text(body: etree._Element | None) -> str:
    """Return a text body's paragraphs, one a line; a line break inside one is a line's end too."""
    if body is None:
        return ""
    return "\n".join(filter(None, (_paragraph(p) for p in body.iter(f"{A}p"))))


def _paragraph(paragraph: etree._Element) -> str:
    parts: list[str] = []
    walk = etree.iterwalk(paragraph, events=("start",))
    for _, element in walk:
        if element.tag == f"{MC}Fallback" and chosen(element.getparent()) is not element:
            walk.skip_subtree()
        elif element.tag == f"{A}t":
            # PowerPoint keeps a line break of a title as a vertical tab.
            parts.append(_BREAK.sub("\n", element.text or ""))
        elif element.tag == f"{A}br":
            parts.append("\n")
        elif element.tag == f"{M}oMath":
            parts.append(math_text(element))
            walk.skip_subtree()
    return "".join(parts).strip()


def graphic_lines(data: etree._Element, part: str, package: Package) -> Iterator[str]:
    """Yield the lines of the chart or the diagram that an ``a:graphicData`` of ``part`` refers to."""
    for element in data.iter(etree.Element):
        if element.tag in (f"{C}chart", f"{_CX}chart") and element.get(f"{R}id"):
            yield from _related(package, part, element.get(f"{R}id"), chart_lines)
        elif element.tag == f"{DGM}relIds" and element.get(f"{R}dm"):
            yield from _related(package, part, element.get(f"{R}dm"), _diagram_lines)


def _related(
    package: Package, part: str, identifier: str | None, lines: Callable[[etree._Element], Iterator[str]]
) -> Iterator[str]:
    target = next((r.target for r in package.relations(part) if r.id == identifier), None)
    root = package.xml(target) if target else None
    if root is not None:
        yield from lines(root)


def chart_lines(root: etree._Element) -> Iterator[str]:
    """Yield a chart's titles, then its series as a table: any kind of chart holds them in the same elements."""
    for title in root.iter(f"{C}title", f"{_CX}title"):
        if text := body_text(title) or " ".join(v.text or "" for v in title.iter(f"{C}v", f"{_CX}v")):
            yield f"Chart: {' '.join(text.split())}"
    categories: list[str] = []
    rows: list[list[str]] = []
    for series in root.iter(f"{C}ser"):
        name = " ".join(_points(series.find(f"{C}tx")))
        values = _points(series.find(f"{C}val")) or _points(series.find(f"{C}yVal"))
        names = _points(series.find(f"{C}cat")) or _points(series.find(f"{C}xVal"))
        if names and not categories:
            categories = names
        rows.append([name, *values])
    for series in root.iter(f"{_CX}series"):
        rows.append([" ".join(v.text or "" for v in series.iter(f"{_CX}v"))])
    for level in root.iter(f"{_CX}lvl"):
        rows.append([pt.text or "" for pt in level.iter(f"{_CX}pt")])
    if len(rows) and categories:
        width = max(len(categories), *(len(row) - 1 for row in rows))
        names = [*categories, *[""] * (width - len(categories))]
        for row in rows:
            pairs = [f"{n}: {v}" if n and v else n or v for n, v in zip(names, [*row[1:], *[""] * width], strict=False)]
            yield ": ".join(filter(None, [row[0], "; ".join(filter(None, pairs))]))
    else:
        yield from ("; ".join(filter(None, row)) for row in rows)


def _points(holder: etree._Element | None) -> list[str]:
    """Return cached values in the order of their index; a level of a nested category is one of its own."""
    if holder is None:
        return []
    points = list(holder.iter(f"{C}pt"))
    if not points:
        return [value.text or "" for value in holder.iter(f"{C}v")]
    found: dict[int, list[str]] = {}
    for point in points:
        value = point.find(f"{C}v")
        text = " ".join((value.text or "").split()) if value is not None else ""
        if text:
            number = point.get("idx") or ""
            found.setdefault(int(number) if number.isdecimal() else len(found), []).append(_number(text))
    return [" ".join(reversed(found[index])) for index in sorted(found)]


def _number(text: str) -> str:
    """Write 4.2999999999999998, as files hold it, as the 4.3 that is shown."""
    try:
        return f"{float(text):.12g}" if "." in text and len(text) > 12 else text
    except ValueError:
        return text


def _diagram_lines(root: etree._Element) -> Iterator[str]:
    for point in root.iter(f"{DGM}pt"):
        # Presentation points repeat what the others say.
        if point.get("type", "node") in ("node", "asst", "doc") and (text := body_text(point.find(f"{DGM}t"))):
            yield text
