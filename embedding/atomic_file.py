"""Small private files that a crash leaves old or new, never half written."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def replace_file(file: Path, data: bytes, *, durable: bool = True) -> None:
    """Write a small private file so that a crash leaves the old one or the new one. Of two writers the later wins.

    Without ``durable`` it is not flushed to the disk: a loss of power may lose it, and no write waits for the disk.
    """
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as sink:
        sink.write(data)
        if durable:
            sink.flush()
            os.fsync(sink.fileno())
    os.replace(temporary, file)
    if durable:
        flush(file.parent)


def flush(path: Path) -> None:
    """Have what was written to a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
