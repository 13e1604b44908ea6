"""The contract of a search index: one Protocol, the rows that go in, the keys and hits that come out.

An ``Index`` is a connection to one named index ("messages"). Its data lies in versions ("messages__v1", ...), each of
one embedding space; the name itself is an alias that points at the live version. Never knows where rows come from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from embedding.errors import ConfigError, SpaceMismatchError
from embedding.records import Metric

if TYPE_CHECKING:  # the configuration imports this module, and needs neither
    import numpy as np
    import pyarrow as pa


# Longest ids, names and hashes that this project writes, in UTF-8 bytes (``embedding.ids``): every engine must take
# them. Beside them an engine's limits name ``text``, ``lexical`` and ``meta``. Of a list it is the limit of each value.
KEY_BYTES: Mapping[str, int] = {
    "chunk_id": 512,
    "team_id": 256,
    "channel_id": 512,
    "channel_name": 1024,
    "kind": 16,
    "doc_id": 512,
    "content_hash": 64,
    "meta_hash": 64,
    "author": 1024,
    "author_id": 512,
    "thread_id": 512,
    "title": 1024,
    "visibility": 16,
    "mentions": 512,
    "language": 16,
}


@dataclass(frozen=True, slots=True)
class Hit:
    """One row that was found. ``score``: by the version's metric of ``search``, by BM25 of ``match``, 0 of ``fetch``.

    From ``author`` on all are empty in a version of an earlier release, whose rows have no such columns.
    """

    chunk_id: str
    score: float
    team_id: str
    channel_id: str
    channel_name: str
    kind: str
    doc_id: str
    text: str
    created_at: int
    meta: str
    author: str = ""
    author_id: str = ""
    thread_id: str = ""
    title: str = ""
    visibility: str = ""
    mentions: tuple[str, ...] = ()
    has_file: bool = False
    language: str = ""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What a search may find: at most ``k`` rows of one team that pass every filter given; an empty one passes all.

    ``since`` and ``until`` bound ``created_at`` (µs since the epoch, UTC), half open. With ``public`` a row passes that
    is public or lies in one of ``channels``: what is public need not be named, and without channels it is all there is.
    With ``mentions`` a row passes that mentions one of these people; with ``has_file`` one that came with a file.
    ``languages`` are ISO 639-1 codes; a row whose language is unsure has none of them.
    """

    team_id: str
    channels: Sequence[str] = ()
    kinds: Sequence[str] = ()
    k: int = 10
    author_ids: Sequence[str] = ()
    thread_id: str | None = None
    since: int | None = None
    until: int | None = None
    public: bool = False
    mentions: Sequence[str] = ()
    has_file: bool = False
    languages: Sequence[str] = ()

    def columns(self) -> tuple[str, ...]:
        """Columns that the filters read beside those of every version."""
        asked = {
            "author_id": bool(self.author_ids),
            "thread_id": self.thread_id is not None,
            "visibility": self.public,
            "mentions": bool(self.mentions),
            "has_file": self.has_file,
            "language": bool(self.languages),
        }
        return tuple(name for name, given in asked.items() if given)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine of this version can do. ``engine`` names both, as in "Milvus 2.3.5".

    ``lexical``: BM25 beside vectors. ``conditional``: it refuses a row older than the one it holds.
    ``writers``: connections of one process that may write at once and gain by it. ``float16``: it can keep vectors so.
    ``compacts``: it does so by itself; else ``compact`` is to be called now and then. ``embedded``: it runs in this
    process, and ``flush`` does the work of writing its files.
    """

    engine: str
    lexical: bool
    conditional: bool
    writers: int
    float16: bool = False
    compacts: bool = True
    embedded: bool = False


@dataclass(frozen=True, slots=True)
class Settings:
    """How an engine is reached, and what is asked of it. The keys of ``[index]``; an engine takes what concerns it.

    ``tls_ca``, ``tls_cert`` and ``tls_key`` are PEM files: the authority that signed the server's certificate, and a
    certificate of our own where the server asks for one. ``writers`` 0 is as many as the engine gains by. ``hybrid``
    None: new versions have an index of words where the engine has BM25; true: they must; false: they have none.
    """

    token: str = field(default="", repr=False)
    database: str = ""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    tls_server_name: str = ""
    writers: int = 0
    hybrid: bool | None = None
    storage: Literal["float32", "float16"] = "float32"


class Index(Protocol):
    """One named index and its versions. What a write call has returned from, every later read sees."""

    def capabilities(self) -> Capabilities:
        """Return what the engine behind this connection can do; asks it once."""

    def live(self) -> str | None:
        """Return the version that the alias points at; None before the first ``point_alias``."""

    def versions(self) -> list[str]:
        """List the versions that exist, oldest first."""

    def space_of(self, version: str) -> str:
        """Return the ``space_id`` that the version was created with."""

    def owner_of(self, version: str) -> str:
        """Return the id of the state that writes this version; "" where none has said so."""

    def set_owner(self, version: str, owner: str) -> None:
        """Note whose version it is, in the version's own metadata, in place of who owned it."""

    def metric_of(self, version: str) -> Metric:
        """Return what the version compares vectors by."""

    def create_version(
        self, version: str, *, space_id: str, dim: int, owner: str = "", metric: Metric = "cosine"
    ) -> None:
        """Create an empty version. Idempotent; SpaceMismatchError if it exists with another space, dimension or metric.

        One that exists keeps its owner.
        """

    def point_alias(self, version: str) -> None:
        """Make the version the live one."""

    def upsert(self, version: str, rows: pa.RecordBatch | pa.Table) -> list[str]:
        """Insert or replace rows (INDEX_ROW) by ``chunk_id``. A failed call may have written some of them.

        Raises ValueError, and writes nothing, for a value over the engine's ``IndexKind.max_bytes()``, a key that
        occurs twice, and a vector that is not finite or of another dimension.

        Returns the keys that were refused because the index holds a newer version of them; always none of an engine
        that is not ``conditional``. Given no rows it only does what an engine needs before the first.
        """

    def delete(self, version: str, chunk_ids: Sequence[str]) -> None:
        """Delete by key; unknown keys are no error."""

    def count(self, version: str) -> int:
        """Count the rows."""

    def scan(self, version: str) -> Iterator[pa.RecordBatch]:
        """Yield every row's keys and hashes (SCAN), each once, in bounded memory."""

    def fetch_vectors(self, version: str, chunk_ids: Sequence[str]) -> dict[str, np.ndarray]:
        """Read vectors (float32) by key; unknown keys are absent from the result."""

    def vector_error(self, version: str) -> float:
        """How far a stored number may be from the one written, relative to it; 0 where vectors are kept as they are."""

    def search(self, version: str | None, vector: np.ndarray, request: SearchRequest) -> list[Hit]:
        """Return the rows nearest to the ``vector`` (float32, the version's dimension), by its metric, best first.

        ``version`` None is the live one, here and below. Raises ConfigError for a filter by a column that a version of
        an earlier release does not have (``SearchRequest.columns``), as do ``match`` and ``fetch``.
        """

    def match(self, version: str | None, text: str, request: SearchRequest) -> list[Hit]:
        """Return the rows whose ``lexical`` holds words of the ``text``, by BM25, best first; none without any of them.

        Scores are BM25's own, above 0, and comparable within one answer alone: an engine may weigh words by a part of
        its rows. A version of an earlier release matches ``text`` in place of ``lexical``. Raises ConfigError where the
        engine, or the version's schema, has no BM25.
        """

    def matches_words(self, version: str) -> bool:
        """Whether the version has what ``match`` needs; asks the engine nothing that ``space_of`` has not asked."""

    def fetch(self, version: str | None, chunk_ids: Sequence[str], request: SearchRequest) -> list[Hit]:
        """Return the rows of these keys that pass the request's filters, in the order of the keys; ``k`` is no bound.

        Keys that are unknown, or that the request may not see, are absent from the result.
        """

    def flush(self, version: str) -> None:
        """Make what was written durable in the index's own files."""

    def wait_until_indexed(self, version: str) -> None:
        """Wait until searches are as good as they will be: an engine may build its index after it took the rows."""

    def compact(self, version: str) -> bool:
        """Remove deleted and replaced rows from the index's files, as far as the engine lets a client do so.

        Returns whether they are gone now; False of an engine that was asked to, and removes its old files by itself.
        """

    def drop_version(self, version: str) -> None:
        """Delete a version with its data; no error if it does not exist. ConfigError if it is live."""

    def close(self) -> None:
        """Release the connection and, for an embedded engine, its lock."""


