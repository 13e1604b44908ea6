"""NDJSON: one JSON object a line. Nothing is guessed: a text stays as it is, a number keeps its characters."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any

import orjson
import pyarrow as pa

from embedding.records import Rejected
from jobs.sources.table.batch import Batch, ColumnFault, DataFile, ObjectName, opened
from jobs.sources.table.cells import Number

SUFFIXES = (".json", ".jsonl", ".ndjson")
PACKED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_ROWS = 8_192
_LONGEST = 1 << 26  # bytes of a line; a longer one is no record
_BOM = b"\xef\xbb\xbf"


class JsonData:
    """A file of JSON lines, packed or not. Lines may end in CRLF, blank ones say nothing, a BOM is skipped."""

    def __init__(self, path: DataFile) -> None:
        self._path = path
        # Read more than once, an object must be the same each time.
        self._etag = path.root.look(path.path).etag if isinstance(path, ObjectName) else ""

    def close(self) -> None:
        """Nothing stays open."""

    def type_of(self, column: str) -> pa.DataType | None:
        """Any: each line says of its own values what they are, and may leave out what is null."""
        return pa.null()

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """All objects. A line that is none is rejected by itself; ColumnFault at the end where none was."""
        objects, bad = 0, 0
        rows: list[list[Any]] = []
        rejected: list[Rejected] = []
        wanted = [(column, column.split(".")) for column in columns]
        flat = all(len(parts) == 1 for _, parts in wanted)
        for number, line, digest in _lines(self._path, self._etag):
            found = _parse(line)
            if isinstance(found, str):
                bad += 1
                rejected.append(
                    Rejected(
                        f"line {number}",
                        found,
                        digest=digest or hashlib.blake2b(line or b"", digest_size=16).hexdigest(),
                    )
                )
            else:
                objects += 1
                row = [*map(found.get, columns)] if flat else [_value(found, column, parts) for column, parts in wanted]
                if float in map(type, row) and isinstance(exact := _parse_exactly(line), dict):
                    row = [_value(exact, column, parts) for column, parts in wanted]
                rows.append(row)
            if len(rows) + len(rejected) >= _ROWS:
                yield _batch(columns, rows, rejected)
                rows, rejected = [], []
        if bad and not objects:
            raise ColumnFault("not_ndjson", "no line of it is a JSON object")
        yield _batch(columns, rows, rejected)


def names_in(path: DataFile, wanted: frozenset[str], budget: int) -> tuple[frozenset[str], int, bool]:
    """Which of the ``wanted`` columns some line has, looking no further than needed or than ``budget`` bytes.

    Returns them, the bytes looked at, and whether there was an object at all.
    """
    missing, seen, any_object = set(wanted), 0, False
    for _, line, _ in _lines(path):
        seen += len(line or b"")
        found = _parse(line)
        if not isinstance(found, str):
            any_object = True
            missing -= {column for column in missing if _has(found, column, column.split("."))}
        if not missing or seen > budget:
            break
    return wanted - missing, seen, any_object


def _batch(columns: Sequence[str], rows: list[list[Any]], rejected: list[Rejected]) -> Batch:
    turned = list(zip(*rows, strict=True)) if rows else [() for _ in columns]
    return Batch(len(rows), {c: list(v) for c, v in zip(columns, turned, strict=True)}, tuple(rejected))


def _lines(path: DataFile, etag: str = "") -> Iterator[tuple[int, bytes | None, str]]:
    """Number (from 1) and bytes of each line that is not blank; None and its digest for one that is too long."""
    with _opened(path, etag) as file:
        number = 0
        while line := file.readline(_LONGEST):
            number += 1
            if len(line) == _LONGEST and not line.endswith(b"\n"):
                digest = hashlib.blake2b(line, digest_size=16)
                while (more := file.readline(_LONGEST)) and not more.endswith(b"\n"):
                    digest.update(more)
                digest.update(more)
                yield number, None, digest.hexdigest()
                continue
            line = (line.removeprefix(_BOM) if number == 1 else line).strip()
            if line:
                yield number, line, ""


def _opened(path: DataFile, etag: str) -> IO[bytes]:
    if path.suffix.lower() in PACKED:
        return io.BufferedReader(pa.CompressedInputStream(opened(path, etag), PACKED[path.suffix.lower()]), 1 << 20)
    return path.root.open(path.path, etag, buffer=1 << 22) if isinstance(path, ObjectName) else path.open("rb", 1 << 20)


def _refuse(constant: str) -> object:
    raise ValueError(constant)  # NaN and Infinity are not JSON


_decoder = json.JSONDecoder(parse_int=Number, parse_float=Number, parse_constant=_refuse)


def _parse(line: bytes | None) -> dict[str, object] | str:
    """The object of a line, or why it is none. Numbers are such; one that is no integer of 64 bits is a float."""
    if line is None:
        return "line_too_long"
    try:
        found = orjson.loads(line)
    except ValueError:  # it may be only half of a surrogate pair
        return _parse_exactly(line)
    return found if isinstance(found, dict) else "not_an_object"


def _parse_exactly(line: bytes | None) -> dict[str, object] | str:
    """The same, with every number as a Number; three times as slow."""
    if line is None:
        return "line_too_long"
    try:
        found = _decoder.decode(line.decode())
    except UnicodeDecodeError:
        return "not_utf8"
    except (ValueError, RecursionError):
        return "bad_json"
    return found if isinstance(found, dict) else "not_an_object"


def _has(row: Mapping[str, object], column: str, parts: list[str]) -> bool:
    at: Any = row
    if column in row:
        return True
    for part in parts:
        if not isinstance(at, dict) or part not in at:
            return False
        at = at[part]
    return True


def _value(row: Mapping[str, object], column: str, parts: list[str]) -> Any:
    if column in row or len(parts) == 1:
        return row.get(column)
    at: Any = row
    for part in parts:
        at = at.get(part) if isinstance(at, dict) else None
    return at
