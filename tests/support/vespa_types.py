"""Document types of the double: what a schema declares, the documents that are held, and what a value may be."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_FIELD = re.compile(r"^ +field (\w+) type (\S+) \{\n(.*?)^ {8}\}", re.M | re.S)
_INTEGERS = {"int": 2**31, "long": 2**63}
# What com.yahoo.text.Text.isTextCharacter refuses, of the characters below U+10000.
ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufdd0-\ufddf]")


_COSINE = "cosine_similarity(query(q), attribute(vector), x)"
_DOT = "sum(query(q) * attribute(vector))"
_EXPRESSIONS = {"semantic": [[_COSINE]], "semantic_dot": [[_DOT]], "bm25": [["bm25(text)"], ["bm25(lexical)"]]}


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Type:
    """A document type as its schema declares it, and its documents."""

    name: str
    fields: dict[str, str]
    attributes: set[str]
    cased: set[str]
    profiles: set[str]
    summaries: dict[str, list[str]]
    words: str  # the field that is searched by words
    dot: bool  # vectors are compared by their dot product
    documents: dict[str, dict[str, Any]] = field(default_factory=dict)  # by the whole id
    slots: dict[str, int] = field(default_factory=dict)
    free: list[int] = field(default_factory=list)
    vectors: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    _order: list[tuple[str, str]] | None = None

    @property
    def dim(self) -> int:
        """Dimensions of its vectors, 0 for none."""
        found = re.search(r"x\[(\d+)\]", self.fields.get("vector", ""))
        return int(found[1]) if found else 0

    def put(self, key: str, fields: dict[str, Any]) -> None:
        """Keep a document, its vector in the matrix."""
        vector = fields.pop("vector", None)
        if key not in self.documents:
            self._order = None
        self.documents[key] = fields
        if vector is not None:
            if key not in self.slots:
                self.slots[key] = self.free.pop() if self.free else len(self.slots)
            if self.slots[key] >= len(self.vectors):
                grown = np.zeros((max(1024, 2 * len(self.vectors)), self.dim), np.float32)
                grown[: len(self.vectors)] = self.vectors.reshape(-1, self.dim)
                self.vectors = grown
            self.vectors[self.slots[key]] = vector

    def remove(self, key: str) -> None:
        """Remove a document."""
        if self.documents.pop(key, None) is not None:
            self._order = None
            if key in self.slots:
                self.free.append(self.slots.pop(key))

    def order(self) -> list[tuple[str, str]]:
        """Its documents as a visit meets them: by a hash of the id, as buckets are."""
        if self._order is None:
            self._order = sorted(
                (hashlib.blake2b(key.encode(), digest_size=8).hexdigest(), key) for key in self.documents
            )
        return self._order

    def shown(self, key: str, names: set[str]) -> dict[str, Any]:
        """Fields of a document as /document/v1 shows them."""
        fields = {name: value for name, value in self.documents[key].items() if name in names}
        if "vector" in names and key in self.slots:
            fields["vector"] = {"type": self.fields["vector"], "values": self.vectors[self.slots[key]].tolist()}
        return fields


def read_schema(name: str, text: str) -> Type:
    """The type that a schema declares."""
    assert re.match(rf"schema {name} {{\n    document {name} {{", text), text[:100]
    fields, attributes, cased, words = {}, set(), set(), ""
    for found in _FIELD.finditer(text):
        fields[found[1]] = found[2]
        indexing = re.search(r"indexing: (.*)", found[3])
        attributes |= {found[1]} if indexing and "attribute" in indexing[1] else set()
        words = found[1] if "index: enable-bm25" in found[3] else words
        cased |= {found[1]} if re.search(r"^ +cased$", found[3], re.M) else set()
    profiles = {p[0]: p[1] for p in re.findall(r"    rank-profile (\w+) \{(.*?)\n    \}", text, re.S)}
    for profile, expressions in profiles.items():  # the ranking below is of these expressions and no others
        assert re.findall(r"expression \{\s*(.*?)\s*\}", expressions, re.S) in _EXPRESSIONS[profile], profile
    summaries = {
        s[0]: re.findall(r"summary (\w+) \{\}", s[1])
        for s in re.findall(r"document-summary (\w+) \{(.*?)\n    \}", text, re.S)
    }
    dot = "distance-metric: dotproduct" in text
    assert dot == ("semantic_dot" in profiles), "graph and ranking compare vectors alike"
    return Type(name, fields, attributes, cased, set(profiles), summaries, words, dot)


def field_set(kind: Type, wanted: str | None, *, alone: bool = True) -> set[str]:
    """Fields of a type that a field set names."""
    if wanted in (None, "[document]", "[all]", f"{kind.name}:[document]"):
        return set(kind.fields)
    if wanted in ("[id]", "[none]"):
        return set()
    name, _, listed = str(wanted).partition(":")
    if name != kind.name and not alone:  # that of another type which is visited with it
        return set()
    if name != kind.name or not set(listed.split(",")) <= set(kind.fields):
        raise Refused(400, f"Illegal field set '{wanted}'")
    return set(listed.split(","))


def assigned(name: str, change: Any) -> Any:
    """The new value of an update."""
    if not isinstance(change, dict) or list(change) != ["assign"]:
        raise Refused(400, f"Of the updates of '{name}' this double knows only assign")
    return change["assign"]


def checked(kind: Type, name: str, value: Any) -> Any:
    """A value as its field's type takes it."""
    declared = kind.fields[name]
    if declared == "bool":
        if not isinstance(value, bool):
            raise Refused(400, f"Field '{name}' is not of type bool")
        return value
    if declared == "array<string>":
        if not isinstance(value, list):
            raise Refused(400, f"Field '{name}' is not an array")
        return [_string(name, entry) for entry in value]
    if declared == "string":
        return _string(name, value)
    if declared in _INTEGERS:
        if not isinstance(value, int) or not -_INTEGERS[declared] <= value < _INTEGERS[declared]:
            raise Refused(400, f"Field '{name}' is not of type {declared}")
        return value
    values = value.get("values") if isinstance(value, dict) else value
    if isinstance(values, str):
        vector = np.frombuffer(bytes.fromhex(values), ">f4").astype(np.float32)
    else:
        vector = np.asarray(values, np.float32)
    if vector.shape != (kind.dim,):
        raise Refused(400, f"Tensor of field '{name}' has {vector.size} values, {declared} has {kind.dim}")
    return vector


def _string(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(400, f"Field '{name}' is not a string")
    if (bad := ILLEGAL.search(value)) is not None:
        raise Refused(400, f"The string field value contains illegal code point 0x{ord(bad[0]):X}")
    return value
