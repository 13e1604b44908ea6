"""HTML and XML to text. Scripts and styles are dropped; entities of a document type are never expanded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from embedding.errors import RejectedRecord
from embedding.files.parsed import Limits, TextBuilder, table_lines

_DROPPED = ("script", "style", "template", "noscript", "svg", "math", "iframe", "object", "embed", "canvas")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    [  # fmt: skip
        "address", "article", "aside", "blockquote", "body", "center", "dd", "details",
        "dialog", "div", "dl", "dt", "fieldset", "figcaption", "figure", "footer",
        "form", "header", "hr", "li", "main", "nav", "ol", "option",
        "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead",
        "tr", "ul",
    ]
)  # fmt: skip
_FLOW_IN_TABLE = frozenset(["table", "ul", "ol", "pre", "form", *_HEADINGS])

_BLANKS = re.compile(r"[ \t\r\n\f]+")
# Stands for <br> while blanks are collapsed. A character of its own, since "\n" is a blank in HTML.
_BREAK = "\u2028"
_TAG = re.compile(r"</?[a-zA-Z][^>]{0,500}>")


def parse_html(text: str, out: TextBuilder, limits: Limits) -> None:
    """Write paragraphs, lists and tables in document order; ``h1`` to ``h6`` become heading marks."""
    root = _html_tree(text)
    if root is None:
        return
    title = root.find(".//title")
    own_title = _text_of(title) if title is not None else ""
    head = root.find("head")
    if head is not None:
        root.remove(head)
    _HtmlWriter(out).write(root)
    if own_title.strip():
        out.title = own_title


def html_to_text(text: str, limits: Limits) -> str:
    """Return an HTML fragment's text, e.g. of a mail's body or a feed's item."""
    out = TextBuilder(limits)
    parse_html(text, out, limits)
    try:
        return out.build("text/html", "").text
    except RejectedRecord as rejected:
        if rejected.reason == "no_text":
            return ""
        raise


def xml_tree(data: bytes) -> etree._Element:
    """Parse XML with entities, network and document types off; raises lxml's error where it is not well-formed."""
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True
    )
    return etree.fromstring(data, parser)


def parse_xml(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write ``name: text`` for every element with text of its own; feeds' HTML descriptions become text."""
    root = xml_tree(data)
    for element in root.iter(etree.Element):
        name = local_name(element)
        own = " ".join(part for part in _own_text(element) if part)
        if _TAG.search(own):
            own = html_to_text(own, limits)
        if own:
            if name == "title" and not out.title:
                out.title = own
            # A new record of a feed or a list of records starts a paragraph, for the chunker to cut there.
            out.add(f"{name}: {own}", "\n")
        elif name in ("item", "entry", "record", "row") and len(element):
            out.add(f"{name}:", "\n\n")


def local_name(element: etree._Element) -> str:
    """Return an element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _own_text(element: etree._Element) -> Iterator[str]:
    yield (element.text or "").strip()
    for child in element:
        yield (child.tail or "").strip()


def _html_tree(text: str) -> etree._Element | None:
    # Bytes, since lxml refuses a str with an encoding declaration; no NUL, since libxml2 would end there.
    data = text.replace("\x00", "").encode("utf-8", "replace")
    if not data.strip():
        return None
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    root = etree.fromstring(data, parser)
    if any(entry.level == etree.ErrorLevels.FATAL for entry in parser.error_log):
        # libxml2 stops at its depth limit and keeps what it had: half a page without a word about it.
        raise RejectedRecord("unreadable_html", "nested too deeply")
    if root is None:
        return None
    etree.strip_elements(root, *_DROPPED, with_tail=False)
    for line_break in root.iter("br"):
        line_break.tail = _BREAK + (line_break.tail or "")
    return root


def _text_of(element: etree._Element) -> str:
    return "".join(str(part) for part in element.itertext())


def _collapse(text: str) -> str:
    return _BLANKS.sub(" ", text).replace(_BREAK, "\n")


class _HtmlWriter:
    """Walks a tree without recursion, since pages nest deeper than Python's stack."""

    def __init__(self, out: TextBuilder) -> None:
        self._out = out
        self._inline: list[str] = []
        self._in_item = False
        self._separator = "\n\n"

    def write(self, root: etree._Element) -> None:
        walk = etree.iterwalk(root, events=("start", "end"))
        for event, element in walk:
            tag = element.tag if isinstance(element.tag, str) else ""
            if event == "start":
                if self._start(element, tag):
                    walk.skip_subtree()
            else:
                self._end(element, tag)
        self._flush()

    def _start(self, element: etree._Element, tag: str) -> bool:
        """Handle an element's start; True where its content is done with."""
        if tag in _HEADINGS:
            self._flush()
            self._out.heading(_HEADINGS[tag], _collapse(_text_of(element)))
            return True
        if tag == "pre":
            self._flush()
            self._out.add(_text_of(element).replace(_BREAK, "\n"))
            return True
        if tag == "table" and _is_data_table(element):
            self._flush()
            for caption in element.iter("caption"):
                self._out.add(_collapse(_text_of(caption)))
            self._out.lines(table_lines(_rows(element)))
            return True
        if tag in _BLOCKS:
            self._flush()
            self._in_item = self._in_item or tag == "li"
        if element.text:
            self._inline.append(element.text)
        return False

    def _end(self, element: etree._Element, tag: str) -> None:
        if tag in _BLOCKS or tag in _HEADINGS:
            self._flush()
            if tag in ("ul", "ol"):
                self._separator = "\n\n"
        elif tag in ("td", "th"):
            self._inline.append(" ")
        if element.tail:
            self._inline.append(element.tail)

    def _flush(self) -> None:
        text = _collapse("".join(self._inline)).strip()
        self._inline.clear()
        if not text:
            return
        if self._in_item:
            self._out.add(f"- {text}", self._separator)
            self._separator = "\n"
        else:
            self._out.add(text)
            self._separator = "\n\n"
        self._in_item = False


def _is_data_table(table: etree._Element) -> bool:
    """Tell data from layout: a layout's cells hold tables, lists and headings."""
    return not any(element is not table and element.tag in _FLOW_IN_TABLE for element in table.iter())


def _rows(table: etree._Element) -> Iterator[list[str]]:
    for row in table.iter("tr"):
        cells: list[str] = []
        for cell in row:
            if cell.tag in ("td", "th"):
                cells.append(_collapse(_text_of(cell)))
                span = cell.get("colspan", "1")
                if span.isdecimal() and 1 < int(span[:3]) <= 50:
                    cells.extend([""] * (int(span[:3]) - 1))
        yield cells
