"""Rows: records out of the batches of one data file, of each document the newest row alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding import ids
from embedding.records import Document, Record, Rejected, Removed, Skipped
from embedding.text.clean import clean_text
from jobs.config_sections import TEAM_PATTERN
from jobs.sources.table import values
from jobs.sources.table.batch import Batch, ColumnFault, Data
from jobs.sources.table.newest import Standings, Winners
from jobs.sources.table.values import BAD, FINE, NONE, Cells

if TYPE_CHECKING:
    from jobs.config_sections import Columns

_UNITS = ("created_unit", "updated_unit")
_NEEDED = ("id", "created_at")  # without these no row of a file is anything


@dataclass(frozen=True, slots=True)
class _Facts:
    """What decides of each row of a batch: what document it is, how new, and whether it takes it away."""

    keys: Cells
    teams: Cells
    created: Cells
    versions: np.ndarray  # µs
    updated_bad: np.ndarray
    deleted: Cells
    competes: np.ndarray


class _Row(NamedTuple):
    """The cells of one row. Where a state is not FINE its value means nothing."""

    key: str
    key_state: int
    team: str
    team_state: int
    created: int  # µs
    created_state: int
    version: int  # µs
    updated_bad: bool
    deleted: bool
    deleted_state: int
    text: str
    text_state: int
    channel: str | None
    channel_state: int
    channel_name: str | None

    @property
    def channel_id(self) -> str:
        """The channel, "" where there is none that is one."""
        return (self.channel or "") if self.channel_state == FINE else ""


class Rows:
    """How a table's rows become records: which column is what, whose they are, and how their ids are made."""

    def __init__(self, columns: Columns, team_id: str | None, qualifier: str) -> None:
        named = columns.model_dump(exclude_none=True)
        self.columns: dict[str, str] = {name: column for name, column in named.items() if name not in _UNITS}
        self.created_unit = columns.created_unit
        self.updated_unit = columns.updated_unit or columns.created_unit
        self.team_id = team_id
        self.qualifier = qualifier

    @property
    def wanted(self) -> list[str]:
        """The table's columns that are read."""
        return sorted(set(self.columns.values()))

    def records(self, data: Data, partition: Mapping[str, Any]) -> Iterator[Record]:
        """Records of one file. ``partition`` are values that hold for all its rows, and go before its own columns.

        Reads it twice: which rows are the newest of their documents, and then these. Raises ColumnFault where its
        columns cannot be what they must be.
        """
        self._check(data, partition)
        deciding = [c for name, c in self.columns.items() if name not in ("text", "channel_id", "channel_name")]
        standings = Standings()
        for batch in data.batches([c for c in deciding if c not in partition]):
            facts = self._facts(batch, partition)
            standings.add(facts.teams.values, facts.keys.values, facts.versions, facts.deleted.values, facts.competes)
        reading = _Reading(self, standings.result())
        for batch in data.batches([c for c in self.wanted if c not in partition]):
            yield from reading.unread(batch)
            yield from reading.batch(batch, self._facts(batch, partition), partition)
        if reading.row != standings.rows:
            yield Rejected("", "changed_while_read", retry=True, whole=True)

    def _check(self, data: Data, partition: Mapping[str, Any]) -> None:
        for name, column in self.columns.items():
            if column in partition:
                continue
            kind = data.type_of(column)
            if kind is None and name in _NEEDED:
                raise ColumnFault("missing_column", column)
            if kind is not None and not values.fits(name, kind):
                raise ColumnFault("wrong_column_type", f"{name} = {column!r} is {kind}")

    def column(self, name: str, batch: Batch, partition: Mapping[str, Any]) -> Any:
        """A column of a batch by what embedmill calls it."""
        column = self.columns.get(name)
        if column is None:
            return pa.nulls(batch.rows)
        if column not in partition:
            return batch.columns[column]
        try:
            return pa.array([partition[column]] * batch.rows)
        except UnicodeEncodeError:  # of a folder whose name is not UTF-8
            return [partition[column]] * batch.rows

    def cells(self, batch: Batch, facts: _Facts, partition: Mapping[str, Any]) -> Iterator[_Row]:
        """The cells of a batch, row by row."""
        texts = values.texts(self.column("text", batch, partition))
        channels, names = (values.keys(self.column(name, batch, partition)) for name in ("channel_id", "channel_name"))
        columns = (
            facts.keys.values.to_pylist(),
            facts.keys.state.tolist(),
            facts.teams.values.to_pylist(),
            facts.teams.state.tolist(),
            facts.created.values.tolist(),
            facts.created.state.tolist(),
            facts.versions.tolist(),
            facts.updated_bad.tolist(),
            facts.deleted.values.tolist(),
            facts.deleted.state.tolist(),
            texts.values,
            texts.state.tolist(),
            channels.values.to_pylist(),
            channels.state.tolist(),
            names.values.to_pylist(),
        )
        return map(_Row._make, zip(*columns, strict=True))

    def _facts(self, batch: Batch, partition: Mapping[str, Any]) -> _Facts:
        rows = batch.rows
        keys = values.keys(self.column("id", batch, partition))
        if self.team_id is not None:
            teams = Cells(pa.array([self.team_id] * rows, pa.large_string()), np.zeros(rows, np.int8))
        else:
            found = values.keys(self.column("team_id", batch, partition))
            good = pc.fill_null(pc.match_substring_regex(found.values, f"^(?:{TEAM_PATTERN.pattern})$"), False)
            good = np.asarray(good.to_numpy(zero_copy_only=False)) & (found.state == FINE)
            teams = Cells(found.values, np.where(good, FINE, BAD).astype(np.int8))
        created = values.times(self.column("created_at", batch, partition), self.created_unit)
        updated = values.times(self.column("updated_at", batch, partition), self.updated_unit)
        deleted = self._deleted(batch, partition)
        # What deletes a row need not say when that was made.
        lent = (created.state == NONE) & (updated.state == FINE) & deleted.values
        created = Cells(
            np.where(lent, updated.values, created.values), np.where(lent, FINE, created.state).astype(np.int8)
        )
        versions = np.where(updated.state == FINE, updated.values, created.values)
        competes = (keys.state == FINE) & (teams.state == FINE) & (created.state == FINE) & (updated.state != BAD)
        return _Facts(keys, teams, created, versions, updated.state == BAD, deleted, competes)

    def _deleted(self, batch: Batch, partition: Mapping[str, Any]) -> Cells:
        flags = values.flags(self.column("deleted", batch, partition))
        if "deleted_at" not in self.columns:
            return flags
        moments = values.moment_flags(self.column("deleted_at", batch, partition), self.updated_unit)
        bad = (flags.state == BAD) | (moments.state == BAD)
        return Cells((flags.values | moments.values) & ~bad, np.where(bad, BAD, FINE).astype(np.int8))


