"""Canaries: texts that are nowhere else on this machine, and the search for them in files, tables and processes."""

from __future__ import annotations

import base64
import gzip
import secrets
import threading
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

_CONSONANTS = "bcdfghjkmnpqrstvwxz"  # a normaliser, a tokenizer and every encoding leave these as they are
_HALF = 14


class Canary:
    """Two halves around a letter that encodings write differently; each half is looked for by itself.

    So a text that was cut, escaped for JSON or a URL, or written in another encoding is found as well.
    """

    def __init__(self) -> None:
        self.halves = ["".join(secrets.choice(_CONSONANTS) for _ in range(_HALF)) for _ in range(2)]
        self.text = "é".join(self.halves)
        self._exact = [form for half in self.halves for form in _base64(half.encode())]
        self._lower = [form for half in self.halves for form in _bytes(half)]

    def found_in(self, data: bytes) -> bool:
        """Whether a part of it is in the data, in any form."""
        lower = data.lower()
        return any(form in lower for form in self._lower) or any(form in data for form in self._exact)


def _bytes(half: str) -> list[bytes]:
    # Without its last byte UTF-16 is the same in both orders.
    return [half.encode(), half.encode("utf-16-le")[:-1], half.encode().hex().encode()]


def _base64(data: bytes) -> list[bytes]:
    """How base64 writes the data at each of its three places, without what depends on the neighbours."""
    return [base64.b64encode(b"\0" * before + data)[(before * 8 + 5) // 6 : -4] for before in range(3)]


def places(canaries: Mapping[str, Canary], *roots: Path) -> dict[str, set[str]]:
    """Where below the roots each canary is: files, and of Parquet files ``file:column`` as well."""
    found: dict[str, set[str]] = {}
    for root in roots:
        for file in sorted(root.rglob("*")):
            if not file.is_file() or file.is_symlink():
                continue
            for where, data in _contents(file):
                for name, canary in canaries.items():
                    if canary.found_in(data):
                        found.setdefault(name, set()).add(f"{file.relative_to(root.parent)}{where}")
    return found


def _contents(file: Path) -> Iterable[tuple[str, bytes]]:
    """The bytes of a file, and what is packed in them: columns of Parquet, gzip, zip."""
    data = file.read_bytes()
    yield "", data
    if data[:4] == b"PAR1" == data[-4:]:
        reader = pq.ParquetFile(pa.BufferReader(data))
        for column in reader.schema_arrow.names:
            yield f":{column}", repr(reader.read(columns=[column]).to_pylist()).encode()
    elif data[:2] == b"\x1f\x8b":
        yield ":gzip", gzip.decompress(data)
    elif data[:4] == b"PK\x03\x04" and zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as packed:
            for name in packed.namelist():
                yield f":{name}", packed.read(name)


class Onlooker:
    """Looks at the names and arguments of all processes while its block runs, as any user of the machine can."""

    def __init__(self, canaries: Mapping[str, Canary]) -> None:
        self._canaries = canaries
        self.seen: set[str] = set()
        self.looks = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Onlooker:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.1):
            self.looks += 1
            for process in psutil.process_iter(["name", "cmdline"]):
                shown = f"{process.info['name']} {' '.join(process.info['cmdline'] or ())}".encode(errors="replace")
                self.seen |= {
                    f"{name}: {process.info['name']}" for name, c in self._canaries.items() if c.found_in(shown)
                }
