"""Delta tables written by hand, by the protocol: with what the ``deltalake`` package reads and does not write."""

from __future__ import annotations

import json
import struct
import uuid
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.parquet as pq

_Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def z85(data: bytes) -> str:
    """ZeroMQ's base 85, of whole groups of four bytes."""
    digits = []
    for (number,) in struct.iter_unpack(">I", data + b"\0" * (-len(data) % 4)):
        digits += [_Z85[number // 85**power % 85] for power in (4, 3, 2, 1, 0)]
    return "".join(digits)


def bitmap(rows: Iterable[int]) -> bytes:
    """Row numbers below 2**32 as Delta's array of roaring bitmaps, of array containers alone."""
    containers: dict[int, list[int]] = {}
    for row in sorted(set(rows)):
        containers.setdefault(row >> 16, []).append(row & 0xFFFF)
    head = struct.pack("<II", 12346, len(containers))
    head += b"".join(struct.pack("<HH", key, len(low) - 1) for key, low in containers.items())
    bodies = [struct.pack(f"<{len(low)}H", *low) for low in containers.values()]
    at = len(head) + 4 * len(bodies)
    for body in bodies:
        head += struct.pack("<I", at)
        at += len(body)
    return struct.pack("<IQI", 1681511377, 1, 0) + head + b"".join(bodies)


def inline_vector(rows: Sequence[int]) -> dict[str, Any]:
    """A deletion vector that stands in the log."""
    data = bitmap(rows)
    return {"storageType": "i", "pathOrInlineDv": z85(data), "sizeInBytes": len(data), "cardinality": len(rows)}


@dataclass
class DeltaLog:
    """A table below ``root``. ``columns`` is the type by name; ``mapping`` is "none", "name" or "id"."""

    root: Path
    columns: Mapping[str, str]
    partitioned_by: Sequence[str] = ()
    features: Sequence[str] = ()
    mapping: str = "none"
    version: int = -1
    _adds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def physical(self, column: str) -> str:
        """The name that a column has in the files."""
        return column if self.mapping == "none" else f"col-{list(self.columns).index(column)}"

    def create(self) -> DeltaLog:
        """The first commit, without a file."""
        fields = []
        for number, (name, kind) in enumerate(self.columns.items(), 1):
            mapped = {"delta.columnMapping.id": number, "delta.columnMapping.physicalName": self.physical(name)}
            metadata = {} if self.mapping == "none" else mapped
            fields.append({"name": name, "type": kind, "nullable": True, "metadata": metadata})
        configuration = {} if self.mapping == "none" else {"delta.columnMapping.mode": self.mapping}
        protocol: dict[str, Any] = {"minReaderVersion": 1, "minWriterVersion": 2}
        if self.features:
            protocol = {"minReaderVersion": 3, "minWriterVersion": 7}
            protocol |= {"readerFeatures": list(self.features), "writerFeatures": list(self.features)}
        elif self.mapping != "none":
            protocol = {"minReaderVersion": 2, "minWriterVersion": 5}
        self._commit(
            [
                {"protocol": protocol},
                {
                    "metaData": {
                        "id": str(uuid.uuid4()),
                        "format": {"provider": "parquet", "options": {}},
                        "schemaString": json.dumps({"type": "struct", "fields": fields}),
                        "partitionColumns": list(self.partitioned_by),
                        "configuration": configuration,
                        "createdTime": 0,
                    }
                },
            ]
        )
        return self

    def add(self, name: str, rows: pa.Table, values: Mapping[str, str | None] | None = None) -> Path:
        """Write a data file (``name`` is its path below the root) and commit it."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        fields = [
            pa.field(self.physical(f.name), f.type, metadata={"PARQUET:field_id": str(number)})
            for f in rows.schema
            for number in [list(self.columns).index(f.name) + 1]
        ]
        pq.write_table(pa.Table.from_arrays(rows.columns, schema=pa.schema(fields)), path)
        self._adds[name] = {
            "path": quote(name),
            "size": path.stat().st_size,
            "modificationTime": 0,
            "dataChange": True,
            "partitionValues": {self.physical(k): v for k, v in (values or {}).items()},
            "stats": json.dumps({"numRecords": rows.num_rows}),
        }
        self._commit([{"add": self._adds[name]}])
        return path

    def delete(self, name: str, rows: Sequence[int], *, inline: bool = True) -> None:
        """Commit a deletion vector for rows of a file, which itself stays as it is."""
        vector = inline_vector(rows) if inline else self._file_vector(rows)
        removed = {"path": self._adds[name]["path"], "deletionTimestamp": 1, "dataChange": True}
        if before := self._adds[name].get("deletionVector"):
            removed["deletionVector"] = before
        self._adds[name] = self._adds[name] | {"deletionVector": vector}
        self._commit([{"remove": removed}, {"add": self._adds[name]}])

    def _file_vector(self, rows: Sequence[int]) -> dict[str, Any]:
        name, data = uuid.uuid4(), bitmap(rows)
        framed = b"\x01" + struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data))
        (self.root / f"deletion_vector_{name}.bin").write_bytes(framed)
        return {
            "storageType": "u",
            "pathOrInlineDv": z85(name.bytes),
            "offset": 1,
            "sizeInBytes": len(data),
            "cardinality": len(rows),
        }

    def _commit(self, actions: Sequence[Mapping[str, Any]]) -> None:
        log = self.root / "_delta_log"
        log.mkdir(parents=True, exist_ok=True)
        self.version += 1
        (log / f"{self.version:020}.json").write_text("".join(json.dumps(action) + "\n" for action in actions))
