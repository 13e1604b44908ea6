"""Milvus Lite: the engine that runs inside this process, on a directory. Opening and locking it."""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from contextlib import suppress
from pathlib import Path

from embedding.errors import ConfigError, LeaseHeldError, ResourceError
from indexers.milvus.compat import lite_servers

LOCK_SECONDS = 15.0

# Milvus Lite is a gRPC server on threads of this process, one a directory, under an flock that the kernel gives up
# when the process dies. Connections of this process share it; the last to close stops it.
_users: dict[Path, int] = {}
_mutex = threading.Lock()


def open_lite(path: Path, lock_timeout: float = LOCK_SECONDS) -> str:
    """Start or join Milvus Lite on a directory and return its local address.

    Raises ConfigError without the package or for a path that is a file, ResourceError where it cannot be created or
    opened, LeaseHeldError where another process holds it.
    """
    try:
        servers = lite_servers()
    except ImportError:
        raise ConfigError(f"index.uri: {path} is a path, which needs the package milvus-lite") from None
    logging.getLogger("milvus_lite").setLevel(logging.CRITICAL + 1)
    if path.is_file():
        raise ConfigError(f"index.uri: {path} is a file; Milvus Lite 3 keeps a directory")
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with suppress(PermissionError):  # another user's folder: the engine says whether it may be used
            path.chmod(path.stat().st_mode & 0o700)
    except OSError as error:
        raise ResourceError(f"index.uri: cannot create {path}: {error.strerror}") from None
    deadline = time.monotonic() + lock_timeout
    refusals = 0
    while True:
        with _mutex:
            address = servers.start_and_get_uri(str(path))  # None for any failure
            if address is not None:
                _users[path] = _users.get(path, 0) + 1
                return str(address)
        # One refusal without a lock may be a lock that has just been given up; two are another trouble.
        refusals = 0 if _locked(path) else refusals + 1
        if refusals > 1:
            raise ResourceError(f"Milvus Lite cannot open {path}: damaged, or the disk is full or read-only")
        if time.monotonic() >= deadline and not refusals:
            raise LeaseHeldError(
                f"index {path} is in use by another process (waited {lock_timeout:g} s); "
                "Milvus Lite serves one process at a time"
            )
        time.sleep(0.1)


def _locked(path: Path) -> bool:
    """Whether another process holds the directory's lock."""
    try:
        handle = os.open(path / "LOCK", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:
        return False  # opening will say what is wrong
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


def close_lite(path: Path) -> None:
    """Let go of the directory; the last connection of this process stops the engine and gives up the lock."""
    with _mutex:
        left = _users.pop(path, 1) - 1
        if left > 0:
            _users[path] = left
        else:
            lite_servers().release_server(str(path))
