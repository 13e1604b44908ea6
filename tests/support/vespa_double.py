"""What a Vespa container does with documents and queries, in memory and exactly: the inside of ``vespa_server``.

Reads the application package that it is started with, and takes only what that declares. Answers as /document/v1 and
/search/ are documented; what it does not know of their languages it refuses, instead of guessing.
"""

from __future__ import annotations

import hashlib
import xml.etree.ElementTree as ElementTree
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.support.vespa_query import Query, statement
from tests.support.vespa_selection import Selection
from tests.support.vespa_types import ILLEGAL, Refused, Type, assigned, checked, field_set, read_schema

VERSION = "8.763.13"


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
            made = read_schema(name, (package / "schemas" / f"{name}.sd").read_text())
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
        if (bad := ILLEGAL.search(key)) is not None:
            raise Refused(400, f"Unparseable id: Contains illegal code point 0x{ord(bad[0]):X}")
        answer["id"] = key
        if method == "GET":
            if key not in kind.documents:
                raise Refused(404, "")
            return answer | {"fields": kind.shown(key, field_set(kind, params.get("fieldSet")))}
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
                changes = {f: assigned(f, change) for f, change in (body or {}).get("fields", {}).items()}
                whole = dict(held or {})
                answer["ignored"] = self._put(kind, key, whole | changes)
        elif method == "DELETE":
            kind.remove(key)
        else:
            raise Refused(405, f"'{method}' not allowed at '{path}'")
        return answer

    def _put(self, kind: Type, key: str, fields: dict[str, Any]) -> bool:
        known = {name: checked(kind, name, value) for name, value in fields.items() if name in kind.fields}
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
        shown = {kind.name: field_set(kind, params.get("fieldSet"), alone=name is not None) for kind in kinds}
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
            order = kind.order()  # of a removal a new one is made: this one stays as it is
            for place in range(bisect_right(order, start, key=lambda entry: entry[0]), len(order)):
                yield kind, *order[place]

    def _type(self, name: str) -> Type:
        if name not in self.types:
            raise Refused(400, f"Document type {name} does not exist")
        return self.types[name]

    # -- queries -----------------------------------------------------------------------------------------------------

    def search(self, params: dict[str, Any]) -> dict[str, Any]:
        """Answer a query."""
        name, where = statement(str(params.get("yql", "")))
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
                "relevance": score,
                "source": self.cluster,
                # An empty string or a nought is what Vespa has for no value, and shows no field for it.
                "fields": {"sddocname": name}
                | {n: v for n, v in kind.shown(key, set(summary)).items() if v not in ("", 0)},
            }
            for key, score in scored[:hits]
        ]
        count = len(kind.documents)
        coverage = {"coverage": 100, "documents": count, "full": True, "nodes": 1, "results": 1, "resultsFull": 1}
        root = {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": len(scored)}, "coverage": coverage}
        return {"root": root | ({"children": children} if children else {})}
