"""Keeps what runs write apart from what they read: a state in a source's folder would be read as its documents."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from embedding.buckets import SCHEME
from embedding.errors import ConfigError

# A store and bucket ("" is this machine), and a path in it.
Place: TypeAlias = tuple[str, PurePosixPath]


def place(uri: str, endpoint: str, path: Callable[[str], Path]) -> Place | None:
    """Where a uri is, by ``path`` if it is one; None for one that is neither here nor in an object store."""
    if uri.startswith(SCHEME):
        bucket, _, key = uri.removeprefix(SCHEME).partition("/")
        return f"{endpoint.rstrip('/')}/{bucket}", PurePosixPath("/", key.strip("/"))
    if "://" in uri:
        return None
    return "", PurePosixPath(path(uri))


def check_apart(file: Path, read: Mapping[str, Place | None], written: Mapping[str, Place | None]) -> None:
    """Raise ConfigError where one place lies in another, naming the keys of both."""
    for key, theirs in read.items():
        for name, own in written.items():
            if theirs is None or own is None or theirs[0] != own[0]:
                continue
            if own[1].is_relative_to(theirs[1]):
                what = f"lies in {key}, so that each run would read what the one before it wrote"
            elif theirs[1].is_relative_to(own[1]):
                what = f"holds {key}, and is for embedmill's own files alone"
            else:
                continue
            raise ConfigError(f"{file}: {name}: {what}; give it a place of its own")
