"""What a Vespa container does with documents and queries, in memory and exactly: the inside of ``vespa_server``.

Reads the application package that it is started with, and takes only what that declares. Answers as /document/v1 and
/search/ are documented; what it does not know of their languages it refuses, instead of guessing.
"""

from __future__ import annotations

import fnmatch
import hashlib
import math
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

VERSION = "8.763.13"
_FIELD = re.compile(r"^ +field (\w+) type (\S+) \{\n(.*?)^ {8}\}", re.M | re.S)
_INTEGERS = {"int": 2**31, "long": 2**63}
# What com.yahoo.text.Text.isTextCharacter refuses, of the characters below U+10000.
_ILLEGAL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufdd0-\ufddf]")


_COSINE = "cosine_similarity(query(q), attribute(vector), x)"
_EXPRESSIONS = {
    "semantic": [_COSINE],
    "bm25": ["bm25(text)"],
    "hybrid": [
        _COSINE, "cosine + bm25(text)", "reciprocal_rank(cosine) + if (bm25(text) > 0, reciprocal_rank(bm25(text)), 0)",
    ],
}  # fmt: skip


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
        """Forget a document."""
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
            values = [float(v) for v in self.vectors[self.slots[key]]]
            fields["vector"] = {"type": self.fields["vector"], "values": values}
        return fields


