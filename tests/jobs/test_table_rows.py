"""The table source: what a row says. The newest row of an id counts, and what its cells mean is by declared rules."""

from __future__ import annotations

import datetime as dt
import decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embedding import ids
from jobs.config_sources import Columns
from jobs.scope import iso
from jobs.sources.table import TableSource
from tests.support.tables import PLAIN, of_teams, table, told, write_lines, write_parquet

MARCH = 1_740_960_000  # 2025-03-03T00:00:00Z
MICROS = MARCH * 1_000_000


def day(number: int) -> dt.datetime:
    return dt.datetime(2025, 3, number, tzinfo=dt.UTC)


# -- which row counts --------------------------------------------------------------------------------------------------


def test_a_row_without_text_takes_its_document_away(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": ["1", "2", "3"], "body": [None, " \n", "said"], "at": [day(3)] * 3})
    found = told(table(tmp_path))
    assert found.texts == {"T1/t/3": "said"}
    assert {i: (r.reason, r.deleted, r.version) for i, r in found.removed.items()} == {
        "T1/t/1": ("empty_text", False, MICROS),
        "T1/t/2": ("empty_text", False, MICROS),
    }
    assert found.rejected == []


def test_a_deleted_row_takes_its_document_away_at_the_time_of_its_last_change(tmp_path: Path) -> None:
    rows = {"id": ["1", "2"], "body": ["x", None], "at": [day(3)] * 2, "edited": [day(4), None], "gone": [True, True]}
    write_parquet(tmp_path / "a.parquet", rows)
    found = told(table(tmp_path, updated_at="edited", deleted="gone"))
    assert found.texts == {}
    assert {i: (r.reason, r.deleted, r.version - MICROS) for i, r in found.removed.items()} == {
        "T1/t/1": ("deleted", True, 86_400_000_000),
        "T1/t/2": ("deleted", True, 0),
    }


def test_the_newest_row_of_an_id_counts_wherever_it_stands(tmp_path: Path) -> None:
    rows = [("1", "newest", 5), ("1", "oldest", 3), ("2", "a", 3), ("1", "middle", 4), ("2", "b", 4)]
    columns = {"id": [r[0] for r in rows], "body": [r[1] for r in rows], "at": [day(r[2]) for r in rows]}
    write_parquet(tmp_path / "a.parquet", columns)
    found = told(table(tmp_path))
    assert found.texts == {"T1/t/1": "newest", "T1/t/2": "b"}
    assert found.skipped == {"superseded": 3} and found.rejected == []


def test_an_id_is_of_its_team(tmp_path: Path) -> None:
    write_parquet(
        tmp_path / "a.parquet", {"id": [1, 1], "body": ["x", "y"], "at": [day(4), day(3)], "team": ["A", "B"]}
    )
    assert told(of_teams(tmp_path)).texts == {"A/t/1": "x", "B/t/1": "y"}


def test_a_deletion_wins_over_texts_of_its_version_and_loses_to_newer_ones(tmp_path: Path) -> None:
    rows = [
        ("tie", "gone", 3, True),
        ("tie", "text", 3, False),
        ("back", "gone", 3, True),
        ("back", "again", 4, False),
        ("late", "text", 3, False),
        ("late", "gone", 4, True),
    ]
    write_parquet(
        tmp_path / "a.parquet",
        {
            "id": [r[0] for r in rows],
            "body": [r[1] for r in rows],
            "at": [day(r[2]) for r in rows],
            "gone": [r[3] for r in rows],
        },
    )
    found = told(table(tmp_path, deleted="gone"))
    assert found.texts == {"T1/t/back": "again"}
    assert set(found.removed) == {"T1/t/tie", "T1/t/late"}
    assert found.skipped == {"superseded": 3} and found.rejected == []


def test_of_two_texts_with_one_version_the_later_row_wins_and_the_other_is_reported(tmp_path: Path) -> None:
    rows = [
        ("1", "first"),
        ("1", "second"),
        ("1", "second"),
        ("1", "third"),
        ("2", "same"),
        ("2", "same"),
        ("3", "x"),
        ("3", ""),
    ]
    write_parquet(
        tmp_path / "a.parquet",
        {"id": [r[0] for r in rows], "body": [r[1] for r in rows], "at": [day(3)] * len(rows)},
    )
    found = told(table(tmp_path))
    assert found.texts == {"T1/t/1": "third", "T1/t/2": "same"}
    assert set(found.removed) == {"T1/t/3"}
    assert [(r.reason, r.doc_id) for r in found.rejected] == [("duplicate_id", "T1/t/1")] * 3
    assert found.skipped == {"superseded": 2}, "an equal copy, and what was emptied in the same moment, are no fault"
    assert len(found.reasons) == 3


def test_a_newest_row_that_cannot_be_read_protects_its_document_and_older_ones_do_not_stand_in(tmp_path: Path) -> None:
    rows = {"id": ["1", "1"], "body": ["old", "new"], "at": [day(3), day(4)], "gone": ["false", "perhaps"]}
    write_parquet(tmp_path / "a.parquet", rows)
    found = told(table(tmp_path, deleted="gone"))
    assert found.texts == {} and found.skipped == {"superseded": 1}
    assert [(r.reason, r.doc_id) for r in found.rejected] == [("bad_deleted", "T1/t/1")]


# -- deleted -----------------------------------------------------------------------------------------------------------

YES = [True, 1, "1", "true", "True", "T", "yes", "Y", " YES ", "t", 1.0]
NO = [False, 0, "0", "false", "FALSE", "f", "no", "N", None, 0.0]
NEITHER = [2, -1, 0.5, "deleted", "", "null", "2025-03-03", [True], {"by": "U1"}, "tru"]


@pytest.mark.parametrize("value", YES + NO + NEITHER, ids=repr)
@pytest.mark.parametrize("format", ["json", "parquet"])
def test_deleted_is_one_of_the_declared_values(tmp_path: Path, format: str, value: object) -> None:
    if format == "json":
        write_lines(tmp_path / "a.json", [{"id": "1", "body": "x", "at": "2025-03-03", "gone": value}])
    else:
        write_parquet(tmp_path / "a.parquet", {"id": ["1"], "body": ["x"], "at": [day(3)], "gone": [value]})
    found = told(table(tmp_path, format, deleted="gone"))
    at = next(n for n, values in enumerate((YES, NO, NEITHER)) if any(value is v for v in values))
    if isinstance(value, list | dict) and format == "parquet":
        assert [r.reason for r in found.rejected] == ["wrong_column_type"]
    else:
        assert (list(found.removed), list(found.texts), [(r.reason, r.doc_id) for r in found.rejected]) == (
            (["T1/t/1"], [], []),
            ([], ["T1/t/1"], []),
            ([], [], [("bad_deleted", "T1/t/1")]),
        )[at]


def test_a_column_of_times_says_when_a_row_was_deleted(tmp_path: Path) -> None:
    when = pa.array([None, day(5)], pa.timestamp("us", "UTC"))
    rows = pa.table({"id": ["1", "2"], "body": ["x", "y"], "at": [day(3)] * 2, "deleted_at": when})
    write_parquet(tmp_path / "a.parquet", rows)
    for name in ("deleted", "deleted_at"):
        found = told(table(tmp_path, **{name: "deleted_at"}))
        assert (list(found.texts), list(found.removed)) == (["T1/t/1"], ["T1/t/2"])


def test_deleted_at_may_be_a_text_or_a_number_and_then_must_be_a_time(tmp_path: Path) -> None:
    values = {"1": None, "2": "2025-03-05T10:00:00Z", "3": "", "4": MARCH, "5": 0, "6": "no"}
    write_lines(tmp_path / "a.json", [{"id": i, "body": "x", "at": "2025-03-03", "gone": v} for i, v in values.items()])
    found = told(table(tmp_path, "json", deleted_at="gone"))
    assert set(found.texts) == {"T1/t/1", "T1/t/3"} and set(found.removed) == {"T1/t/2", "T1/t/4"}
    assert found.reasons == {"5": "bad_deleted", "6": "bad_deleted"}


def test_a_tombstone_needs_no_time_of_creation(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "body": None, "at": None, "edited": "2025-03-04", "gone": True},
        {"id": "2", "body": "x", "at": None, "edited": "2025-03-04", "gone": False},
        {"id": "3", "body": None, "at": None, "edited": None, "gone": True},
    ]
    write_lines(tmp_path / "a.json", rows)
    found = told(table(tmp_path, "json", updated_at="edited", deleted="gone"))
    assert {i: r.version for i, r in found.removed.items()} == {"T1/t/1": MICROS + 86_400_000_000}
    assert found.reasons == {"2": "bad_created_at", "3": "bad_created_at"}


