"""Random tables in every format, with columns of every type and any layout, against an oracle that knows only rows.

The oracle is a dict of rows: it says what each data file's rows mean before they were written in some type. Nothing in
it knows of Arrow, JSON, folders or logs.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedding import ids
from embedding.records import Document, Rejected, Removed, Skipped
from jobs.config_sources import Columns
from jobs.sources.table import TableSource
from tests.support.delta_log import DeltaLog
from tests.support.tables import write_lines, write_parquet

DAY = 86_400
START = 11_323 * DAY  # 2001-01-01; whole days, which every type of time can hold


@dataclass(frozen=True)
class Row:
    """One row as it is meant. ``gone`` is None where it says neither yes nor no in a way that counts as neither."""

    key: str | None
    team: str
    created: int | None  # s
    updated: int | None
    gone: bool | str  # "bad" is a value that says nothing
    text: str | None


# -- the oracle --------------------------------------------------------------------------------------------------------

Outcome = tuple[Any, ...]


def expected(rows: list[Row]) -> Counter[Outcome]:
    """What a data file of these rows says, in its order."""
    found: Counter[Outcome] = Counter()
    events: dict[str, list[tuple[int, bool, int, Row]]] = {}
    for position, row in enumerate(rows):
        if row.key is None:
            found["rejected", "missing_id", ""] += 1
            continue
        doc_id = ids.row_id(row.team, row.key)
        created = row.updated if row.created is None and row.gone is True else row.created
        if created is None:
            found["rejected", "bad_created_at", doc_id] += 1
            continue
        version = created if row.updated is None else row.updated
        events.setdefault(doc_id, []).append((version, row.gone is True, position, row))
    for doc_id, rivals in events.items():
        version, deleted, _, row = winner = max(rivals, key=lambda e: e[:3])
        said = (row.text or "").strip()
        if row.gone == "bad":
            found["rejected", "bad_deleted", doc_id] += 1
        elif deleted:
            found["removed", "deleted", doc_id, version] += 1
        elif not said:
            found["removed", "empty_text", doc_id, version] += 1
        else:
            found["document", doc_id, version, said] += 1
        for rival in rivals:
            if rival is winner:
                continue
            other = (rival[3].text or "").strip()
            lost = row.gone is False and said and rival[0] == version and rival[3].gone is False
            found[("rejected", "duplicate_id", doc_id) if lost and other not in ("", said) else ("superseded",)] += 1
    return found


def told(source: TableSource) -> dict[str, Counter[Outcome]]:
    """What the source says of each partition, in the oracle's words."""
    listing = source.listing()
    assert listing.rejected == () and listing.complete
    found: dict[str, Counter[Outcome]] = {}
    for partition in listing.partitions:
        outcomes: Counter[Outcome] = found.setdefault(Path(partition.path).stem, Counter())
        for record in source.read(partition):
            match record:
                case Document():
                    outcomes["document", record.doc_id, record.version // 1_000_000, record.text] += 1
                case Removed():
                    assert record.deleted == (record.reason == "deleted")
                    outcomes["removed", record.reason, record.doc_id, record.version // 1_000_000] += 1
                case Rejected():
                    assert not record.whole
                    outcomes["rejected", record.reason, record.doc_id] += 1
                case Skipped():
                    outcomes[record.reason,] += record.count
    return found


# -- how a column can be written ---------------------------------------------------------------------------------------


def moment(seconds: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.UTC)


@dataclass(frozen=True)
class Stored:
    """A way to write a column: its Arrow type (None for JSON alone), Delta's name of it, and a value of it."""

    name: str
    arrow: pa.DataType | None
    delta: str | None
    write: Callable[[Any], Any]
    unit: str | None = None


def _times_factor(factor: int, seconds: int) -> int:
    return seconds * factor


def _text_of_times(factor: int, seconds: int) -> str:
    return str(seconds * factor)


def _times() -> list[Stored]:
    found = [
        Stored(f"timestamp[{unit},{zone}]", pa.timestamp(unit, zone), delta, moment)
        for unit in ("s", "ms", "us", "ns")
        for zone, delta in (("UTC", "timestamp"), ("Asia/Tokyo", None), (None, None))
    ]
    found += [Stored("date32", pa.date32(), "date", lambda s: moment(s).date())]
    found += [Stored("date64", pa.date64(), None, lambda s: moment(s).date())]
    for unit, factor in (("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)):
        found.append(Stored(f"int64 {unit}", pa.int64(), "long", partial(_times_factor, factor), unit))
        found.append(Stored(f"text {unit}", pa.string(), "string", partial(_text_of_times, factor), unit))
    found += [
        Stored("int64", pa.int64(), "long", int),
        Stored("uint32", pa.uint32(), None, int),
        Stored("float64", pa.float64(), "double", float),
        Stored("days", pa.int32(), "integer", lambda s: int(f"{moment(s):%Y%m%d}"), "date"),
        Stored("decimal", pa.decimal128(20, 6), "decimal(20,6)", int),
        Stored("slack", pa.string(), "string", lambda s: f"{s}.000000"),
        Stored("iso", pa.string(), "string", lambda s: moment(s).isoformat()),
        Stored("iso Z", pa.large_string(), "string", lambda s: f"{moment(s):%Y-%m-%dT%H:%M:%S.000000000Z}"),
        Stored("iso day", pa.string_view(), "string", lambda s: f"{moment(s):%Y-%m-%d}"),
        Stored("basic day", pa.dictionary(pa.int32(), pa.string()), "string", lambda s: f"{moment(s):%Y%m%d}"),
    ]
    return found


TIMES = _times()
KEYS = [
    Stored("text", pa.string(), "string", str),
    Stored("large text", pa.large_string(), "string", str),
    Stored("view", pa.string_view(), "string", str),
    Stored("dictionary", pa.dictionary(pa.int8(), pa.large_string()), "string", str),
    Stored("bytes", pa.binary(), "binary", lambda key: key.encode()),
    Stored("int", pa.int64(), "long", int),
    Stored("uint", pa.uint64(), None, int),
    Stored("decimal", pa.decimal128(20, 0), "decimal(20,0)", int),
]
FLAGS = [
    Stored("bool", pa.bool_(), "boolean", bool),
    Stored("int", pa.int8(), "byte", int),
    Stored("float", pa.float64(), "double", float),
    Stored("word", pa.string(), "string", lambda gone: "perhaps" if gone == "bad" else ("False", "yes")[gone]),
    Stored("letter", pa.large_string(), "string", lambda gone: "" if gone == "bad" else ("n", "T")[gone]),
    Stored("digit", pa.dictionary(pa.int8(), pa.string()), "string", lambda gone: "2" if gone == "bad" else "01"[gone]),
    Stored("time", pa.timestamp("us", "UTC"), "timestamp", lambda gone: moment(START) if gone else None),
]
TEXTS = [Stored(str(t), t, "string", str) for t in (pa.string(), pa.large_string(), pa.string_view())]
WORDY = [
    "007",
    "7",
    "1e3",
    "1.0",
    "2024-01-01T00:00:00Z",
    "2024-01-01 00:00:00",
    "true",
    "null",
    "a/b c#?%",
    "Ünï",
    "日本",
]
TEAMS = ["007", "7", "T1", "1e3", "2024-01-01", "true"]


@dataclass(frozen=True)
class Case:
    """A table: how it is laid out and how its columns are written, and its rows by file."""

    format: str
    files: list[list[Row]]
    key: Stored
    created: Stored
    updated: Stored
    gone: Stored
    text: Stored
    by_team: bool  # the team stands in the folder
    mapping: str
    dropped: list[set[int]]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A table whose columns are written in some way that its format has."""
    format = draw(st.sampled_from(["parquet", "json", "delta"]))

    def way(ways: list[Stored]) -> Stored:
        return draw(st.sampled_from([w for w in ways if format != "delta" or w.delta]))

    key, gone = way(KEYS), way(FLAGS)
    created = way(TIMES)
    updated = draw(
        st.sampled_from([w for w in TIMES if w.unit in (None, created.unit) and (format != "delta" or w.delta)])
    )
    if (
        created.unit is not None
        and updated.unit is None
        and updated.name in ("int64", "uint32", "float64", "decimal", "slack", "basic day")
    ):
        updated = created  # its unit is then that of the other
    numbers = key.name in ("int", "uint", "decimal")
    keys = st.sampled_from(["7", "10", "12345678901"] if numbers else WORDY)
    bad = gone.name in ("word", "letter", "digit")
    when = st.integers(0, 3).map(lambda n: START + n * DAY)
    by_team = draw(st.booleans())
    files, dropped = [], []
    for _ in range(draw(st.integers(1, 3))):
        folder = draw(st.sampled_from(TEAMS))
        rows = draw(
            st.lists(
                st.builds(
                    Row,
                    key=keys if draw(st.booleans()) else st.none() | keys,
                    team=st.just(folder) if by_team else st.sampled_from(TEAMS),
                    created=when | when | when | st.none(),
                    updated=st.none() | when,
                    gone=st.sampled_from([False, False, False, True, *(["bad"] if bad else [])]),
                    text=st.sampled_from(["one", "two", "three", "one ", "", " \n", None]),
                ),
                min_size=1,
                max_size=12,
            )
        )
        files.append(rows)
        dropped.append(
            draw(st.sets(st.integers(0, len(rows) - 1))) if format == "delta" and draw(st.booleans()) else set()
        )
    mapping = draw(st.sampled_from(["none", "name", "id"])) if format == "delta" else "none"
    return Case(format, files, key, created, updated, gone, way(TEXTS), by_team, mapping, dropped)


# -- writing it --------------------------------------------------------------------------------------------------------


def columns(case: Case, rows: list[Row]) -> dict[str, tuple[Stored, list[Any]]]:
    def written(stored: Stored, values: list[Any]) -> tuple[Stored, list[Any]]:
        return stored, [None if value is None else stored.write(value) for value in values]

    found = {
        "id": written(case.key, [r.key for r in rows]),
        "body": written(case.text, [r.text for r in rows]),
        "at": written(case.created, [r.created for r in rows]),
        "edited": written(case.updated, [r.updated for r in rows]),
        "gone": written(case.gone, [r.gone for r in rows]),
    }
    if not case.by_team:
        found["team"] = written(TEXTS[0], [r.team for r in rows])
    return found


def shown(value: Any) -> Any:
    """A value of Arrow in JSON."""
    if isinstance(value, dt.date):
        return value.isoformat()
    return value.decode() if isinstance(value, bytes) else value


def write(case: Case, root: Path) -> None:
    tables = [
        pa.table({name: pa.array(values, stored.arrow) for name, (stored, values) in columns(case, rows).items()})
        for rows in case.files
    ]
    if case.format == "delta":
        log = delta_log(case, root)
        for number, (rows, whole, gone) in enumerate(zip(case.files, tables, case.dropped, strict=True)):
            plain = pa.table({name: plainly(whole[name]) for name in whole.column_names})
            name = f"{f'team={rows[0].team}/' if case.by_team else ''}{number}.parquet"
            log.add(name, plain, {"team": rows[0].team} if case.by_team else {})
            if gone:
                log.delete(name, sorted(gone), inline=number % 2 == 0)
        return
    for number, (rows, whole) in enumerate(zip(case.files, tables, strict=True)):
        folder = root / f"team={quote(rows[0].team)}" if case.by_team else root
        if case.format == "parquet":
            write_parquet(folder / f"{number}.parquet", whole)
        else:
            said = columns(case, rows)
            records = [{name: shown(values[at]) for name, (_, values) in said.items()} for at in range(len(rows))]
            write_lines(folder / f"{number}.json", [json.dumps(record) for record in records])


def plainly(column: pa.ChunkedArray) -> pa.Array:
    """As Delta's types are stored."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        kind = pa.string()
    if pa.types.is_timestamp(kind):
        kind = pa.timestamp("us", "UTC")
    return column.cast(kind).combine_chunks()


def delta_log(case: Case, root: Path) -> DeltaLog:
    types: Mapping[str, Stored] = {name: stored for name, (stored, _) in columns(case, case.files[0]).items()}
    kinds = {name: str(stored.delta) for name, stored in types.items()} | ({"team": "string"} if case.by_team else {})
    features = ["deletionVectors"] + ["columnMapping"] * (case.mapping != "none")
    return DeltaLog(root, kinds, ["team"] if case.by_team else [], features, case.mapping).create()


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(case=cases())
def test_what_a_table_says_does_not_depend_on_how_it_is_written(case: Case) -> None:
    named: Any = {
        "id": "id",
        "text": "body",
        "created_at": "at",
        "updated_at": "edited",
        "team_id": "team",
        "deleted_at" if case.gone.name == "time" and case.format == "json" else "deleted": "gone",
    }
    units: Any = {"created_unit": case.created.unit, "updated_unit": case.updated.unit}
    with tempfile.TemporaryDirectory() as folder:
        write(case, Path(folder))
        source = TableSource(
            Path(folder), source_id="rows", format=case.format, columns=Columns(**named, **units), team_id=None
        )
        kept = [
            [r for at, r in enumerate(rows) if at not in gone]
            for rows, gone in zip(case.files, case.dropped, strict=True)
        ]
        found = told(source)
        assert found == {str(number): expected(rows) for number, rows in enumerate(kept)}
