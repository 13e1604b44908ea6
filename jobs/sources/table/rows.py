"""Rows: records out of the batches of one data file, of each document the newest row alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding import ids
from embedding.records import Document, Record, Rejected, Removed, Skipped, Visibility
from embedding.text.clean import clean_text
from embedding.text.language import language_code
from embedding.text.slack import normalise_label
from jobs.config_sources import TEAM_PATTERN
from jobs.sources.table import values
from jobs.sources.table.batch import Batch, ColumnFault, Data
from jobs.sources.table.newest import Standings, Winners
from jobs.sources.table.values import BAD, FINE, NONE, Cells

if TYPE_CHECKING:
    from jobs.config_sources import Columns

_UNITS = ("created_unit", "updated_unit")
# Of a row whose document and version are known: a reason and a detail, the first that applies counts.
_FAULTS = (
    ("bad_deleted", "none of the values that say yes or no"),
    ("bad_channel_id", "not a text or a number"),
    ("bad_text", "not a text"),
)
_BAD_DELETED = 1
_VISIBLE: dict[str, Visibility] = {word: word for word in get_args(Visibility)}
_LABELS = ("channel_name", "author", "author_id", "thread_id", "title", "visibility", "language")
# Decide nothing of what document a row is, and how new.
_SHOWN = ("text", "channel_id", *_LABELS, "mentions", "has_file")
_NEEDED = ("id", "created_at")  # without these no row of a file is anything


@dataclass(frozen=True, slots=True)
class _Facts:
    """What decides of each row of a batch: what document it is, how new, and whether it takes it away."""

    keys: Cells
    teams: Cells
    created: Cells
    versions: np.ndarray  # µs
    deleted: Cells
    competes: np.ndarray


class _Row(NamedTuple):
    """The cells of one row. The first four mean nothing where it is not ``sound``: its document or version is unknown.

    ``fault`` is a number of _FAULTS, 0 for none; ``text`` means nothing where it has none (``has_text``).
    """

    key: str
    team: str
    created: int  # µs
    version: int  # µs
    sound: bool
    fault: int
    deleted: bool
    has_text: bool
    text: str
    channel_id: str
    channel_name: str | None
    author: str | None
    author_id: str | None
    thread_id: str | None
    title: str | None
    visibility: str | None
    language: str | None
    mentions: list[str] | None
    has_file: bool


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
        deciding = [c for name, c in self.columns.items() if name not in _SHOWN]
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
        channels, *labels = (values.keys(self.column(name, batch, partition)) for name in ("channel_id", *_LABELS))
        removes = facts.deleted.values
        faults = [facts.deleted.state == BAD, channels.state == BAD, ~removes & (texts.state == BAD)]
        ids_of_channels = zip(channels.values.to_pylist(), (channels.state == FINE).tolist(), strict=True)
        columns = (
            facts.keys.values.to_pylist(),
            facts.teams.values.to_pylist(),
            facts.created.values.tolist(),
            facts.versions.tolist(),
            facts.competes.tolist(),
            np.select(faults, range(1, 1 + len(faults)), 0).tolist(),
            removes.tolist(),
            (texts.state == FINE).tolist(),
            texts.values,
            [channel if fine else "" for channel, fine in ids_of_channels],
            *(label.values.to_pylist() for label in labels),
            values.lists(self.column("mentions", batch, partition)).values,
            values.flags(self.column("has_file", batch, partition)).values.tolist(),
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
        return _Facts(keys, teams, created, versions, deleted, competes)

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
        winners = self._winners
        for at, row in enumerate(self._rows.cells(batch, facts, partition)):
            number = self.row
            self.row += 1
            if not row.sound:
                yield self._unsound(number, row, at, facts, batch, partition)
                continue
            text = clean_text(row.text) if row.has_text else ""
            if winners.lost(number):
                if number in winners.tied and text and row.fault != _BAD_DELETED:
                    winners.remember(number, row.key, text)
                else:
                    yield Skipped("superseded")
                continue
            record = self._record(number, row, text)
            yield record
            different, same = winners.others(number, text)
            if same:
                yield Skipped("superseded", same)
            for _ in different:
                # Only beside a document: what it names is protected, unless the same reading has it.
                if isinstance(record, Document):
                    detail = "another row has this id and this version, with another text"
                    yield self._rejected(number, row, "duplicate_id", detail)
                else:
                    yield Skipped("superseded")

    def _unsound(
        self, number: int, row: _Row, at: int, facts: _Facts, batch: Batch, partition: Mapping[str, Any]
    ) -> Rejected:
        """Why a row, in place ``at`` of its batch, has no document or no version."""
        if (state := facts.keys.state[at]) != FINE:
            reason, digest = "missing_id" if state == NONE else "bad_id", self._digest(batch, partition, at)
            return Rejected(self._key(f"@{number}", number), reason, digest=digest)
        if facts.teams.state[at] != FINE:
            detail, digest = "use 1 to 64 letters, digits, '_', '.' or '-'", self._digest(batch, partition, at)
            return Rejected(self._key(row.key, number), "bad_team_id", detail, digest=digest)
        if (state := facts.created.state[at]) != FINE:
            detail = "no time" if state == NONE else "not a time, or not in its unit"
            return self._rejected(number, row, "bad_created_at", detail, dated=False)
        return self._rejected(number, row, "bad_updated_at", "not a time, or not in its unit")

    def _record(self, number: int, row: _Row, text: str) -> Record:
        """What the newest row of a document says of it."""
        if row.fault:
            return self._rejected(number, row, *_FAULTS[row.fault - 1])
        doc_id = ids.row_id(row.team, row.key, self._rows.qualifier)
        if row.deleted or not text:
            reason = "deleted" if row.deleted else "empty_text"
            return Removed(
                doc_id, row.team, row.channel_id, "message", row.created, row.version, reason, deleted=row.deleted
            )
        return Document(
            doc_id=doc_id,
            team_id=row.team,
            channel_id=row.channel_id,
            channel_name=row.channel_name or "",
            kind="message",
            created_at=row.created,
            updated_at=row.version,
            version=row.version,
            text=text,
            author=normalise_label(row.author or ""),
            author_id=row.author_id or row.author or "",
            thread_id=ids.row_id(row.team, row.thread_id, self._rows.qualifier) if row.thread_id else "",
            title=normalise_label(row.title or ""),
            visibility=_VISIBLE.get(row.visibility or "", "private"),
            mentions=tuple(sorted({*(row.mentions or ())})),
            has_file=row.has_file,
            language=language_code(row.language or ""),
        )

    def _rejected(self, number: int, row: _Row, reason: str, detail: str, *, dated: bool = True) -> Rejected:
        """A row whose document is known; ``dated`` where its time is."""
        doc_id = ids.row_id(row.team, row.key, self._rows.qualifier)
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
