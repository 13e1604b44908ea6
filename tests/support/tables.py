"""What the tests of the table source share: a source over a folder, and its records by what they are about."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from embedding.records import Document, Rejected, Removed, Skipped
from jobs.config_sources import Columns
from jobs.sources.base import Root
from jobs.sources.table import TableSource

AT = "2025-03-03"
MAPPED = {"id": "string", "body": "string", "at": "string"}
PLAIN = {"id": "id", "text": "body", "created_at": "at"}


@dataclass
class Told:
    """What a source yielded."""

    texts: dict[str, str] = field(default_factory=dict)  # by doc_id
    documents: dict[str, Document] = field(default_factory=dict)
    removed: dict[str, Removed] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, str]:
        """Reason of each rejected record, by its key."""
        assert len({r.key for r in self.rejected}) == len(self.rejected), "keys tell records apart"
        return {r.key: r.reason for r in self.rejected}


def table(root: Root, format: str = "parquet", **columns: str) -> TableSource:
    """A source over ``root`` of team T1, whose columns are those of PLAIN and the given."""
    return _source(root, format, PLAIN | columns, "T1")


def _source(root: Root, format: str, columns: dict[str, Any], team_id: str | None) -> TableSource:
    return TableSource(root, source_id="rows", format=format, columns=Columns(**columns), team_id=team_id)


def of_teams(root: Path, format: str = "parquet", **columns: str) -> TableSource:
    """A source whose rows say their team in the column ``team``."""
    return _source(root, format, PLAIN | {"team_id": "team"} | columns, None)


def told(source: TableSource) -> Told:
    """Everything that a source lists and reads."""
    listing = source.listing()
    found = Told(rejected=list(listing.rejected))
    for partition in listing.partitions:
        for record in source.read(partition):
            match record:
                case Document():
                    assert record.doc_id not in found.documents, "one reading of a document a partition"
                    found.texts[record.doc_id], found.documents[record.doc_id] = record.text, record
                case Removed():
                    found.removed[record.doc_id] = record
                case Rejected():
                    found.rejected.append(record)
                case Skipped():
                    found.skipped[record.reason] = found.skipped.get(record.reason, 0) + record.count
    return found


def write_parquet(path: Path, rows: Mapping[str, Any] | pa.Table) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows if isinstance(rows, pa.Table) else pa.table(dict(rows)), path)
    return path


def write_lines(path: Path, rows: Iterable[Mapping[str, Any] | str], end: str = "\n") -> Path:
    """JSON lines; a row that is a text stands there as it is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join((r if isinstance(r, str) else json.dumps(r)) + end for r in rows).encode())
    return path


def rows(*ids: str) -> pa.Table:
    """Rows of these ids, each with a text of its own and the time AT."""
    schema = pa.schema([("id", pa.string()), ("body", pa.string()), ("at", pa.string())])
    return pa.table({"id": list(ids), "body": [f"text {i}" for i in ids], "at": [AT] * len(ids)}, schema)


def lines(*ids: str) -> list[dict[str, str]]:
    return rows(*ids).to_pylist()


def ids_of(found: Told) -> set[str]:
    return {doc_id.removeprefix("T1/t/") for doc_id in found.texts}
