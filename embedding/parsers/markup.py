"""XML to text: ``name: text`` in reading order. Entities of a document type are never loaded, nor expanded in turn."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from html.entities import html5
from typing import Any

from lxml import etree

from embedding.parsers.encoding import decode_text
from embedding.parsers.parsed import Limits, TextBuilder
from embedding.parsers.web import UNHELD, html_to_text, local_name, xml_tree

_TAG = re.compile(r"</?[a-zA-Z][^>]{0,500}>|&(?:#\d{1,6}|#x[0-9a-fA-F]{1,5}|[a-zA-Z]{2,12});")
_DECLARATION = re.compile(r"\s*<\?xml[^>]*\?>")
_NAMED_ENTITY = re.compile(r"&([a-zA-Z][a-zA-Z0-9]{1,30});")
_RECORDS = frozenset(["item", "entry", "record", "row"])
# Attributes that hold words for a reader also where the element has text of its own.
_TELLING = frozenset(["title", "label", "alt", "caption", "description", "summary"])
# Parts of a sentence's element that stand for themselves in every vocabulary of documents: words end at their borders.
_APART = frozenset(
    [
        "p",
        "para",
        "simpara",
        "li",
        "item",
        "listitem",
        "div",
        "section",
        "sec",
        "title",
        "head",
        "note",
        "footnote",
        "fn",
        "row",
        "tr",
        "td",
        "th",
        "cell",
        "entry",
        "list",
        "table",
        "figure",
        "caption",
        "quote",
        "blockquote",
    ]
)
_MAX_ENTITY = 200

# Limits and loops are attacks, not slips of a writer: nothing is recovered from them.
_FATAL = frozenset(
    [
        etree.ErrorTypes.ERR_INTERNAL_ERROR,
        etree.ErrorTypes.ERR_ENTITY_LOOP,
        etree.ErrorTypes.ERR_RESOURCE_LIMIT,
        etree.ErrorTypes.ERR_NAME_TOO_LONG,
        etree.ErrorTypes.ERR_NO_MEMORY,
    ]
)


def parse_xml(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write ``name: text`` for every element with text of its own; feeds' HTML descriptions become text.

    An element that mixes text and elements is one sentence; elements with a structure of their own end it. What
    libxml2 finds broken is left out and counted.
    """
    writer = _XmlWriter(out, limits)
    root = _tree(data, out)
    writer.entities = _entities(root)
    writer.write(root)


def _tree(data: bytes, out: TextBuilder) -> etree._Element:
    text = decode_text(data, html=True)
    if text is None:
        return xml_tree(data)
    # Decoded here: libxml2 knows fewer labels than files bear, and none of their supersets.
    plain = _DECLARATION.sub("", text.lstrip("\ufeff"), count=1).replace("\x00", "").encode("utf-8", "replace")
    try:
        return xml_tree(plain)
    except etree.XMLSyntaxError as error:
        # Not the error's own log, which holds what earlier documents did wrong too.
        if getattr(error, "code", None) in _FATAL or b"<!ENTITY" in plain:
            raise
    known = UNHELD.sub(" ", _NAMED_ENTITY.sub(_character, plain.decode("utf-8"))).encode("utf-8")
    try:
        return xml_tree(known)
    except etree.XMLSyntaxError:
        parser = etree.XMLParser(
            recover=True, resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True, remove_pis=True
        )
        root = etree.fromstring(known, parser)
        if root is None or _is_fatal(parser.error_log):
            raise
        out.lose("parts")
        return root


def _is_fatal(log: Any) -> bool:
    return any(entry.type in _FATAL for entry in log)


def _character(found: re.Match[str]) -> str:
    """Return the character of an HTML entity that XML does not know; those of XML stay as they are."""
    if found[1] in ("amp", "lt", "gt", "quot", "apos"):
        return found[0]
    return html5.get(f"{found[1]};", html.escape(found[0]))


def _entities(root: etree._Element) -> dict[str, str]:
    """Return the short texts that the document's own type gives a name; none that refers to another."""
    dtd: Any = root.getroottree().docinfo.internalDTD  # the stubs lack the method
    found = {}
    for entity in dtd.iterentities() if dtd is not None else ():
        content = entity.content
        if entity.name and content and len(content) <= _MAX_ENTITY and not re.search(r"[&<%]", content):
            found[f"&{entity.name};"] = content
    return found


class _XmlWriter:
    """Walks the tree once. A line is open for the innermost element that has text of its own."""

    def __init__(self, out: TextBuilder, limits: Limits) -> None:
        self._out = out
        self._limits = limits
        self.entities: dict[str, str] = {}
        self._name = ""
        self._line: list[str] = []

    def write(self, root: etree._Element) -> None:
        opened: list[_Open] = []
        for event, element in etree.iterwalk(root, events=("start", "end")):
            if not isinstance(element.tag, str):
                if event == "end" and opened:  # an entity
                    self._text(opened[-1].name, self.entities.get(element.text or "", ""))
                    self._text(opened[-1].name, element.tail)
            elif event == "start":
                own = _has_words(element)
                inside = bool(opened) and opened[-1].sentence and (own or len(element) < 2)
                name = opened[-1].name if inside else local_name(element)
                opened.append(_Open(name, inside or own, inside))
                if not inside:
                    self._flush()
                    self._attributes(element, name)
                elif local_name(element).lower() in _APART:
                    self._line.append(" ")
                self._text(name, element.text)
            else:
                if not opened.pop().inside:
                    self._flush()
                elif not (element.text or len(element)) or local_name(element).lower() in _APART:
                    self._line.append(" ")  # an empty element inside a sentence is a break or a picture
                if opened:
                    self._text(opened[-1].name, element.tail)
        self._flush()

    def _text(self, name: str, text: str | None) -> None:
        if text and (self._line or text.strip()):
            if not self._line:
                self._name = name
            self._line.append(text)

    def _attributes(self, element: etree._Element, name: str) -> None:
        if name in ("link", "meta"):
            return  # for programs
        empty = not len(element) and not (element.text or "").strip()
        shown = [
            f"{key}: {value.strip()}"
            for key, value in ((str(k), str(v)) for k, v in element.attrib.items())
            if value.strip() and (empty or key in _TELLING) and not key.startswith("{")
        ]
        if name in _RECORDS and len(element):
            self._out.add("; ".join([f"{name}:", *shown]), "\n\n")
        elif shown and any(character.isalpha() for value in element.attrib.values() for character in str(value)):
            self._out.add(f"{name}: " + "; ".join(shown), "\n")

    def _flush(self) -> None:
        own = " ".join("".join(self._line).split())
        name = self._name
        self._line.clear()
        if own and _TAG.search(own):
            own = html_to_text(own, self._limits)
        if own:
            if name == "title" and not self._out.title:
                self._out.title = own
            self._out.add(f"{name}: {own}", "\n")


@dataclass(frozen=True, slots=True)
class _Open:
    """An element that is being read: whose line its text belongs to, and whether its children are in a sentence."""

    name: str
    sentence: bool
    inside: bool


def _has_words(element: etree._Element) -> bool:
    """Whether an element has text of its own: then its children are parts of a sentence, not fields."""
    return bool(element.text and element.text.strip()) or any(child.tail and child.tail.strip() for child in element)
