"""Search indexes: one protocol (``base``) and an implementation a file. Clients are imported only when used."""

from __future__ import annotations

from collections.abc import Callable

from embedding.errors import ConfigError
from indexers.base import Capabilities, Hit, Index, Settings
from indexers.rows import INDEX_ROW, MAX_BYTES, SCAN, too_long

__all__ = ["INDEX_ROW", "MAX_BYTES", "SCAN", "Capabilities", "Hit", "Index", "Settings", "open_index", "too_long"]


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


_KINDS: dict[str, Callable[[str, str, Settings], Index]] = {"milvus": _milvus, "exact": _exact, "vespa": _vespa}


def open_index(kind: str, uri: str, name: str, token: str = "", *, settings: Settings | None = None) -> Index:
    """Connect to the index ``name`` at ``uri``; ConfigError for a kind that does not exist.

    ``token`` alone is short for settings that hold nothing else.
    """
    try:
        connect = _KINDS[kind]
    except KeyError:
        raise ConfigError(f"index.kind: {kind!r} is not one of {', '.join(sorted(_KINDS))}") from None
    return connect(uri, name, settings or Settings(token=token))
