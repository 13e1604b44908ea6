"""The index in Vespa: a document type for each version, written under a condition on the source's version.

Owns what is said of versions in the type that ``package`` made for it. Types are deployed and not created here. Never
reads across teams for a search: the team is part of every query. Its parts: ``client`` (calls and failures),
``documents`` (rows), ``queries``, ``package`` (what is deployed), ``strings``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import pyarrow as pa

from embedding.errors import ConfigError, ResourceError
from embedding.records import Metric
from indexers.base import (
    Capabilities,
    Hit,
    SearchRequest,
    Settings,
    check_columns,
    check_same,
    must_live,
    passing,
    version_number,
)
from indexers.bm25 import words_of
from indexers.rows import ADDED, INDEX_ROW, SCAN, checked_rows
from indexers.vespa.client import RefusedError, VespaClient
from indexers.vespa.documents import documents_of, hit_of, value_of
from indexers.vespa.limits import MAX_BYTES
from indexers.vespa.package import HIT_FIELDS, LIVE, PROFILES, content_cluster, versions_type
from indexers.vespa.queries import match_body, search_body

DEPLOY = "run `embedmill vespa-package` and deploy what it writes (`vespa deploy build/vespa`)"
LAYOUT = "2"  # of the types that have all columns; versions of earlier releases say none


class VespaIndex:
    """Implements ``Index`` over the http(s) address of a Vespa container.

    Raises ConfigError for settings that Vespa has no use for.
    """

    def __init__(self, uri: str, name: str, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        for key, given in (
            ("database", settings.database),
            ("tls_ca", settings.tls_ca),
            ("tls_server_name", settings.tls_server_name),
            ("storage", settings.storage.removeprefix("float32")),
        ):
            if given:
                raise ConfigError(f"index.{key}: Vespa has no use for it; remove it")
        self._name, self._types = name, versions_type(name)
        self._engine: str | None = None
        self._columns: dict[str, tuple[str, ...]] = {}
        self._metrics: dict[str, Metric] = {}
        self._client = VespaClient(
            uri,
            namespace=name,
            cluster=content_cluster(name),
            token=settings.token,
            cert=settings.tls_cert,
            key=settings.tls_key,
        )

    def capabilities(self) -> Capabilities:
        """See ``Index``."""
        if self._engine is None:
            self._engine = f"Vespa {self._client.version()}".strip()
        # One writer: it has many writes under way by itself.
        return Capabilities(self._engine, lexical=True, conditional=True, writers=1)

    def live(self) -> str | None:
        """See ``Index``."""
        pointer = self._said_of(LIVE)
        return str(pointer["version"]) if pointer else None

    def versions(self) -> list[str]:
        """See ``Index``."""
        return list(self.dims())

    def earlier(self) -> set[str]:
        """The versions that an earlier release made, whose types lack columns."""
        dims = self._dims()
        return {version for version in self.dims() if _layout_mark(version) not in dims}

    def dot(self) -> set[str]:
        """The versions whose vectors are compared by their dot product."""
        dims = self._dims()
        return {version for version in self.dims() if _metric_mark(version) in dims}

    def _dims(self) -> dict[str, int]:
        with _deployed():
            found = [d for page in self._client.visit(self._types, ["version", "dim", "space_id"]) for d in page]
        return {str(d["version"]): int(d["dim"]) for d in found}

    def dims(self) -> dict[str, int]:
        """The versions, oldest first, and the dimension of each."""
        dims = self._dims()
        numbered = ((version_number(self._name, version), version) for version in dims)
        return {version: dims[version] for n, version in sorted((n, v) for n, v in numbered if n is not None)}

    def space_of(self, version: str) -> str:
        """See ``Index``."""
        return self._describe(version)[0]

    def owner_of(self, version: str) -> str:
        """See ``Index``."""
        self._describe(version)
        said = self._said_of(_owner_document(version))
        return str(said["space_id"]) if said else ""

    def set_owner(self, version: str, owner: str) -> None:
        """See ``Index``. In a document of its own: a field would have to be deployed first, where a version is."""
        self._describe(version)
        self._put_owner(version, owner)

    def metric_of(self, version: str) -> Metric:
        """See ``Index``. Asked once, as a type keeps it."""
        if version not in self._metrics:
            self._metrics[version] = "cosine" if self._said_of(_metric_document(version)) is None else "dot"
        return self._metrics[version]

    def create_version(
        self, version: str, *, space_id: str, dim: int, owner: str = "", metric: Metric = "cosine"
    ) -> None:
        """See ``Index``. ConfigError where the document type is not deployed with this dimension and metric."""
        if version_number(self._name, version) is None:
            raise ValueError(f"a version of {self._name} is called {self._name}__v1, not {version}")
        said = self._said_of(version)
        if said is None:
            self._check_deployed(version, dim, metric)
            # All ahead of the version, so that no kill leaves one without.
            self._client.put(self._types, [(_layout_document(version), _note(_layout_mark(version), LAYOUT))])
            self._note_metric(version, metric)
            self._columns[version] = tuple(INDEX_ROW.names)
            if owner:
                self._put_owner(version, owner)
            said = {"version": version, "space_id": space_id, "dim": dim}
            self._client.put(self._types, [(version, said)])
        held = (str(said["space_id"]), int(said["dim"]), self.metric_of(version))
        check_same(version, held, (space_id, dim, metric))

    def point_alias(self, version: str) -> None:
        """See ``Index``."""
        space_id, dim = self._describe(version)
        self._client.put(self._types, [(LIVE, {"version": version, "space_id": space_id, "dim": dim})])

    def upsert(self, version: str, rows: pa.RecordBatch | pa.Table) -> list[str]:
        """See ``Index``. A row replaces one of the same or an older source version; that is Vespa's to hold."""
        table, vectors = checked_rows(rows, self._describe(version)[1], MAX_BYTES)
        table = table.select(self._columns_of(version))
        try:
            return self._client.put(
                version, documents_of(table, vectors), lambda fields: f"{version}.version <= {fields['version']}"
            )
        except RefusedError as error:
            raise RefusedError(f"{error}; is {version} deployed as `embedmill vespa-package` wrote it?") from None

    def delete(self, version: str, chunk_ids: Sequence[str]) -> None:
        """See ``Index``."""
        self._client.remove(version, chunk_ids)

    def count(self, version: str) -> int:
        """See ``Index``."""
        self._describe(version)
        body = {"yql": f"select * from {version} where true", "hits": 0, "ranking": "unranked"}
        return int(self._client.query(body, f"counting {version}")["fields"]["totalCount"])

    def scan(self, version: str) -> Iterator[pa.RecordBatch]:
        """See ``Index``. While content nodes come or go, a visit may meet a row twice."""
        self._describe(version)
        for page in self._client.visit(version, SCAN.names):
            rows = [{name: value_of(document, name) for name in SCAN.names} for document in page]
            yield pa.RecordBatch.from_pylist(rows, schema=SCAN)

    def fetch_vectors(self, version: str, chunk_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """See ``Index``."""
        found = self._client.get(version, chunk_ids, ["vector"])
        return {
            chunk_id: np.asarray(fields["vector"]["values"], dtype=np.float32)
            for chunk_id, fields in found.items()
            if "vector" in fields
        }

    def search(self, version: str | None, vector: np.ndarray, request: SearchRequest) -> list[Hit]:
        """See ``Index``."""
        version = self._asked(version, request)
        return self._found(version, search_body(version, vector, request, self.metric_of(version)), request)

    def match(self, version: str | None, text: str, request: SearchRequest) -> list[Hit]:
        """See ``Index``."""
        version = self._asked(version, request)
        if not words_of(text):
            return []
        column = "lexical" if "lexical" in self._columns_of(version) else "text"
        found = self._found(version, match_body(version, column, text, request), request)
        return [hit for hit in found if hit.score > 0]

    def matches_words(self, version: str) -> bool:
        """See ``Index``. Every type has a field with BM25."""
        return True

    def fetch(self, version: str | None, chunk_ids: Sequence[str], request: SearchRequest) -> list[Hit]:
        """See ``Index``. Documents are got by id, and the filters are applied here."""
        version = self._asked(version, request)
        keys, shown = list(dict.fromkeys(chunk_ids)), [n for n in HIT_FIELDS if n in self._columns_of(version)]
        found, passes = self._client.get(version, keys, shown), passing(request)
        hits = [hit_of(found[key], 0.0) for key in keys if key in found]
        return [hit for hit in hits if passes(asdict(hit))]

    def _asked(self, version: str | None, request: SearchRequest) -> str:
        """The version to search, which has the columns that the request filters by."""
        version = version or must_live(self.live(), self._name)
        check_columns(version, self._columns_of(version), request)
        return version

    def _found(self, version: str, body: dict[str, Any], request: SearchRequest) -> list[Hit]:
        root = self._client.query(body, f"searching {version}")
        hits = [hit_of(found["fields"], float(found["relevance"])) for found in root.get("children", [])]
        if any(hit.team_id != request.team_id for hit in hits):
            raise ResourceError(
                f"{self._client.shown}: {version} answers with rows of another team; is its schema the one that "
                "`embedmill vespa-package` wrote, and Vespa 8.440 or newer?"
            )
        return sorted(hits, key=lambda hit: (-hit.score, hit.chunk_id))

    def vector_error(self, version: str) -> float:
        """See ``Index``. Hexadecimal digits carry every bit."""
        return 0.0

    def wait_until_indexed(self, version: str) -> None:
        """See ``Index``. A row is in the graph before its write is acknowledged."""
        self._describe(version)

    def flush(self, version: str) -> None:
        """See ``Index``. A write that was acknowledged is in the transaction logs of its nodes."""
        self._describe(version)

    def compact(self, version: str) -> bool:
        """See ``Index``. Vespa compacts by itself, and has no call for it."""
        self._describe(version)
        return False

    def drop_version(self, version: str) -> None:
        """See ``Index``. The document type stays deployed, and empty, until a package without it is."""
        if version_number(self._name, version) is None:
            raise ValueError(f"{version} is not a version of {self._name}")
        if version == self.live():
            raise ConfigError(f"{version} is the live version of {self._name}; move the alias first")
        if self._said_of(version) is not None:
            self._client.empty(version)
            notes = [_owner_document(version), _layout_document(version), _metric_document(version)]
            self._client.remove(self._types, [version, *notes])
            self._columns.pop(version, None)
            self._metrics.pop(version, None)

    def close(self) -> None:
        """See ``Index``."""
        self._client.close()

    def _said_of(self, document: str) -> dict[str, Any] | None:
        with _deployed():
            return self._client.get(self._types, [document]).get(document)

    def _put_owner(self, version: str, owner: str) -> None:
        # No release lists a document under another name as a version.
        self._client.put(self._types, [(_owner_document(version), _note(f"owner of {version}", owner))])

    def _note_metric(self, version: str, metric: Metric) -> None:
        if metric == "dot":
            self._client.put(self._types, [(_metric_document(version), _note(_metric_mark(version), metric))])
        else:  # of a version of that name which a kill left half made
            self._client.remove(self._types, [_metric_document(version)])
        self._metrics[version] = metric

    def _describe(self, version: str) -> tuple[str, int]:
        said = self._said_of(version)
        if said is None:
            raise ConfigError(f"index {self._name} has no version {version}")
        return str(said["space_id"]), int(said["dim"])

    def _columns_of(self, version: str) -> tuple[str, ...]:
        """Columns of INDEX_ROW that the version's type has; asked once, as a type keeps them."""
        if version not in self._columns:
            noted = self._said_of(_layout_document(version)) is not None
            self._columns[version] = tuple(name for name in INDEX_ROW.names if noted or name not in ADDED)
        return self._columns[version]

    def _check_deployed(self, version: str, dim: int, metric: Metric) -> None:
        """Only a query tells whether a type is there, with this dimension, metric and all columns; no API does."""
        near = "({targetHits:1}nearestNeighbor(vector, q))"
        probe = {
            "yql": f'select * from {version} where {near} and visibility contains "public" and has_file = true',
            "hits": 0,
            "ranking": PROFILES[metric],
            "input.query(q)": np.eye(1, dim)[0].tolist(),
        }
        try:
            self._client.query(probe, f"asking for {version}")
        except RefusedError as error:
            by = " and compared by dot product" if metric == "dot" else ""
            raise RefusedError(f"{version} is not deployed with {dim} dimensions{by}; {DEPLOY} ({error})") from None


@contextmanager
def _deployed() -> Iterator[None]:
    """Around what reads of the versions: a type that is not there is not deployed yet."""
    try:
        yield
    except RefusedError as error:
        raise RefusedError(f"{error}; is the application package deployed? {DEPLOY}") from None


def _owner_document(version: str) -> str:
    """The id of the document that says which state owns a version."""
    return f"{version}.owner"


def _layout_document(version: str) -> str:
    """The id of the document that says of which layout a version's type is."""
    return f"{version}.layout"


def _layout_mark(version: str) -> str:
    return f"layout of {version}"


def _metric_document(version: str) -> str:
    """The id of the document that says that a version compares by dot product; others have none."""
    return f"{version}.metric"


def _metric_mark(version: str) -> str:
    return f"metric of {version}"


def _note(mark: str, value: str) -> dict[str, Any]:
    """What is said of a version beside its own document; no release takes the mark for the name of a version."""
    return {"version": mark, "space_id": value, "dim": 1}
