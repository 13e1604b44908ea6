"""EPUB to text: the chapters in reading order, each as the HTML page that it is. A lost chapter costs itself alone."""

from __future__ import annotations

import io
import posixpath
import re
import urllib.parse
import zipfile
from collections.abc import Iterator

from lxml import etree

from embedding.errors import RejectedRecord
from embedding.parsers.encoding import decode_text
from embedding.parsers.parsed import Limits, TextBuilder
from embedding.parsers.web import local_name, parse_html, xml_tree

# Fonts are "encrypted" with these in books that anyone may read.
_FONT_ALGORITHMS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_PAGE = re.compile(r"\.(x?html?|xml)$", re.IGNORECASE)


def parse_epub(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write a book's chapters; raises RejectedRecord where none can be read."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        title, pages = _contents(archive)
        locked = _encrypted(archive)
        if locked and locked.issuperset(pages):
            raise RejectedRecord("encrypted_epub", "needs a key")
        lost = 0
        for page in pages:
            if page in locked or not _write_page(archive, page, out, limits):
                out.lose("chapters")
                lost += 1
    if lost and lost == len(pages):
        raise RejectedRecord("unreadable_epub", "no chapter could be read")
    out.title = title or out.title


def _write_page(archive: zipfile.ZipFile, page: str, out: TextBuilder, limits: Limits) -> bool:
    try:
        parse_html(decode_text(archive.read(page), html=True) or "", out, limits)
    except RejectedRecord as rejected:
        if rejected.reason == "too_much_text":
            raise
        return False
    except MemoryError:
        raise
    except Exception:  # missing, damaged in the zip, no page: whatever it is, the other chapters are there
        return False
    return True


def _contents(archive: zipfile.ZipFile) -> tuple[str, list[str]]:
    """Return the title and the pages in reading order; without a usable list of them, all pages by name."""
    names = archive.namelist()
    title = ""
    try:
        path = _package_path(archive)
        package = xml_tree(archive.read(path))
    except Exception:  # a book without its own list of contents still has its pages
        return title, sorted(name for name in names if _PAGE.search(name) and not name.startswith("META-INF/"))
    folder = posixpath.dirname(path)
    by_lower = {name.lower(): name for name in names}
    items: dict[str | None, str] = {}
    order: list[str | None] = []
    for element in package.iter(etree.Element):
        name = local_name(element)
        if name == "item" and _is_page(element):
            place = posixpath.normpath(posixpath.join(folder, urllib.parse.unquote(element.get("href") or "")))
            items[element.get("id")] = by_lower.get(place.lower(), place)
        elif name == "itemref":
            order.append(element.get("idref"))
        elif name == "title" and not title:
            title = element.text or ""
    # An entry without an item may be a picture or a film; a page that no entry names is a pop-up note or a cover.
    return title, list(dict.fromkeys(items[i] for i in order if i in items)) or list(items.values())


def _is_page(item: etree._Element) -> bool:
    media_type = item.get("media-type") or ""
    return (
        "html" in media_type or "dtbook" in media_type or bool(_PAGE.search(item.get("href") or "") and not media_type)
    )


def _package_path(archive: zipfile.ZipFile) -> str:
    if "META-INF/container.xml" in archive.namelist():
        for element in xml_tree(archive.read("META-INF/container.xml")).iter(etree.Element):
            if element.get("full-path"):
                return str(element.get("full-path"))
    return next(name for name in archive.namelist() if name.lower().endswith(".opf"))


def _encrypted(archive: zipfile.ZipFile) -> set[str]:
    try:
        return set(_encrypted_names(xml_tree(archive.read("META-INF/encryption.xml"))))
    except Exception:  # there is mostly none
        return set()


def _encrypted_names(root: etree._Element) -> Iterator[str]:
    for entry in root.iter(etree.Element):
        if local_name(entry) != "EncryptedData":
            continue
        methods = [e.get("Algorithm") or "" for e in entry.iter(etree.Element) if local_name(e) == "EncryptionMethod"]
        if not any(method.startswith(_FONT_ALGORITHMS) for method in methods):
            for element in entry.iter(etree.Element):
                if element.get("URI"):
                    yield urllib.parse.unquote(element.get("URI") or "")
