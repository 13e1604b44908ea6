"""Rows: records out of the batches of one data file, of each document the newest row alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

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
        rows = self._rows
        keys, teams = facts.keys.values.to_pylist(), facts.teams.values.to_pylist()
        texts = values.texts(rows.column("text", batch, partition))
        channels, names = (values.keys(rows.column(name, batch, partition)) for name in ("channel_id", "channel_name"))
        ids_of_channels, names_of_channels = channels.values.to_pylist(), names.values.to_pylist()
        states = zip(
            facts.keys.state.tolist(),
            facts.teams.state.tolist(),
            facts.created.state.tolist(),
            facts.deleted.state.tolist(),
            texts.state.tolist(),
            channels.state.tolist(),
            strict=True,
        )
        created, versions = facts.created.values.tolist(), facts.versions.tolist()
        for at, (key_state, team_state, created_state, deleted_state, text_state, channel_state) in enumerate(states):
            row, key, team = self.row, keys[at], teams[at]
            self.row += 1
            if key_state != FINE:
                reason = "missing_id" if key_state == NONE else "bad_id"
                yield Rejected(self._key(f"@{row}", row), reason, digest=self._digest(batch, partition, at))
                continue
            if team_state != FINE:
                detail = "use 1 to 64 letters, digits, '_', '.' or '-'"
                yield Rejected(self._key(key, row), "bad_team_id", detail, digest=self._digest(batch, partition, at))
                continue
            doc_id = ids.row_id(team, key, rows.qualifier)
            channel = (ids_of_channels[at] or "") if channel_state == FINE else ""
            rejected = partial(self._rejected, row, key, channel, doc_id)
            if created_state != FINE:
                detail = "no time" if created_state == NONE else "not a time, or not in its unit"
                yield rejected("bad_created_at", detail)
                continue
            moment, version = created[at], versions[at]
            if facts.updated_bad[at]:
                yield rejected("bad_updated_at", "not a time, or not in its unit", moment)
                continue
            text = clean_text(texts.values[at]) if text_state == FINE else ""
            if self._winners.lost(row):
                if row in self._winners.tied and text and deleted_state != BAD:
                    self._winners.remember(row, key, text)
                else:
                    yield Skipped("superseded")
                continue
            record: Record
            if deleted_state == BAD:
                record = rejected("bad_deleted", "none of the values that say yes or no", moment)
            elif channel_state == BAD:
                record = rejected("bad_channel_id", "not a text or a number", moment)
            elif facts.deleted.values[at]:
                record = Removed(doc_id, team, channel, "message", moment, version, "deleted")
            elif text_state == BAD:
                record = rejected("bad_text", "not a text", moment)
            elif not text:
                record = Removed(doc_id, team, channel, "message", moment, version, "empty_text", deleted=False)
            else:
                record = Document(
                    doc_id=doc_id,
                    team_id=team,
                    channel_id=channel,
                    channel_name=names_of_channels[at] or "",
                    kind="message",
                    created_at=moment,
                    updated_at=version,
                    version=version,
                    text=text,
                )
            yield record
            different, same = self._winners.others(row, text)
            if same:
                yield Skipped("superseded", same)
            for _ in different:
                # Only beside a document: what it names is protected, unless the same reading has it.
                if isinstance(record, Document):
                    detail = "another row has this id and this version, with another text"
                    yield rejected("duplicate_id", detail, moment)
                else:
                    yield Skipped("superseded")

    def _rejected(
        self, row: int, key: str, channel: str, doc_id: str, reason: str, detail: str = "", moment: int | None = None
    ) -> Rejected:
        return Rejected(self._key(key, row), reason, detail, channel, moment, doc_id=doc_id)

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