# -- times -------------------------------------------------------------------------------------------------------------

D = decimal.Decimal
EXACT = MICROS + 123_456
# An Arrow type, a value of it, and the microseconds that it is.
TYPED_TIMES = [
    (pa.timestamp("s"), MARCH, MICROS),
    (pa.timestamp("ms"), MARCH * 1000 + 123, MICROS + 123_000),
    (pa.timestamp("us"), EXACT, EXACT),
    (pa.timestamp("ns"), EXACT * 1000 + 789, EXACT),
    (pa.timestamp("us", "UTC"), EXACT, EXACT),
    (pa.timestamp("ns", "America/New_York"), EXACT * 1000, EXACT),
    (pa.date32(), MARCH // 86_400, MICROS),
    (pa.date64(), MARCH * 1000, MICROS),
    (pa.int64(), MARCH, MICROS),
    (pa.uint32(), MARCH, MICROS),
    (pa.uint64(), MARCH, MICROS),
    (pa.float64(), MARCH + 0.5, MICROS + 500_000),
    (pa.decimal128(18, 6), D("1740960000.123456"), EXACT),
    (pa.string(), "2025-03-03T00:00:00.123456Z", EXACT),
    (pa.string(), "2025-03-03T00:00:00.1234567+00:00", EXACT),
    (pa.large_string(), "2025-03-03 02:00:00.123456+02:00", EXACT),
    (pa.string_view(), "2025-03-03", MICROS),
    (pa.string(), "20250303", MICROS),
    (pa.string(), "20250303T000000Z", MICROS),
    (pa.string(), "2025-03-03 00:00:00 UTC", MICROS),
    (pa.string(), "1740960000.123456", EXACT),
    (pa.binary(), b"2025-03-03", MICROS),
    (pa.dictionary(pa.int8(), pa.string()), "2025-03-03", MICROS),
    (pa.timestamp("us"), -1_000_000, -1_000_000),  # before the epoch, and a time all the same
]


@pytest.mark.parametrize(("kind", "value", "micros"), TYPED_TIMES, ids=[f"{k} {v}" for k, v, _ in TYPED_TIMES])
def test_a_time_is_what_its_type_says(tmp_path: Path, kind: pa.DataType, value: object, micros: int) -> None:
    array = pa.array([value], kind)
    write_parquet(tmp_path / "a.parquet", pa.table({"id": ["1"], "body": ["x"], "at": array}))
    assert told(table(tmp_path)).documents["T1/t/1"].created_at == micros


@pytest.mark.parametrize(
    "stored", [pa.int64(), pa.float64(), pa.string(), pa.decimal128(38, 0), "json", "json text"], ids=str
)
@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_a_plain_number_counts_the_declared_unit(tmp_path: Path, stored: Any, unit: str, factor: int) -> None:
    value = MARCH * factor
    if isinstance(stored, str):
        shown: object = str(value) if stored == "json text" else value
        write_lines(tmp_path / "a.json", [{"id": "1", "body": "x", "at": shown, "edited": shown}])
    else:
        shown = {pa.string(): str(value), pa.float64(): float(value)}.get(stored, value)
        array = pa.array([shown], stored)
        write_parquet(tmp_path / "a.parquet", pa.table({"id": ["1"], "body": ["x"], "at": array, "edited": array}))
    format = "json" if isinstance(stored, str) else "parquet"
    for units in ({"created_unit": unit}, {"created_unit": unit, "updated_unit": unit}):
        document = told(table(tmp_path, format, updated_at="edited", **units)).documents["T1/t/1"]
        assert (document.created_at, document.version) == (MICROS, MICROS)
    if unit != "s":
        found = told(table(tmp_path, format))
        assert [(r.reason, r.doc_id) for r in found.rejected] == [("bad_created_at", "T1/t/1")], "not of seconds"


@pytest.mark.parametrize("stored", [pa.int32(), pa.int64(), pa.string(), pa.float64(), "json"], ids=str)
def test_a_day_written_as_a_number_is_read_where_that_is_declared_and_else_refused(tmp_path: Path, stored: Any) -> None:
    if stored == "json":
        write_lines(tmp_path / "a.json", [{"id": "1", "body": "x", "at": 20250303}])
    else:
        array = pa.array(["20250303" if stored == pa.string() else 20250303], stored)
        write_parquet(tmp_path / "a.parquet", pa.table({"id": ["1"], "body": ["x"], "at": array}))
    format = "json" if stored == "json" else "parquet"
    assert told(table(tmp_path, format, created_unit="date")).documents["T1/t/1"].created_at == MICROS
    found = told(table(tmp_path, format))
    if stored == pa.string():
        assert found.documents["T1/t/1"].created_at == MICROS, "as a text it is ISO 8601"
    else:
        assert found.reasons == {"1": "bad_created_at"}, "not August 1970"


IMPOSSIBLE: list[Any] = [
    MARCH * 1000,
    MARCH * 10**9,
    10**30,
    -(10**15),
    "1e400",
    "noon",
    "2025-13-01",
    "2025-03-03T25:00:00",
    "202503",
    "20250303120000",
    "10000-01-01",
    "0000-00-00",
    True,
    [MARCH],
    {"$date": "2025-03-03"},
    "NaN",
    "Infinity",
    "",
    None,
    "9999-12-31T23:59:59.9999999",
]


@pytest.mark.parametrize("value", IMPOSSIBLE, ids=repr)
def test_a_time_that_cannot_be_goes_to_quarantine_with_its_id(tmp_path: Path, value: object) -> None:
    write_lines(tmp_path / "a.json", [{"id": "1", "body": "x", "at": value}, {"id": "2", "body": "y", "at": MARCH}])
    found = told(table(tmp_path, "json"))
    assert [(r.key, r.reason, r.doc_id) for r in found.rejected] == [("1", "bad_created_at", "T1/t/1")]
    assert set(found.texts) == {"T1/t/2"}


@pytest.mark.parametrize(
    ("kind", "stored", "bad"),
    [
        (pa.timestamp("ms"), pa.int64(), 2**60),
        (pa.timestamp("us"), pa.int64(), 2**62),
        (pa.int64(), pa.int64(), -(2**62)),
        (pa.uint64(), pa.uint64(), 2**64 - 1),
        (pa.date32(), pa.int32(), 2**31 - 1),
        (pa.int64(), pa.int64(), 2**63 - 1),
        (pa.float64(), pa.float64(), float("nan")),
        (pa.float64(), pa.float64(), float("inf")),
    ],
    ids=str,
)
def test_a_bad_time_among_good_ones_costs_only_its_row(tmp_path: Path, kind: Any, stored: Any, bad: Any) -> None:
    times = pa.array([bad, 20_000], stored).view(kind)
    write_parquet(tmp_path / "a.parquet", pa.table({"id": ["1", "2"], "body": ["x", "y"], "at": times}))
    found = told(table(tmp_path))
    assert (found.reasons, list(found.texts)) == ({"1": "bad_created_at"}, ["T1/t/2"])


def test_every_time_that_is_taken_can_be_printed(tmp_path: Path) -> None:
    edges = ["0001-01-01", "9999-12-31T23:59:59", "1969-12-31T23:59:59.999999Z", "0001-01-01T00:00:00+05:00"]
    write_lines(tmp_path / "a.json", [{"id": str(n), "body": "x", "at": at} for n, at in enumerate(edges)])
    found = told(table(tmp_path, "json"))
    assert [iso(d.created_at)[:4] for d in found.documents.values()] == ["0001", "9999", "1969"]
    assert found.reasons == {"3": "bad_created_at"}


def test_an_edit_time_that_cannot_be_is_not_taken_for_none(tmp_path: Path) -> None:
    rows = [
        {"id": "1", "body": "x", "at": MARCH, "edited": "soon"},
        {"id": "2", "body": "y", "at": MARCH, "edited": ""},
    ]
    write_lines(tmp_path / "a.json", rows)
    found = told(table(tmp_path, "json", updated_at="edited"))
    assert [(r.reason, r.doc_id) for r in found.rejected] == [("bad_updated_at", "T1/t/1")]
    assert found.documents["T1/t/2"].version == MICROS


# -- ids, texts, teams, channels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ('"2024-01-01T00:00:00Z"', "2024-01-01T00:00:00Z"),
        ('"2024-01-01 00:00:00"', "2024-01-01 00:00:00"),
        ('"2024-01-01"', "2024-01-01"),
        ('"007"', "007"),
        ('"1e3"', "1e3"),
        ("7", "7"),
        ("1.0", "1.0"),
        ("1e3", "1e3"),
        ("12345678901234567890123", "12345678901234567890123"),
        ('" x "', " x "),
        ('"true"', "true"),
    ],
)
def test_an_id_of_json_keeps_its_characters(tmp_path: Path, written: str, key: str) -> None:
    write_lines(tmp_path / "a.json", [f'{{"id": {written}, "body": "x", "at": "2025-03-03"}}'])
    assert list(told(table(tmp_path, "json")).texts) == [ids.row_id("T1", key)]