class Vespa:
    """The documents of an application, and what is asked of them."""

    def __init__(self, package: Path) -> None:
        self.types: dict[str, Type] = {}
        self.cluster, self.max_hits = "", 400
        self.deploy(package)

    def deploy(self, package: Path) -> None:
        """Take a package; a type keeps its documents if its fields stay the same, and is refused if not."""
        services = ElementTree.parse(package / "services.xml").getroot()
        content = services.find("content")
        assert content is not None and services.find("container/document-api") is not None
        self.cluster = content.attrib["id"]
        profile = ElementTree.parse(package / "search" / "query-profiles" / "default.xml").getroot()
        self.max_hits = next((int(f.text or 0) for f in profile if f.attrib["name"] == "maxHits"), 400)
        types = {}
        for document in content.iterfind("documents/document"):
            name = document.attrib["type"]
            made = _read_schema(name, (package / "schemas" / f"{name}.sd").read_text())
            held = self.types.get(name)
            if held is not None and held.fields == made.fields:
                made = held
            elif held is not None and held.documents:
                raise Refused(400, f"fields of {name} changed")
            types[name] = made
        self.types = types

    # -- documents ---------------------------------------------------------------------------------------------------

    def document(self, method: str, path: str, params: dict[str, str], body: Any) -> dict[str, Any]:
        """Carry out a request below /document/v1/."""
        parts = path.split("/")[3:]
        answer: dict[str, Any] = {"pathId": path}
        if parts in ([], [""]):
            return answer | self._many(method, None, None, params)
        if len(parts) < 3 or parts[2] != "docid":
            raise Refused(404, f"Nothing at '{path}'. Available paths are: ...")
        namespace, name, rest = unquote(parts[0]), unquote(parts[1]), parts[3:]
        if rest in ([], [""]):
            return answer | self._many(method, namespace, name, params)
        segments = [unquote(part) for part in rest]
        if any(segment in ("", ".", "..") for segment in segments):
            raise Refused(400, 'path segments cannot be "", ".", or ".."')
        kind, key = self._type(name), f"id:{namespace}:{name}::{'/'.join(segments)}"
        if (bad := _ILLEGAL.search(key)) is not None:
            raise Refused(400, f"Unparseable id: Contains illegal code point 0x{ord(bad[0]):X}")
        answer["id"] = key
        if method == "GET":
            if key not in kind.documents:
                raise Refused(404, "")
            return answer | {"fields": kind.shown(key, _field_set(kind, params.get("fieldSet")))}
        held = kind.documents.get(key)
        create = params.get("create") == "true"
        if "condition" in params:
            matches = Selection(params["condition"], self.types)
            if held is None and not create:
                raise Refused(412, "Document does not exist: TEST_AND_SET_CONDITION_FAILED")
            if held is not None and matches(kind, key) is not True:
                raise Refused(412, "Condition did not match document: TEST_AND_SET_CONDITION_FAILED")
        if method == "POST":
            answer["ignored"] = self._put(kind, key, (body or {}).get("fields", {}))
        elif method == "PUT":
            if held is not None or create:
                assigned = {f: _assigned(f, change) for f, change in (body or {}).get("fields", {}).items()}
                whole = dict(held or {})
                answer["ignored"] = self._put(kind, key, whole | assigned)
        elif method == "DELETE":
            kind.remove(key)
        else:
            raise Refused(405, f"'{method}' not allowed at '{path}'")
        return answer

    def _put(self, kind: Type, key: str, fields: dict[str, Any]) -> bool:
        known = {name: _checked(kind, name, value) for name, value in fields.items() if name in kind.fields}
        kind.put(key, known)
        return len(known) < len(fields)

    def _many(self, method: str, namespace: str | None, name: str | None, params: dict[str, str]) -> dict[str, Any]:
        kinds = [self._type(name)] if name is not None else list(self.types.values())
        cluster = params.get("cluster")
        if cluster is None and (name is None or method == "DELETE"):
            raise Refused(400, "Must set 'cluster' parameter to a valid content cluster id")
        if cluster is not None and cluster != self.cluster:
            raise Refused(400, f"Your Vespa deployment has no content cluster '{cluster}', only '{self.cluster}'")
        if params.get("bucketSpace", "default") != "default":
            return {"documents": [], "documentCount": 0}
        if method == "DELETE" and "selection" not in params:
            raise Refused(400, "Must specify 'selection'")
        selects = Selection(params.get("selection", "true"), self.types)
        slices, part = int(params.get("slices", 1)), int(params.get("sliceId", 0))
        wanted = int(params.get("wantedDocumentCount", 1)) if method == "GET" else 2**31
        after = params.get("continuation", "")
        if wanted <= 0:
            raise Refused(400, "wantedDocumentCount must be positive")
        shown = {kind.name: _field_set(kind, params.get("fieldSet"), alone=name is not None) for kind in kinds}
        found: list[dict[str, Any]] = []
        last = ""
        for kind, at, key in self._in_order(kinds, after):
            if int(at, 16) % slices != part or (namespace is not None and key.split(":")[1] != namespace):
                continue
            if selects(kind, key) is not True:
                continue
            if len(found) == wanted:
                return {"documents": found, "documentCount": len(found), "continuation": last}
            last = f"{kind.name}.{at}"
            found.append({"id": key, "fields": kind.shown(key, shown[kind.name])})
            if method == "DELETE":
                kind.remove(key)
        if method == "DELETE":
            return {"documentCount": len(found)}
        if method != "GET":
            raise Refused(405, f"'{method}' of a selection is not in this double")
        return {"documents": found, "documentCount": len(found)}

    def _in_order(self, kinds: list[Type], after: str) -> Iterator[tuple[Type, str, str]]:
        for kind in sorted(kinds, key=lambda k: k.name):
            if after and kind.name < after.split(".")[0]:
                continue
            start = after.split(".")[1] if after and kind.name == after.split(".")[0] else ""
            for at, key in list(kind.order()):
                if at > start:
                    yield kind, at, key

    def _type(self, name: str) -> Type:
        if name not in self.types:
            raise Refused(400, f"Document type {name} does not exist")
        return self.types[name]

    # -- queries -----------------------------------------------------------------------------------------------------

    def search(self, params: dict[str, Any]) -> dict[str, Any]:
        """Answer a query."""
        name, where = _statement(str(params.get("yql", "")))
        if name not in self.types:
            raise Refused(400, f"Could not resolve source ref '{name}'.")
        kind, hits = self.types[name], int(params.get("hits", 10))
        if hits > self.max_hits:
            raise Refused(400, f"{hits} hits requested, configured limit: {self.max_hits}.")
        profile = str(params.get("ranking", "default"))
        if profile not in kind.profiles | {"default", "unranked"}:
            raise Refused(400, f"Invalid query: rank profile '{profile}' does not exist in {name}")
        query = Query(kind, where, params)
        scored = sorted(query.ranked(profile), key=lambda found: -found[1])
        summary = kind.summaries.get(
            str(params.get("presentation.summary", "")), [n for n in kind.fields if n != "vector"]
        )
        children = [
            {
                "id": f"index:{self.cluster}/0/{hashlib.blake2b(key.encode(), digest_size=12).hexdigest()}",
                "relevance": score, "source": self.cluster,
                # An empty string or a nought is what Vespa has for no value, and shows no field for it.
                "fields": {"sddocname": name} | {n: v for n, v in kind.shown(key, set(summary)).items() if v not in ("", 0)},
            }
            for key, score in scored[:hits]
        ]  # fmt: skip
        count = len(kind.documents)
        coverage = {"coverage": 100, "documents": count, "full": True, "nodes": 1, "results": 1, "resultsFull": 1}
        root = {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": len(scored)}, "coverage": coverage}
        return {"root": root | ({"children": children} if children else {})}


def _read_schema(name: str, text: str) -> Type:
    assert re.match(rf"schema {name} {{\n    document {name} {{", text), text[:100]
    fields, attributes, cased = {}, set(), set()
    for found in _FIELD.finditer(text):
        fields[found[1]] = found[2]
        indexing = re.search(r"indexing: (.*)", found[3])
        attributes |= {found[1]} if indexing and "attribute" in indexing[1] else set()
        cased |= {found[1]} if re.search(r"^ +cased$", found[3], re.M) else set()
    profiles = {p[0]: p[1] for p in re.findall(r"    rank-profile (\w+) \{(.*?)\n    \}", text, re.S)}
    for profile, expressions in profiles.items():  # the ranking below is of these expressions and no others
        assert re.findall(r"expression \{\s*(.*?)\s*\}", expressions, re.S) == _EXPRESSIONS[profile], profile
    summaries = {
        s[0]: re.findall(r"summary (\w+) \{\}", s[1])
        for s in re.findall(r"document-summary (\w+) \{(.*?)\n    \}", text, re.S)
    }
    return Type(name, fields, attributes, cased, set(profiles), summaries)


def _field_set(kind: Type, wanted: str | None, *, alone: bool = True) -> set[str]:
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


def _assigned(name: str, change: Any) -> Any:
    if not isinstance(change, dict) or list(change) != ["assign"]:
        raise Refused(400, f"Of the updates of '{name}' this double knows only assign")
    return change["assign"]


def _checked(kind: Type, name: str, value: Any) -> Any:
    declared = kind.fields[name]
    if declared == "string":
        if not isinstance(value, str):
            raise Refused(400, f"Field '{name}' is not a string")
        if (bad := _ILLEGAL.search(value)) is not None:
            raise Refused(400, f"The string field value contains illegal code point 0x{ord(bad[0]):X}")
        return value
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


# -- the language of selections and conditions ------------------------------------------------------------------------

_TOKEN = re.compile(r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>[+-]?\d+(?:\.\d+)?)
    |(?P<op>==|!=|<=|>=|=~|[<>=().])|(?P<word>[A-Za-z_]\w*))""", re.X)  # fmt: skip
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "f": "\f", '"': '"', "'": "'", "\\": "\\"}
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda a, b: a < b, ">": lambda a, b: a > b, "<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b,
}  # fmt: skip
_Value = Callable[[Type, str], Any]


class Selection:
    """An expression of the document selection language: True, False, or None where it is invalid for a document."""

    def __init__(self, text: str, types: dict[str, Type]) -> None:
        self._text, self._types = text, types
        self._tokens = list(self._split(text))
        self._at = 0
        self._evaluate = self._or()
        if self._peek() is not None:
            raise self._wrong()

    def __call__(self, kind: Type, key: str) -> bool | None:
        return _truth(self._evaluate(kind, key))

    def _split(self, text: str) -> Iterator[tuple[str, str]]:
        at = 0
        while at < len(text.rstrip()):
            found = _TOKEN.match(text, at)
            if found is None:
                raise self._wrong()
            yield str(found.lastgroup), found[str(found.lastgroup)]
            at = found.end()

    def _wrong(self) -> Refused:
        return Refused(400, f"Failed to parse selection, or it is not in this double: {self._text[:80]}")

    def _peek(self) -> str | None:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else None

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise self._wrong()
        self._at += 1
        return self._tokens[self._at - 1]

    def _or(self) -> _Value:
        parts = [self._and()]
        while str(self._peek()).lower() == "or":
            self._next()
            parts.append(self._and())
        return parts[0] if len(parts) == 1 else lambda k, d: _any([_truth(p(k, d)) for p in parts])

    def _and(self) -> _Value:
        parts = [self._not()]
        while str(self._peek()).lower() == "and":
            self._next()
            parts.append(self._not())
        return parts[0] if len(parts) == 1 else lambda k, d: _all([_truth(p(k, d)) for p in parts])

    def _not(self) -> _Value:
        if str(self._peek()).lower() == "not":
            self._next()
            inner = self._not()
            return lambda k, d: None if (found := _truth(inner(k, d))) is None else not found
        return self._comparison()

    def _comparison(self) -> _Value:
        left = self._value()
        operator = self._peek()
        if operator not in ("==", "!=", "=", *_COMPARISONS):
            return left
        self._next()
        right = self._value()
        return lambda k, d: _compare(str(operator), left(k, d), right(k, d))

    def _value(self) -> _Value:
        group, text = self._next()
        if group == "string":
            literal = re.sub(
                r"\\x([0-9a-fA-F]{2})|\\(.)",
                lambda m: chr(int(m[1], 16)) if m[1] else _ESCAPES.get(m[2], m[2]),
                text[1:-1],
            )
            return lambda k, d: literal
        if group == "number":
            number: int | float = float(text) if "." in text else int(text)
            return lambda k, d: number
        if text == "(":
            inner = self._or()
            if self._next()[1] != ")":
                raise self._wrong()
            return inner
        if group != "word":
            raise self._wrong()
        if text.lower() in ("true", "false", "null"):
            constant = {"true": True, "false": False, "null": _NULL}[text.lower()]
            return lambda k, d: constant
        if self._peek() != ".":
            if text.lower() == "id":
                return lambda k, d: d
            if text not in self._types:
                raise Refused(400, f"Document type {text} not found")
            return lambda k, d: k.name == text
        self._next()
        member = self._next()[1]
        if text.lower() == "id":
            place = {"scheme": 0, "namespace": 1, "type": 2, "specific": 4}.get(member)
            if place is None:
                raise self._wrong()
            return lambda k, d: d.split(":", 4)[place]
        if text not in self._types or member not in self._types[text].fields:
            raise Refused(400, f"Field {text}.{member} not found")
        return lambda k, d: k.documents[d].get(member, _NULL) if k.name == text else _NULL


_NULL = object()


def _truth(value: Any) -> bool | None:
    return value if value is None or isinstance(value, bool) else value is not _NULL


def _all(values: list[bool | None]) -> bool | None:
    return False if False in values else None if None in values else True


def _any(values: list[bool | None]) -> bool | None:
    return True if True in values else None if None in values else False


def _compare(operator: str, left: Any, right: Any) -> bool | None:
    if operator in ("==", "!="):
        equal = left is right if _NULL in (left, right) else left == right
        return equal if operator == "==" else not equal
    if left is _NULL or right is _NULL:
        return None
    if operator == "=" and isinstance(right, str):
        return isinstance(left, str) and fnmatch.fnmatchcase(left, right)
    numbers = all(isinstance(v, int | float) for v in (left, right))
    if operator == "=" or not (numbers or all(isinstance(v, str) for v in (left, right))):
        return left == right if operator == "=" else None
    return _COMPARISONS[operator](left, right)


# -- queries ----------------------------------------------------------------------------------------------------------

_YQL = re.compile(r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(?P<number>\d+)|(?P<parameter>@[\w.]+)
    |(?P<op>[{}():,*])|(?P<word>[A-Za-z_][\w.]*))""", re.X)  # fmt: skip


