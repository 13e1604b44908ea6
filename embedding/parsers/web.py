"""HTML to text, in reading order. Scripts and styles are dropped; nothing that a reader sees is."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lxml import etree

from embedding.errors import RejectedRecord
from embedding.parsers.html_tables import BREAK, cell_text, data_table_lines, is_data_table
from embedding.parsers.parsed import Limits, TextBuilder

_DROPPED = ("script", "style", "template", "noscript", "iframe", "embed", "annotation", "annotation-xml")
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "body",
        "caption",
        "center",
        "dd",
        "details",
        "dialog",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "header",
        "hr",
        "html",
        "legend",
        "li",
        "main",
        "nav",
        "noframes",
        "ol",
        "optgroup",
        "option",
        "p",
        "pre",
        "section",
        "summary",
        "svg",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "title",
        "tr",
        "ul",
    ]
)
# Boxes inside a line; in an SVG each text stands for itself.
_APART = frozenset(["button", "canvas", "input", "object", "select", "td", "text", "textarea", "th", "video", "audio"])
# What a form shows in its fields; hidden ones and passwords are no text.
_FIELDS = frozenset(
    ["", "text", "search", "email", "url", "tel", "number", "date", "time", "month", "submit", "button"]
)

# What an XML tree cannot hold, and lxml refuses to set: a page with one of them is not broken for its reader.
UNHELD = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_BLANKS = re.compile(r"[ \t\r\n\f]+")


def parse_html(text: str, out: TextBuilder, limits: Limits) -> None:
    """Write paragraphs, lists and tables in document order; ``h1`` to ``h6`` become heading marks."""
    roots = _html_roots(text)
    own_title = next((title for root in roots for title in _titles(root)), "")
    writer = _HtmlWriter(out)
    for root in roots:
        writer.write(root)
    if own_title:
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


def local_name(element: etree._Element) -> str:
    """Return an element's name without its namespace."""
    return str(element.tag).rpartition("}")[2]


def _titles(root: etree._Element) -> Iterator[str]:
    for title in root.iter("title"):
        parent = title.getparent()
        if parent is not None and parent.tag in ("head", "html", "body") and (text := collapse(cell_text(title))):
            yield text


def _html_roots(text: str) -> list[etree._Element]:
    """Return the page's roots: libxml2 puts what stands behind ``</html>`` into trees beside the first one."""
    # Bytes, since lxml refuses a str with an encoding declaration; no NUL, since libxml2 would end there.
    data = UNHELD.sub(" ", text.replace("\x00", "")).encode("utf-8", "replace")
    if not data.strip():
        return []
    parser = etree.HTMLParser(encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True)
    first = etree.fromstring(data, parser)
    if any(entry.level == etree.ErrorLevels.FATAL for entry in parser.error_log):
        # libxml2 stops at its depth limit and keeps what it had: half a page without a word about it.
        raise RejectedRecord("unreadable_html", "nested too deeply")
    if first is None:
        return []
    roots = [*reversed(list(first.itersiblings(preceding=True))), first, *first.itersiblings()]
    for root in roots:
        etree.strip_elements(root, *_DROPPED, with_tail=False)
        for line_break in root.iter("br"):
            _prepend(line_break, BREAK)
        for element in root.iter("img", "area", "input"):
            if shown := _shown(element):
                # A picture's or field's text is read where it stands, in headings and tables too.
                _prepend(element, f" {shown} ")
    return [root for root in roots if root.tag not in _DROPPED]


def _prepend(element: etree._Element, text: str) -> None:
    """Put text behind an element; a reference (``&#8;``) can have brought in what lxml does not let be set again."""
    element.tail = UNHELD.sub(" ", text + (element.tail or ""))


def _shown(element: etree._Element) -> str:
    if element.tag != "input":
        return (element.get("alt") or "").strip()
    kind = (element.get("type") or "").lower()
    return (element.get("value") or element.get("placeholder") or "").strip() if kind in _FIELDS else ""


def collapse(text: str) -> str:
    """Return text with its blanks as a browser shows them; a soft hyphen is shown only where a line ends."""
    return _BLANKS.sub(" ", text.replace("\xad", "")).replace(BREAK, "\n").strip()


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
        if tag == "head":
            return True
        if tag in _HEADINGS:
            self._flush()
            self._out.heading(_HEADINGS[tag], collapse(cell_text(element)))
            return True
        if tag == "pre":
            self._flush()
            self._out.add("".join(map(str, element.itertext())).replace(BREAK, "\n"))
            return True
        if tag == "table" and is_data_table(element):
            self._flush()
            for caption in element.iter("caption"):
                self._out.add(collapse(cell_text(caption)))
            self._out.lines(data_table_lines(element))
            return True
        if tag in _BLOCKS:
            self._flush()
            self._in_item = self._in_item or tag == "li"
        elif tag in _APART:
            self._inline.append(" ")
        if element.text:
            self._inline.append(element.text)
        return False

    def _end(self, element: etree._Element, tag: str) -> None:
        if tag in _BLOCKS or tag in _HEADINGS:
            self._flush()
            if tag in ("ul", "ol"):
                self._separator = "\n\n"
        elif tag in _APART:
            self._inline.append(" ")
        if element.tail:
            self._inline.append(element.tail)

    def _flush(self) -> None:
        text = collapse("".join(self._inline))
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