def version_number(name: str, version: str) -> int | None:
    """Return n of ``{name}__v{n}``, None for anything else."""
    match = re.fullmatch(re.escape(name) + r"__v([0-9]+)", version)
    return int(match[1]) if match else None


def must_live(version: str | None, name: str) -> str:
    """Return the live ``version`` of the index ``name``; ConfigError where there is none yet."""
    if version is None:
        raise ConfigError(f"index {name} has no live version yet; run `embedmill run` first")
    return version


def check_same(version: str, held: tuple[str, int, Metric], asked: tuple[str, int, Metric]) -> None:
    """Raises SpaceMismatchError where a version's space, dimension and metric are not those that are asked for."""
    if held != asked:
        (space, dim, metric), (wanted, wanted_dim, wanted_metric) = held, asked
        raise SpaceMismatchError(
            f"{version} holds space {space} ({dim} dimensions, {metric}), not {wanted} ({wanted_dim}, {wanted_metric})"
        )


def passing(request: SearchRequest) -> Callable[[Mapping[str, Any]], bool]:
    """Return what says of a row, or of the fields of a hit, whether the request may find it."""
    channels, kinds, authors = set(request.channels), set(request.kinds), set(request.author_ids)
    people, languages = set(request.mentions), set(request.languages)
    since = -(2**63) if request.since is None else request.since
    until = 2**63 if request.until is None else request.until

    def passes(row: Mapping[str, Any]) -> bool:
        seen = row["channel_id"] in channels or (row["visibility"] == "public" if request.public else not channels)
        return (
            row["team_id"] == request.team_id
            and seen
            and (not kinds or row["kind"] in kinds)
            and (not authors or row["author_id"] in authors)
            and request.thread_id in (None, row["thread_id"])
            and (not people or not people.isdisjoint(row["mentions"]))
            and (not request.has_file or row["has_file"])
            and (not languages or row["language"] in languages)
            and since <= row["created_at"] < until
        )

    return passes


def check_columns(version: str, columns: Collection[str], request: SearchRequest) -> None:
    """Raises ConfigError where the version has no column that the request filters by."""
    for name in request.columns():
        if name not in columns:
            raise ConfigError(f"{version} has no {name} to filter by; run `embedmill reindex` to make one that has")


def check_name(name: str) -> str:
    """Return the index's name; ConfigError if an engine would not take it."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,199}", name):
        raise ConfigError(f"index.name: {name!r} must be letters, digits and underscores, not beginning with a digit")
    return name
