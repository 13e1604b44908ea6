"""Search indexes by name: one protocol (``base``), a folder or file for each engine, imported when it is opened.

What is true of an engine stands in its own folder; here is only what must be known before it is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from embedding.errors import ConfigError
from embedding.extensions import load_extensions
from indexers.base import Settings

if TYPE_CHECKING:
    from indexers.base import Index

__all__ = ["INDEXES", "IndexAddress", "IndexKind", "Settings", "find_index", "index_kinds", "open_index"]


@dataclass(frozen=True, slots=True)
class IndexKind:
    """What is known of an engine before it is opened.

    ``open`` takes the uri, the name and the settings of ``[index]``. ``max_bytes`` returns the longest value of each
    string column of INDEX_ROW, in UTF-8 bytes; it is asked where texts are read, so it imports no client. ``server``
    names what must answer at the uri where only an http(s) address will do. ``lasting``: its rows outlive the process,
    so a configuration may name it.
    """

    open: Callable[[str, str, Settings], Index]
    max_bytes: Callable[[], Mapping[str, int]]
    server: str = ""
    lasting: bool = True


def _milvus(uri: str, name: str, settings: Settings) -> Index:
    from indexers.milvus.index import MilvusIndex

    return MilvusIndex(uri, name, settings)


def _exact(uri: str, name: str, settings: Settings) -> Index:
    from indexers.exact import ExactIndex

    return ExactIndex(uri, name)


def _vespa(uri: str, name: str, settings: Settings) -> Index:
    try:
        from indexers.vespa.index import VespaIndex
    except ImportError as error:
        raise ConfigError(f'index.kind: "vespa" needs the package pyvespa ({error.name} is missing)') from None
    return VespaIndex(uri, name, settings)


def _milvus_bytes() -> Mapping[str, int]:
    from indexers.milvus.limits import MAX_BYTES

    return MAX_BYTES


def _exact_bytes() -> Mapping[str, int]:
    from indexers.exact import MAX_BYTES

    return MAX_BYTES


def _vespa_bytes() -> Mapping[str, int]:
    from indexers.vespa.limits import MAX_BYTES

    return MAX_BYTES


INDEXES: dict[str, IndexKind] = {
    "milvus": IndexKind(_milvus, _milvus_bytes),
    "vespa": IndexKind(_vespa, _vespa_bytes, server="Vespa's container"),
    "exact": IndexKind(_exact, _exact_bytes, lasting=False),
}


def index_kinds() -> list[str]:
    """What ``index.kind`` may be, extensions included."""
    load_extensions()
    return [name for name, kind in INDEXES.items() if kind.lasting]


def find_index(kind: str) -> IndexKind:
    """The kind of index of this name. Raises ConfigError for one that is not known."""
    load_extensions()
    try:
        return INDEXES[kind]
    except KeyError:
        raise ConfigError(f"index.kind: {kind!r} is not one of {', '.join(sorted(INDEXES))}") from None


def open_index(kind: str, uri: str, name: str, token: str = "", *, settings: Settings | None = None) -> Index:
    """Connect to the index ``name`` at ``uri``. Raises ConfigError for a kind that is not known.

    ``token`` alone is short for settings that hold nothing else.
    """
    return find_index(kind).open(uri, name, settings or Settings(token=token))


@dataclass(frozen=True, slots=True)
class IndexAddress:
    """Where an index is, and how it is reached; may be sent to a worker."""

    kind: str
    uri: str
    name: str
    settings: Settings = field(default_factory=Settings)

    def open(self) -> Index:
        """Connect to it. Raises ConfigError for a kind that is not known."""
        return open_index(self.kind, self.uri, self.name, settings=self.settings)