class _Reading:
    """The second look at a file: a record for every row."""

    def __init__(self, rows: Rows, winners: Winners) -> None:
        self._rows = rows
        self._winners = winners
        self._used: set[str] = set()  # keys of what was rejected
        self.row = 0

    def unread(self, batch: Batch) -> Iterator[Record]:
        """What its file's reader could not make a row of."""
        for rejected in batch.rejected:
            yield replace(rejected, key=self._key(rejected.key, self.row))

    def batch(self, batch: Batch, facts: _Facts, partition: Mapping[str, Any]) -> Iterator[Record]:
        """Records of one batch."""
        for at, row in enumerate(self._rows.cells(batch, facts, partition)):
            number = self.row
            self.row += 1
            if row.key_state != FINE:
                reason = "missing_id" if row.key_state == NONE else "bad_id"
                yield Rejected(self._key(f"@{number}", number), reason, digest=self._digest(batch, partition, at))
            elif row.team_state != FINE:
                detail = "use 1 to 64 letters, digits, '_', '.' or '-'"
                key = self._key(row.key, number)
                yield Rejected(key, "bad_team_id", detail, digest=self._digest(batch, partition, at))
            else:
                yield from self._version(number, row, ids.row_id(row.team, row.key, self._rows.qualifier))

    def _version(self, number: int, row: _Row, doc_id: str) -> Iterator[Record]:
        """Records of a row whose document is known, and of those that lost to it with its very version."""
        if row.created_state != FINE:
            detail = "no time" if row.created_state == NONE else "not a time, or not in its unit"
            yield self._rejected(number, row, doc_id, "bad_created_at", detail, dated=False)
            return
        if row.updated_bad:
            yield self._rejected(number, row, doc_id, "bad_updated_at", "not a time, or not in its unit")
            return
        text = clean_text(row.text) if row.text_state == FINE else ""
        if self._winners.lost(number):
            if number in self._winners.tied and text and row.deleted_state != BAD:
                self._winners.remember(number, row.key, text)
            else:
                yield Skipped("superseded")
            return
        record = self._record(number, row, doc_id, text)
        yield record
        different, same = self._winners.others(number, text)
        if same:
            yield Skipped("superseded", same)
        for _ in different:
            # Only beside a document: what it names is protected, unless the same reading has it.
            if isinstance(record, Document):
                detail = "another row has this id and this version, with another text"
                yield self._rejected(number, row, doc_id, "duplicate_id", detail)
            else:
                yield Skipped("superseded")

    def _record(self, number: int, row: _Row, doc_id: str, text: str) -> Record:
        """What the newest row of a document says of it."""
        created, version = row.created, row.version
        if row.deleted_state == BAD:
            return self._rejected(number, row, doc_id, "bad_deleted", "none of the values that say yes or no")
        if row.channel_state == BAD:
            return self._rejected(number, row, doc_id, "bad_channel_id", "not a text or a number")
        if row.deleted:
            return Removed(doc_id, row.team, row.channel_id, "message", created, version, "deleted")
        if row.text_state == BAD:
            return self._rejected(number, row, doc_id, "bad_text", "not a text")
        if not text:
            return Removed(doc_id, row.team, row.channel_id, "message", created, version, "empty_text", deleted=False)
        return Document(
            doc_id=doc_id,
            team_id=row.team,
            channel_id=row.channel_id,
            channel_name=row.channel_name or "",
            kind="message",
            created_at=created,
            updated_at=version,
            version=version,
            text=text,
        )

    def _rejected(
        self, number: int, row: _Row, doc_id: str, reason: str, detail: str, *, dated: bool = True
    ) -> Rejected:
        moment = row.created if dated else None
        return Rejected(self._key(row.key, number), reason, detail, row.channel_id, moment, doc_id=doc_id)

    def _key(self, key: str, row: int) -> str:
        """A key for the quarantine that no other row of the file has."""
        found = key if key not in self._used else f"{key}@{row}"
        while found in self._used:
            found = f"{found}@"
        self._used.add(found)
        return found

    def _digest(self, batch: Batch, partition: Mapping[str, Any], at: int) -> str:
        """Of a row whose document is not known: what tells it from others."""
        rows = self._rows
        said = {}
        for name in rows.columns:
            cell = rows.column(name, batch, partition)[at]
            said[name] = str(cell.as_py() if isinstance(cell, pa.Scalar) else cell)
        return hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=16).hexdigest()