def _statement(yql: str) -> tuple[str, list[tuple[str, str]]]:
    """The source and the tokens of the condition of a query."""
    found = re.fullmatch(r"\s*select \* from (?:sources )?([A-Za-z_]\w*) where (.*?);?\s*", yql, re.S)
    if found is None:
        raise Refused(400, f"Query not of the form that this double knows: {yql[:80]}")
    tokens, at, text = [], 0, found[2]
    while at < len(text.rstrip()):
        token = _YQL.match(text, at)
        if token is None:
            raise Refused(400, f"Could not parse the query at {text[at : at + 20]!r}")
        tokens.append((str(token.lastgroup), token[str(token.lastgroup)]))
        at = token.end()
    return found[1], tokens


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


class Query:
    """One query over one type: which documents match, and how they rank."""

    def __init__(self, kind: Type, tokens: list[tuple[str, str]], params: dict[str, Any]) -> None:
        self._kind, self._tokens, self._params, self._at = kind, tokens, params, 0
        self.keys = list(kind.documents)
        self.words: list[str] = []
        self.vector = self._input()
        self.matches = self._expression(top=True)
        if self._at != len(tokens):
            raise Refused(400, f"Could not parse the query after {tokens[self._at - 1][1]!r}")

    def ranked(self, profile: str) -> list[tuple[str, float]]:
        """Every match with its score."""
        at = np.flatnonzero(self.matches)
        if profile in ("default", "unranked"):
            scores = np.zeros(len(at))
        elif profile == "semantic":
            scores = self._cosines(at)
        elif profile == "bm25":
            scores = self._bm25()[at]
        else:
            cosines, words = self._cosines(at), self._bm25()[at]
            chosen = np.argsort(-(cosines + words), kind="stable")[:400]
            scores = cosines + words - 1e6  # what is not fused stays behind
            by_words = np.where(words[chosen] > 0, _reciprocal_ranks(words[chosen]), 0)
            scores[chosen] = _reciprocal_ranks(cosines[chosen]) + by_words
        return [(self.keys[i], float(score)) for i, score in zip(at, scores, strict=True)]

    def _input(self) -> np.ndarray | None:
        value = self._params.get("input.query(q)")
        if value is None:
            return None
        vector = np.asarray(value["values"] if isinstance(value, dict) else value, np.float64)
        if vector.shape != (self._kind.dim,):
            raise Refused(400, f"Could not set 'ranking.features.query(q)': {vector.size} values, not {self._kind.dim}")
        return vector

    def _cosines(self, at: np.ndarray) -> np.ndarray:
        if self.vector is None:
            raise Refused(400, "Expected a tensor query(q)")
        if not len(at):
            return np.zeros(0)
        matrix = self._kind.vectors[[self._kind.slots[self.keys[i]] for i in at]].astype(np.float64)
        lengths = np.linalg.norm(matrix, axis=1) * np.linalg.norm(self.vector)
        return np.divide(matrix @ self.vector, lengths, out=np.zeros(len(matrix)), where=lengths > 0)

    def _bm25(self) -> np.ndarray:
        texts = [Counter(_words(self._kind.documents[key].get("text", ""))) for key in self.keys]
        lengths = np.array([sum(t.values()) for t in texts], float)
        scores, mean = np.zeros(len(texts)), lengths.mean() if len(texts) else 0.0
        for word in dict.fromkeys(self.words):
            often = np.array([t[word] for t in texts], float)
            known = np.count_nonzero(often)
            weight = math.log(1 + (len(texts) - known + 0.5) / (known + 0.5))
            scores += weight * often * 2.2 / (often + 1.2 * (0.25 + 0.75 * lengths / (mean or 1)))
        return scores

    # The filters of a conjunction restrict what a nearest-neighbour search in it looks at, so they are evaluated first.

    def _expression(self, top: bool = False) -> np.ndarray:
        parts, operator = [self._term()], ""
        while self._peek().lower() in ("and", "or"):
            found = self._next()[1].lower()
            if operator and found != operator:
                raise Refused(400, "Mixed and and or without parentheses are not in this double")
            operator = found
            parts.append(self._term())
        combined = np.logical_or if operator == "or" else np.logical_and
        if not top:
            return (
                _Lazy(parts, combined)
                if any(isinstance(p, _Lazy | _Nearest) for p in parts)
                else combined.reduce(parts)
            )
        ready = [p for p in parts if not isinstance(p, _Lazy | _Nearest)]
        everything = np.ones(len(self.keys), bool)
        within = everything if operator == "or" else np.logical_and.reduce([everything, *ready])
        return combined.reduce([self._resolve(p, within) for p in parts])

    def _resolve(self, part: Any, within: np.ndarray) -> np.ndarray:
        if isinstance(part, _Lazy):
            return part.combined.reduce([self._resolve(p, within) for p in part.parts])
        if not isinstance(part, _Nearest):
            return np.asarray(part)
        found = np.zeros(len(self.keys), bool)
        candidates = np.flatnonzero(within)
        if len(candidates):
            nearest = candidates[np.argsort(-self._cosines(candidates), kind="stable")[: part.target]]
            found[nearest] = True
        return found

    def _term(self) -> Any:
        notes: dict[str, str] = {}
        if self._peek() == "(":
            self._next()
            inner = self._expression()
            self._expect(")")
            return inner
        if self._peek() == "{":
            notes = self._annotations()
        group, word = self._next()
        if group != "word":
            raise Refused(400, f"Could not parse the query at {word!r}")
        if word == "true":
            return np.ones(len(self.keys), bool)
        if word == "nearestNeighbor":
            self._expect("(")
            name, _, query = self._next()[1], self._expect(","), self._next()[1]
            self._expect(")")
            if name != "vector" or query != "q" or not self._kind.dim or "targetHits" not in notes:
                raise Refused(400, f"nearestNeighbor({name}, {query}) needs an attribute, an input and targetHits")
            return _Nearest(int(notes["targetHits"]))
        if word == "userInput":
            return self._user_input(notes)
        self._expect("contains")
        if word not in self._kind.attributes:
            raise Refused(400, f"Field {word} is not an attribute that can be searched in this double")
        wanted = self._string()
        if not wanted:
            raise Refused(400, f"{word} contains: an empty term")
        values = [self._kind.documents[key].get(word, "") for key in self.keys]
        if word not in self._kind.cased:
            wanted, values = wanted.lower(), [str(value).lower() for value in values]
        return np.array([value == wanted for value in values], bool)

    def _user_input(self, notes: dict[str, str]) -> np.ndarray:
        self._expect("(")
        text = self._string()
        self._expect(")")
        if notes.get("defaultIndex") != "text" or notes.get("grammar") != "tokenize":
            raise Refused(400, "This double knows userInput with defaultIndex text and grammar tokenize")
        self.words = _words(text)
        if not self.words and notes.get("allowEmpty") != "true":
            raise Refused(400, "userInput is empty")
        return np.array(
            [bool(set(self.words) & set(_words(self._kind.documents[k].get("text", "")))) for k in self.keys], bool
        )

    def _annotations(self) -> dict[str, str]:
        notes = {}
        self._expect("{")
        while True:
            name, _, value = self._next()[1], self._expect(":"), self._next()[1]
            notes[name] = value.strip("\"'")
            if self._next()[1] == "}":
                return notes

    def _string(self) -> str:
        group, text = self._next()
        if group == "parameter":
            if text[1:] not in self._params:
                raise Refused(400, f"No parameter {text}")
            return str(self._params[text[1:]])
        if group != "string":
            raise Refused(400, f"Expected a string, got {text}")
        return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), text[1:-1])

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _next(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise Refused(400, "The query ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, text: str) -> None:
        if self._next()[1] != text:
            raise Refused(400, f"Expected {text!r} in the query, got {self._tokens[self._at - 1][1]!r}")


@dataclass(frozen=True)
class _Nearest:
    target: int


@dataclass(frozen=True)
class _Lazy:
    parts: list[Any]
    combined: Any


def _reciprocal_ranks(scores: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(scores))
    ranks[np.argsort(-scores, kind="stable")] = np.arange(1, len(scores) + 1)
    return 1 / (60 + ranks)