@pytest.mark.parametrize(
    ("array", "key"),
    [
        (pa.array(["007"]), "007"),
        (pa.array([7], pa.uint64()), "7"),
        (pa.array([2**64 - 1], pa.uint64()), str(2**64 - 1)),
        (pa.array([-7], pa.int8()), "-7"),
        (pa.array([D("7.10")], pa.decimal128(9, 2)), "7.10"),
        (pa.array([7.0]), "7.0"),
        (pa.array(["é"], pa.large_string()), "é"),
        (pa.array(["v"], pa.string_view()), "v"),
        (pa.array([b"b"]), "b"),
        (pa.array(["d"]).dictionary_encode(), "d"),
        (pa.array([dt.date(2024, 1, 1)]), "2024-01-01"),
        (pa.array([7], pa.int64()).dictionary_encode(), "7"),
    ],
    ids=str,
)
def test_an_id_of_parquet_is_written_as_its_type_is(tmp_path: Path, array: pa.Array, key: str) -> None:
    write_parquet(tmp_path / "a.parquet", pa.table({"id": array, "body": ["x"], "at": [day(3)]}))
    assert list(told(table(tmp_path)).texts) == [ids.row_id("T1", key)]


def test_what_is_no_id_is_rejected_and_told_from_others(tmp_path: Path) -> None:
    bad = [None, "", "  ", True, [1], {"a": 1}, "half \ud800"]
    write_lines(tmp_path / "a.json", [{"id": value, "body": "x", "at": "2025-03-03"} for value in bad])
    found = told(table(tmp_path, "json"))
    assert [r.reason for r in found.rejected] == ["missing_id"] * 3 + ["bad_id"] * 4
    assert len({r.digest for r in found.rejected} - {""}) == 7 and not any(r.doc_id or r.whole for r in found.rejected)


