"""The table source: lines of JSON, each by itself."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from tests.support.tables import AT, ids_of, lines, table, told, write_lines


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", "\n  \n"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_lines_end_and_begin_in_any_usual_way(tmp_path: Path, end: str, start: bytes, last: bool) -> None:
    path = write_lines(tmp_path / "a.json", lines("1", "2"), end)
    data = start + path.read_bytes()
    path.write_bytes(data if last else data.rstrip())
    found = told(table(tmp_path, "json"))
    assert ids_of(found) == {"1", "2"} and found.rejected == []


def test_one_bad_line_is_one_fault(tmp_path: Path) -> None:
    bad = ["{not json", '{"id": "9", "body": "cut', "[1]", '"text"', '{"id": NaN}', "{" * 100_000]
    path = write_lines(tmp_path / "a.json", [*lines("1"), *bad, *lines("2")])
    path.write_bytes(path.read_bytes() + b'{"id": "x", "body": "\xff"}\n')
    found = told(table(tmp_path, "json"))
    assert ids_of(found) == {"1", "2"}
    assert found.reasons == {
        "line 2": "bad_json",
        "line 3": "bad_json",
        "line 4": "not_an_object",
        "line 5": "not_an_object",
        "line 6": "bad_json",
        "line 7": "bad_json",
        "line 9": "not_utf8",
    }
    assert len({r.digest for r in found.rejected}) == 7 and not any(r.whole or r.doc_id for r in found.rejected)
    told_before = {r.digest for r in found.rejected}
    write_lines(tmp_path / "a.json", ["", *bad, *lines("1", "2")])
    assert {r.digest for r in told(table(tmp_path, "json")).rejected} < told_before, "a digest is of the line alone"


@pytest.mark.parametrize(
    "text", ['[{"id": "1"},\n {"id": "2"}]', '{\n "id": "1"\n}', "id,body\n1,x\n", "\x00\x01" * 50]
)
def test_a_file_that_is_no_json_lines_is_one_fault(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    write_lines(tmp_path / "b.json", lines("1"))
    found = told(table(tmp_path, "json"))
    assert ids_of(found) == {"1"}
    assert [(r.reason, r.whole) for r in found.rejected] == [("not_ndjson", True)]


def test_a_late_column_a_null_column_and_fractions_of_seconds(tmp_path: Path) -> None:
    early = [
        {"id": str(n), "body": f"text {n}", "at": "2025-03-03T10:00:00.123456789Z", "gone": None} for n in range(20_000)
    ]
    late = {"id": "late", "body": "x", "at": "2025-03-03T10:00:00", "gone": "yes", "edited": "2025-03-04T00:00:00.5Z"}
    write_lines(tmp_path / "a.json", [*early, late])
    found = told(table(tmp_path, "json", deleted="gone", updated_at="edited"))
    assert len(found.texts) == 20_000 and list(found.removed) == ["T1/t/late"] and found.rejected == []
    assert found.documents["T1/t/7"].created_at % 1_000_000 == 123_456


def test_an_empty_file_has_no_rows(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"")
    write_lines(tmp_path / "b.json", lines("1"))
    found = told(table(tmp_path, "json"))
    assert ids_of(found) == {"1"} and found.rejected == []


PACK: list[tuple[str, Callable[[bytes], bytes]]] = [
    (".gz", gzip.compress),
    (".bz2", bz2.compress),
    (".zst", lambda b: pa.compress(b, codec="zstd", asbytes=True)),
    (".gz", lambda b: gzip.compress(b[:40]) + gzip.compress(b[40:])),
]


@pytest.mark.parametrize(("suffix", "pack"), PACK, ids=["gz", "bz2", "zst", "two gz"])
def test_packed_lines_are_read_and_cut_ones_rejected_whole(
    tmp_path: Path, suffix: str, pack: Callable[[bytes], bytes]
) -> None:
    plain = write_lines(tmp_path / "a.json", lines(*map(str, range(3000)))).read_bytes()
    (tmp_path / "a.json").unlink()
    packed = tmp_path / f"a.jsonl{suffix}"
    packed.write_bytes(pack(plain))
    assert len(told(table(tmp_path, "json")).texts) == 3000
    packed.write_bytes(pack(plain)[:-40])
    found = told(table(tmp_path, "json"))
    assert [r.whole for r in found.rejected] == [True] and found.texts == {}


def test_a_line_without_end_takes_no_memory_of_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.sources.table.ndjson._LONGEST", 1 << 16)
    write_lines(tmp_path / "a.json", [*lines("1"), '{"id": "2", "body": "' + "x" * (1 << 18) + '"}', *lines("3")])
    found = told(table(tmp_path, "json"))
    assert ids_of(found) == {"1", "3"} and found.reasons == {"line 2": "line_too_long"}


def test_keys_in_the_quarantine_are_each_of_one_record(tmp_path: Path) -> None:
    """Whatever an id looks like: what is told by its place is not taken for it."""
    named = [{"id": key, "body": 7, "at": AT} for key in ("line 4", "@2", "x")]
    write_lines(
        tmp_path / "a.json", [*named, "{bad", {"body": "no id", "at": AT}, {"id": "x", "body": "x", "at": "never"}]
    )
    found = told(table(tmp_path, "json"))
    assert len(found.reasons) == 6 and sorted(found.reasons.values()) == [
        "bad_created_at",
        "bad_json",
        "bad_text",
        "bad_text",
        "bad_text",
        "missing_id",
    ]


def test_bad_lines_are_each_told_of_however_many_come_first(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.json", [*(f"bad {n}" for n in range(20_000)), *lines("1")])
    found = told(table(tmp_path, "json"))
    assert ids_of(found) == {"1"} and len(found.rejected) == 20_000
