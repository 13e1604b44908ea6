"""The ``table`` source: rows of Parquet, newline-delimited JSON or Delta files; a data file is a partition."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.dataset as ds

from embedding import ids
from embedding.errors import SourceError
from embedding.records import Document, Kind, Record, Rejected, Skipped
from embedding.text import clean_text
from jobs.config import TEAM_PATTERN
from jobs.sources.base import Listing, Partition, ReadLimits, read_failure, source_key, stat_fingerprint

if TYPE_CHECKING:
    from jobs.config import Columns

_SUFFIX = {"parquet": (".parquet", ".pq"), "json": (".json", ".jsonl", ".ndjson")}


class TableSource:
    """Reads a table whose columns are mapped by name. Each row says its team, or the source does for all."""

    kind: Kind = "message"

    def __init__(
        self, root: Path, *, uri: str, format: str, columns: Columns, team_id: str | None, qualifier: str = ""
    ) -> None:  # fmt: skip
        self.root = root
        self.source_id = source_key("table", team_id, uri)
        self.team_id = team_id
        self.format = format
        self.columns = {k: v for k, v in columns.model_dump().items() if v is not None}
        self.qualifier = qualifier  # see ids.row_id
        self.reader = f"table:1:{team_id}:{sorted(self.columns.items())}:{qualifier}"
        self.names: Mapping[str, str] = {}

    def listing(self) -> Listing:
        """See Source.listing."""
        if not self.root.exists():
            raise SourceError(f"table source: no such path: {self.root}")
        if self.format == "delta":
            from deltalake import DeltaTable
            from deltalake.exceptions import TableNotFoundError

            try:
                files = [Path(uri.removeprefix("file://")) for uri in DeltaTable(str(self.root)).file_uris()]
            except TableNotFoundError:
                raise SourceError(f"table source: {self.root} is not a Delta table") from None
        elif self.root.is_file():
            files = [self.root]
        else:
            files = [p for p in self.root.rglob("*") if p.suffix in _SUFFIX[self.format] and p.name[0] not in "._"]
        if not files:
            raise SourceError(f"table source: no {self.format} file in {self.root}; an empty root is never a deletion")
        base = self.root if self.root.is_dir() else self.root.parent
        partitions = []
        for path in sorted(files):
            status = path.stat()
            key = ids.file_id("", path.relative_to(base).as_posix()).removeprefix("/f/")
            partitions.append(Partition(key, str(path), stat_fingerprint(status), status.st_size))
        return Listing(tuple(partitions))

    def read(self, partition: Partition) -> Iterator[Record]:
        """See Source.read. Streams record batches, so a file may be larger than memory."""
        base = self.root if self.root.is_dir() else None
        try:
            data = ds.dataset(
                partition.path, format="json" if self.format == "json" else "parquet", partitioning="hive",
                partition_base_dir=str(base) if base else None,
            )  # fmt: skip
            missing = sorted(set(self.columns.values()) - set(data.schema.names))
            if missing:
                yield Rejected("", "missing_column", ", ".join(missing), whole=True)
                return
            seen: set[str] = set()
            position = 0
            for batch in data.to_batches(columns=sorted(set(self.columns.values()))):
                for row in batch.to_pylist():
                    yield self._row(row, position, seen)
                    position += 1
        except (pa.ArrowException, ValueError) as error:
            yield Rejected("", "unreadable_table", type(error).__name__, whole=True)
        except OSError as error:
            yield read_failure(error)

    def apart(self, partition: Partition) -> ReadLimits | None:
        """See Source.apart. A lake's own table is streamed, and its rows are many."""
        return None

    def _row(self, row: dict[str, Any], position: int, seen: set[str]) -> Record:
        value = {name: row.get(column) for name, column in self.columns.items()}
        if value["id"] is None:
            return Rejected(f"@{position}", "missing_id")
        key = str(value["id"])
        team = self.team_id or str(value.get("team_id") or "")
        channel = str(value.get("channel_id") or "")
        if not TEAM_PATTERN.fullmatch(team):
            return Rejected(key, "bad_team_id", "use 1 to 64 letters, digits, '_', '.' or '-'")
        created = _micros(value["created_at"])
        if created is None:
            return Rejected(
                key, "bad_created_at", "not a timestamp", channel, doc_id=ids.row_id(team, key, self.qualifier)
            )
        updated = _micros(value.get("updated_at"))
        updated = created if updated is None else updated
        if value.get("deleted"):
            return Skipped("deleted")
        if f"{team}/{key}" in seen:
            return Rejected(key, "duplicate_id", "", channel, created, doc_id=ids.row_id(team, key, self.qualifier))
        seen.add(f"{team}/{key}")
        if not isinstance(value["text"], str) or not (text := clean_text(value["text"])):
            return Rejected(key, "empty_text", "", channel, created, doc_id=ids.row_id(team, key, self.qualifier))
        return Document(
            doc_id=ids.row_id(team, key, self.qualifier), team_id=team, channel_id=channel,
            channel_name=str(value.get("channel_name") or ""), kind="message", created_at=created, updated_at=updated,
            version=updated, text=text,
        )  # fmt: skip


def _micros(value: object) -> int | None:
    """Microseconds from a timestamp, a date, an ISO text, or seconds since the epoch (Slack's way)."""
    try:
        if isinstance(value, str):
            text = value
            try:
                value = float(text)
            except ValueError:
                value = dt.datetime.fromisoformat(text)
        if isinstance(value, dt.datetime):
            moment = value if value.tzinfo else value.replace(tzinfo=dt.UTC)
            return int(moment.timestamp() * 1_000_000)
        if isinstance(value, dt.date):
            return int(dt.datetime(value.year, value.month, value.day, tzinfo=dt.UTC).timestamp()) * 1_000_000
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return int(round(value * 1_000_000))
    except (ValueError, OverflowError, OSError):
        return None
    return None
