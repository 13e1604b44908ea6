"""The zip of an Office file (OOXML): its parts and how they relate. A part that is missing or torn costs itself alone.

Not the libraries' packages: those read every part that any relation names, and fail as a whole where one is not there.
"""

from __future__ import annotations

import io
import posixpath
import re
import urllib.parse
import zipfile
from typing import NamedTuple

from lxml import etree

from embedding.parsers.parsed import TextBuilder
from embedding.parsers.web import xml_tree

# "Strict" files name the same elements in other namespaces.
_STRICT = re.compile(
    rb"http://purl\.oclc\.org/ooxml/(officeDocument|wordprocessingml|spreadsheetml|presentationml|drawingml)/"
)
_STRICT_MAIN = {
    b"wordprocessingml": b"http://schemas.openxmlformats.org/wordprocessingml/2006/",
    b"spreadsheetml": b"http://schemas.openxmlformats.org/spreadsheetml/2006/",
    b"presentationml": b"http://schemas.openxmlformats.org/presentationml/2006/",
    b"drawingml": b"http://schemas.openxmlformats.org/drawingml/2006/",
    b"officeDocument": b"http://schemas.openxmlformats.org/officeDocument/2006/",
}

MAIN_PARTS = {
    "docx": "word/document.xml",
    "pptx": "ppt/presentation.xml",
    "xlsx": "xl/workbook.xml",
    "xlsb": "xl/workbook.bin",
}


class Relation(NamedTuple):
    """What a part refers to: ``kind`` is the last word of its type ("image"), ``target`` a part's name."""

    id: str
    kind: str
    target: str


class Package:
    """The parts of one file by name, without the leading slash. What is lost is counted in ``out``."""

    def __init__(self, data: bytes, out: TextBuilder) -> None:
        """Open the zip; raises zipfile's errors where its directory is damaged."""
        self._archive = zipfile.ZipFile(io.BytesIO(data))
        self._out = out
        self._names = {name.replace("\\", "/").lstrip("/").lower(): name for name in self._archive.namelist()}

    def __contains__(self, name: str) -> bool:
        return name.lower() in self._names

    def read(self, name: str) -> bytes:
        """Return a part's bytes; raises KeyError where it is missing, zipfile's or zlib's error where it is damaged."""
        return self._archive.read(self._names[name.lower()])

    def xml(self, name: str) -> etree._Element | None:
        """Return a part's root, or None for one that cannot be read, which is counted."""
        try:
            return self.root(name)
        except Exception:  # zipfile, zlib and lxml each have their own, and none of them concerns the other parts
            self.lose()
            return None

    def root(self, name: str) -> etree._Element:
        """Return the root of a part that the file cannot do without; raises where it cannot be read."""
        return xml_tree(self.transitional(self.read(name)))

    @staticmethod
    def transitional(data: bytes) -> bytes:
        """Return a part's XML with the namespaces that most files have."""
        if b"purl.oclc.org/ooxml" not in data:
            return data
        return _STRICT.sub(lambda found: _STRICT_MAIN[found[1]], data)

    def lose(self) -> None:
        """Count one part that could not be read."""
        self._out.lose("parts")

    def main(self, kind: str) -> str:
        """Return the name of the main part: what the package says it is, else where writers put it."""
        for relation in self.relations(""):
            if relation.kind == "officeDocument" and relation.target in self:
                return relation.target
        return MAIN_PARTS[kind]

    def relations(self, part: str) -> list[Relation]:
        """Return a part's relations to other parts, those included whose part is missing; links out are left out."""
        folder, _, name = part.rpartition("/")
        place = posixpath.join(folder, "_rels", f"{name}.rels")
        root = self.xml(place) if place in self else None
        found: list[Relation] = []
        for element in root.iter(etree.Element) if root is not None else ():
            target = element.get("Target")
            if target and element.get("TargetMode") != "External":
                path = urllib.parse.unquote(target.replace("\\", "/"))
                path = posixpath.normpath(posixpath.join("/" + folder, path)).lstrip("/")
                found.append(Relation(element.get("Id") or "", (element.get("Type") or "").rpartition("/")[2], path))
        return found

    def title(self) -> str:
        """Return the title among the document's properties, or ""."""
        for relation in self.relations(""):
            if relation.kind == "core-properties" and relation.target in self:
                root = self.xml(relation.target)
                found = root.find(".//{http://purl.org/dc/elements/1.1/}title") if root is not None else None
                return (found.text or "") if found is not None else ""
        return ""
