"""What the readers of a data file's formats hand over."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, TypeAlias

import pyarrow as pa

from embedding.buckets import Prefix
from embedding.records import Rejected

_READ_AHEAD = 1 << 22  # bytes that are asked of an object store at once


@dataclass(frozen=True, slots=True)
class Batch:
    """Some rows: for each wanted column an Arrow array or a list of ``rows`` values. And what could not be read."""

    rows: int
    columns: Mapping[str, Any]
    rejected: tuple[Rejected, ...] = ()


class ObjectName(NamedTuple):
    """A data file in an object store."""

    root: Prefix
    path: str

    @property
    def suffix(self) -> str:
        """What its name ends with, from the last dot."""
        return PurePosixPath(self.path or self.root.key).suffix


DataFile: TypeAlias = Path | ObjectName


def opened(path: DataFile, etag: str = "") -> pa.NativeFile:
    """A file for Arrow, which takes a name only where it is UTF-8; an object with this ``etag``. Raises OSError."""
    if isinstance(path, ObjectName):
        return pa.PythonFile(path.root.open(path.path, etag, buffer=_READ_AHEAD), "r")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return pa.PythonFile(path.open("rb"), "r")
    return pa.OSFile(str(path), "rb")


class ColumnFault(Exception):
    """A file's columns are not what they must be; ``reason`` and ``detail`` are for the quarantine."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class Data(Protocol):
    """An open data file. It can be read more than once, and gives the same rows in the same order."""

    def close(self) -> None:
        """Let go of the file."""
        ...

    def type_of(self, column: str) -> pa.DataType | None:
        """The type of a column, null where every row is asked; None where the file does not have it."""
        ...

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All rows, in their order. A column that is not there is of nulls."""
        ...
