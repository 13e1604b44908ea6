"""The index in Vespa: a document type for each version, written under a condition on the source's version.

Owns what a row is as a document, the queries and what is said of versions in the type that ``package`` made for
it. Types are deployed and not created here. Never reads across teams for a search: the team is part of every query.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from embedding.errors import ConfigError, ResourceError, SpaceMismatchError
from indexers.base import Capabilities, Hit, SearchRequest, Settings, must_live, version_number
from indexers.rows import SCAN, checked_rows
from indexers.vespa.client import RefusedError, VespaClient
from indexers.vespa.limits import MAX_BYTES
from indexers.vespa.package import FILTERS, LIVE, content_cluster, versions_type
from indexers.vespa.strings import restored, searchable, storable

DEPLOY = "run `embedmill vespa-package` and deploy what it writes (`vespa deploy build/vespa`)"
# What the nearest-neighbour search and the words bring together before they are ranked; more of them cost time only.
TARGET_HITS = 100
BATCH_ROWS = 500  # that are held as Python objects while they are sent
_HIT_STRINGS = ("chunk_id", "team_id", "channel_id", "channel_name", "kind", "doc_id", "text", "meta")


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
        return Capabilities(self._engine, hybrid=True, conditional=True, writers=1)

    def live(self) -> str | None:
        """See ``Index``."""
        pointer = self._said_of(LIVE)
        return str(pointer["version"]) if pointer else None

    def versions(self) -> list[str]:
        """See ``Index``."""
        return list(self.dims())

    def dims(self) -> dict[str, int]:
        """The versions, oldest first, and the dimension of each."""
        with _deployed():
            found = [d for page in self._client.visit(self._types, ["version", "dim", "space_id"]) for d in page]
        dims = {str(d["version"]): int(d["dim"]) for d in found}
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

    def create_version(self, version: str, *, space_id: str, dim: int, owner: str = "") -> None:
        """See ``Index``. ConfigError where the document type is not deployed with this dimension."""
        if version_number(self._name, version) is None:
            raise ValueError(f"a version of {self._name} is called {self._name}__v1, not {version}")
        said = self._said_of(version)
        if said is None:
            self._check_deployed(version, dim)
            if owner:  # ahead of the version, so that no kill leaves one without an owner
                self._put_owner(version, owner)
            said = {"version": version, "space_id": space_id, "dim": dim}
            self._client.put(self._types, [(version, said)])
        if (said["space_id"], said["dim"]) != (space_id, dim):
            raise SpaceMismatchError(
                f"{version} holds space {said['space_id']} ({said['dim']} dimensions), not {space_id} ({dim})"
            )

    def point_alias(self, version: str) -> None:
        """See ``Index``."""
        space_id, dim = self._describe(version)
        self._client.put(self._types, [(LIVE, {"version": version, "space_id": space_id, "dim": dim})])

    def upsert(self, version: str, rows: pa.RecordBatch | pa.Table) -> list[str]:
        """See ``Index``. A row replaces one of the same or an older source version; that is Vespa's to hold."""
        table, vectors = checked_rows(rows, self._describe(version)[1], MAX_BYTES)
        try:
            return self._client.put(
                version, _documents(table, vectors), lambda fields: f"{version}.version <= {fields['version']}"
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
            rows = [{name: _value(document, name) for name in SCAN.names} for document in page]
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
        version = version or must_live(self.live(), self._name)
        body = search_body(version, vector, request)
        root = self._client.query(body, f"searching {version}")
        hits = [_hit(found) for found in root.get("children", [])]
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
            self._client.remove(self._types, [version, _owner_document(version)])

    def close(self) -> None:
        """See ``Index``."""
        self._client.close()

    def _said_of(self, document: str) -> dict[str, Any] | None:
        with _deployed():
            return self._client.get(self._types, [document]).get(document)

    def _put_owner(self, version: str, owner: str) -> None:
        # No release lists a document under another name as a version.
        self._client.put(
            self._types, [(_owner_document(version), {"version": f"owner of {version}", "space_id": owner, "dim": 1})]
        )

    def _describe(self, version: str) -> tuple[str, int]:
        said = self._said_of(version)
        if said is None:
            raise ConfigError(f"index {self._name} has no version {version}")
        return str(said["space_id"]), int(said["dim"])

    def _check_deployed(self, version: str, dim: int) -> None:
        """Only a query tells whether a type is there and has this dimension: a container has no API that says so."""
        probe = {
            "yql": f"select * from {version} where {{targetHits:1}}nearestNeighbor(vector, q)",
            "hits": 0,
            "ranking": "semantic",
            "input.query(q)": np.eye(1, dim)[0].tolist(),
        }
        try:
            self._client.query(probe, f"asking for {version}")
        except RefusedError as error:
            raise RefusedError(f"{version} is not deployed with {dim} dimensions; {DEPLOY} ({error})") from None


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


def search_body(version: str, vector: np.ndarray, request: SearchRequest) -> dict[str, Any]:
    """The query of a search; ``vector`` is float32 of shape (dim,).

    Every value is a parameter of its own, and none is part of the expression.
    """
    channels, text = request.channels, request.text
    values = {"team": searchable(request.team_id)}
    values |= {f"channel_{n}": searchable(channel) for n, channel in enumerate(channels)}
    filters = ["team_id contains @team"]
    if channels:
        filters.append("(" + " or ".join(f"channel_id contains @channel_{n}" for n in range(len(channels))) + ")")
    if request.kind is not None:
        filters.append("kind contains @kind")
        values["kind"] = searchable(request.kind)
    wanted = max(TARGET_HITS, request.k)
    found_by = f"({{targetHits:{wanted}}}nearestNeighbor(vector, q))"
    if text is not None:
        # "tokenize" reads the text as words alone, so that nothing in it is taken for the query language.
        words = f'({{defaultIndex:"text",grammar:"tokenize",targetHits:{wanted},allowEmpty:true}}userInput(@words))'
        found_by = f"({found_by} or {words})"
        values["words"] = storable(text)
    return {
        "yql": f"select * from {version} where {found_by} and {' and '.join(filters)}",
        "ranking": "semantic" if text is None else "hybrid",
        "input.query(q)": np.asarray(vector, dtype=np.float32).tolist(),
        "hits": request.k,
        "presentation.summary": "hit",
        # A search that ran out of time says so, instead of answering from the part it has searched.
        "ranking.softtimeout.enable": False,
    } | values


def _documents(table: pa.Table, vectors: np.ndarray) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows as Vespa's documents, made one by one as they are sent."""
    # Hexadecimal digits are exact, and packed ten times as fast as decimal ones.
    packed = np.ascontiguousarray(vectors, dtype=">f4")
    strings = [field.name for field in table.schema if pa.types.is_string(field.type) and field.name not in FILTERS]
    batches = table.drop_columns(["vector"]).to_batches(max_chunksize=BATCH_ROWS)
    rows = (row for batch in batches for row in batch.to_pylist())
    for row, vector in zip(rows, packed, strict=True):
        key = row["chunk_id"]
        for name in strings:
            row[name] = storable(row[name])
        for name in FILTERS:
            row[name] = searchable(row[name])
        yield key, row | {"vector": {"values": vector.tobytes().hex()}}


def _value(fields: Mapping[str, Any], name: str) -> Any:
    """A field of a document; Vespa leaves out what is empty or nought."""
    if pa.types.is_string(SCAN.field(name).type):
        return restored(fields.get(name, ""))
    return fields.get(name, 0)


def _hit(found: Mapping[str, Any]) -> Hit:
    fields = found["fields"]
    strings = {name: restored(fields.get(name, "")) for name in _HIT_STRINGS}
    return Hit(score=float(found["relevance"]), created_at=int(fields.get("created_at", 0)), **strings)