def test_a_text_that_is_none_is_rejected_by_its_id(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "a.json", [{"id": str(n), "body": v, "at": "2025-03-03"} for n, v in enumerate([7, ["x"], {}, True])]
    )
    found = told(table(tmp_path, "json"))
    assert {(r.reason, bool(r.doc_id)) for r in found.rejected} == {("bad_text", True)} and len(found.rejected) == 4


def test_bytes_are_text_where_they_are_utf8(tmp_path: Path) -> None:
    broken = pa.Array.from_buffers(pa.string(), 2, pa.array([b"Gr\xfc\xdfe", b"fine"]).buffers())
    for texts in (pa.array([b"Gr\xfc\xdfe", b"fine"]), broken):
        write_parquet(tmp_path / "a.parquet", pa.table({"id": ["1", "2"], "body": texts, "at": [day(3)] * 2}))
        found = told(table(tmp_path))
        assert found.texts == {"T1/t/2": "fine"}
        assert [(r.reason, r.doc_id) for r in found.rejected] == [("bad_text", "T1/t/1")]


def test_a_column_of_a_type_that_it_cannot_have_is_one_fault_and_deletes_nothing(tmp_path: Path) -> None:
    good = {"id": ["1"], "body": ["x"], "at": [day(3)], "gone": [True]}
    for name, values in (("body", [7]), ("at", [True]), ("id", [[1]]), ("gone", [{"a": 1}])):
        write_parquet(tmp_path / "a.parquet", good | {name: values})
        found = told(table(tmp_path, deleted="gone"))
        assert [(r.reason, r.whole) for r in found.rejected] == [("wrong_column_type", True)]


