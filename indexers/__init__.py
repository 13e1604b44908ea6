"""Search indexes: one protocol (``base``) and an implementation a file. Clients are imported only when used."""

from __future__ import annotations

from collections.abc import Callable

from embedding.errors import ConfigError
from indexers.base import INDEX_ROW, MAX_BYTES, SCAN, Capabilities, Hit, Index, too_long

__all__ = ["INDEX_ROW", "MAX_BYTES", "SCAN", "Capabilities", "Hit", "Index", "open_index", "too_long"]


def _milvus(uri: str, name: str, token: str) -> Index:
    from indexers.milvus import MilvusIndex

    return MilvusIndex(uri, name, token)


def _exact(uri: str, name: str, token: str) -> Index:
    from indexers.exact import ExactIndex

    return ExactIndex(uri, name)


def _vespa(uri: str, name: str, token: str, *, cert: str = "", key: str = "") -> Index:
    try:
        from indexers.vespa import VespaIndex
    except ImportError as error:
        raise ConfigError(f'index.kind: "vespa" needs the package pyvespa ({error.name} is missing)') from None
    return VespaIndex(uri, name, token, cert=cert, key=key)


_KINDS: dict[str, Callable[..., Index]] = {"milvus": _milvus, "exact": _exact, "vespa": _vespa}


def open_index(kind: str, uri: str, name: str, token: str = "", **options: str) -> Index:
    """Connect to the index ``name`` at ``uri``, with ``options`` that its engine has; ConfigError for no known kind."""
    try:
        connect = _KINDS[kind]
    except KeyError:
        raise ConfigError(f"index.kind: {kind!r} is not one of {', '.join(sorted(_KINDS))}") from None
    return connect(uri, name, token, **options)