def test_a_team_that_cannot_be_is_rejected_and_no_other(tmp_path: Path) -> None:
    teams = ["T1", None, "", "a b", "T1\n", "x" * 65, "0"]
    write_parquet(
        tmp_path / "a.parquet", {"id": [str(n) for n in range(7)], "body": ["x"] * 7, "at": [day(3)] * 7, "team": teams}
    )
    found = told(of_teams(tmp_path))
    assert list(found.texts) == ["T1/t/0", "0/t/6"]
    assert set(found.reasons.values()) == {"bad_team_id"} and all(r.digest for r in found.rejected)


def test_channels_are_texts_or_numbers(tmp_path: Path) -> None:
    rows = [
        {"id": str(n), "body": "x", "at": "2025-03-03", "ch": v, "name": "g\ud800"}
        for n, v in enumerate(["C1", 7, None, ["C1"]])
    ]
    write_lines(tmp_path / "a.json", rows)
    found = told(table(tmp_path, "json", channel_id="ch", channel_name="name"))
    assert [d.channel_id for d in found.documents.values()] == ["C1", "7", ""]
    assert found.reasons == {"3": "bad_channel_id"}


def test_ids_carry_the_qualifier_of_a_second_table(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": ["1"], "body": ["x"], "at": [day(3)]})
    plain: Any = PLAIN
    sources = [
        TableSource(tmp_path, source_id="rows", format="parquet", columns=Columns(**plain), team_id="T1", qualifier=q)
        for q in ("", "lake")
    ]
    assert [list(told(s).texts) for s in sources] == [["T1/t/1"], [ids.row_id("T1", "1", "lake")]]
    assert len({s.reader for s in sources}) == 2


@pytest.mark.parametrize("format", ["parquet", "json"])
def test_a_row_says_whom_it_names_and_whether_a_file_came_with_it(tmp_path: Path, format: str) -> None:
    """People as a list, or as a text with commas or blanks; what says neither yes nor no of a file is no."""
    cells = {"id": ["1", "2", "3"], "body": ["said"] * 3, "at": [MARCH] * 3}
    cells |= {"people": [["U2", "U1", "U2", ""], None, []], "cc": ["U3, U4  U5", "", None], "file": ["yes", "no", "??"]}
    if format == "parquet":
        write_parquet(tmp_path / "a.parquet", cells)
    else:
        write_lines(tmp_path / "a.jsonl", pa.table(cells).to_pylist())
    found = told(table(tmp_path, format, mentions="people", has_file="file"))
    assert [d.mentions for d in found.documents.values()] == [("U1", "U2"), (), ()] and not found.rejected
    assert [d.has_file for d in found.documents.values()] == [True, False, False]
    found = told(table(tmp_path, format, mentions="cc"))
    assert [d.mentions for d in found.documents.values()] == [("U3", "U4", "U5"), (), ()]


@pytest.mark.parametrize("format", ["parquet", "json"])
def test_a_row_may_say_its_language(tmp_path: Path, format: str) -> None:
    """As a tag; what is none is left to the text."""
    spoken = ["de", "pt-BR", "EN", "german", "", None]
    cells = {"id": [str(n) for n in range(6)], "body": ["said"] * 6, "at": [MARCH] * 6, "lang": spoken}
    if format == "parquet":
        write_parquet(tmp_path / "a.parquet", cells)
    else:
        write_lines(tmp_path / "a.jsonl", pa.table(cells).to_pylist())
    found = told(table(tmp_path, format, language="lang"))
    assert [d.language for d in found.documents.values()] == ["de", "pt", "en", "", "", ""] and not found.rejected
