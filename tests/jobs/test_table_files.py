"""The table source: which files a table has, what their folders say, and what is kept when some cannot be read."""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import write_deltalake

from embedding.errors import SourceError
from embedding.records import Rejected
from jobs.config_sources import Columns
from jobs.sources.table import TableSource
from tests.support.delta_log import DeltaLog
from tests.support.tables import AT, MAPPED, ids_of, lines, of_teams, rows, table, told, write_lines, write_parquet

# -- folders -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["parquet", "json", "delta"])
def test_the_value_of_a_partitions_folder_is_a_text(tmp_path: Path, format: str) -> None:
    teams = {"007": "007", "1e3": "1e3", "2024-01-01": "2024-01-01", "true": "true", "null": "null"}
    if format == "delta":
        whole = pa.concat_tables(rows(i).append_column("team", pa.array([t])) for i, t in teams.items())
        write_deltalake(str(tmp_path), whole, partition_by=["team"])
    for team in teams if format != "delta" else ():
        if format == "json":
            write_lines(tmp_path / f"team={team}" / "a.json", lines(team))
        else:
            write_parquet(tmp_path / f"team={team}" / "a.parquet", rows(team))
    found = told(of_teams(tmp_path, format))
    assert {d.team_id for d in found.documents.values()} == set(teams) and found.rejected == []
    assert set(found.texts) == {f"{team}/t/{team}" for team in teams}


def test_a_folders_value_is_decoded_and_its_default_is_null(tmp_path: Path) -> None:
    for name in ("ch=a%2Fb c", "ch=__HIVE_DEFAULT_PARTITION__", "ch=", "_ch=1", "ch=Büro=2"):
        write_parquet(tmp_path / name / "a.parquet", rows(name))
    found = told(table(tmp_path, channel_id="ch"))
    channels = {d.text.removeprefix("text "): d.channel_id for d in found.documents.values()}
    assert channels == {
        "ch=a%2Fb c": "a/b c",
        "ch=__HIVE_DEFAULT_PARTITION__": "",
        "ch=": "",
        "_ch=1": "",
        "ch=Büro=2": "Büro=2",
    }


def test_a_folders_value_that_is_no_text_is_a_fault_of_its_rows(tmp_path: Path) -> None:
    write_lines(tmp_path / "ch=A" / "a.json", lines("1"))
    shutil.copytree(tmp_path / "ch=A", Path(os.fsdecode(os.fsencode(tmp_path) + b"/ch=\xff")))
    found = told(table(tmp_path, "json", channel_id="ch"))
    assert ids_of(found) == {"1"} and [(r.reason, r.doc_id) for r in found.rejected] == [("bad_channel_id", "T1/t/1")]


def test_a_partitions_folder_says_more_than_a_column_of_the_file(tmp_path: Path) -> None:
    write_parquet(tmp_path / "team=A" / "a.parquet", rows("1").append_column("team", pa.array(["B"])))
    assert list(told(of_teams(tmp_path)).texts) == ["A/t/1"]


def test_ids_and_times_may_stand_in_folders(tmp_path: Path) -> None:
    for key in ("01", "1"):
        write_parquet(tmp_path / "at=20250303" / f"id={key}" / "a.parquet", {"body": [f"text {key}"]})
    assert ids_of(told(table(tmp_path))) == {"01", "1"}


def test_a_delta_tables_partition_is_of_the_type_that_its_schema_says(tmp_path: Path) -> None:
    whole = rows("1", "2").append_column("ch", pa.array([7, 8], pa.int32()))
    write_deltalake(str(tmp_path), whole, partition_by=["ch"])
    assert {d.channel_id for d in told(table(tmp_path, "delta", channel_id="ch")).documents.values()} == {"7", "8"}


@pytest.mark.parametrize("format", ["parquet", "json"])
def test_what_spark_passes_over_is_passed_over(tmp_path: Path, format: str) -> None:
    def put(name: str, key: str) -> None:
        path = tmp_path / f"{name}.{format}"
        write_lines(path, lines(key)) if format == "json" else write_parquet(path, rows(key))

    put("a", "seen")
    put("deep/day=3/b", "deep")
    put("_day=3/c", "partition")
    for name in ("_temporary/0/part-0", ".staging/x", "day=1/_temporary/y", "_metadata/z", "day=1/.hidden", "_part"):
        put(name, "unseen")
    for name in ("_SUCCESS", f".a.{format}.crc", f"b.{format}._COPYING_"):
        (tmp_path / name).write_bytes(b"")
    found = told(table(tmp_path, format))
    assert ids_of(found) == {"seen", "deep", "partition"} and found.rejected == []


def test_a_file_of_another_kind_is_told_of_and_is_no_fault(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", rows("1"))
    (tmp_path / "README.txt").write_text("what this is")
    found = told(table(tmp_path))
    assert [(r.key, r.reason, r.ignored) for r in found.rejected] == [("README.txt", "not_a_data_file", True)]


def test_parquet_without_a_suffix_is_known_by_its_bytes(tmp_path: Path) -> None:
    write_parquet(tmp_path / "000000_0", rows("1"))
    assert ids_of(told(table(tmp_path))) == {"1"}


def test_a_table_with_a_log_of_its_own_is_not_read_as_loose_files(tmp_path: Path) -> None:
    write_deltalake(str(tmp_path / "delta"), rows("1"))
    write_parquet(tmp_path / "iceberg" / "data" / "a.parquet", rows("1"))
    (tmp_path / "iceberg" / "metadata").mkdir()
    (tmp_path / "iceberg" / "metadata" / "v1.metadata.json").write_text("{}")
    write_parquet(tmp_path / "hudi" / "a.parquet", rows("1"))
    (tmp_path / "hudi" / ".hoodie").mkdir()
    for name, said in (("delta", 'format = "delta"'), ("iceberg", "Iceberg"), ("hudi", "Hudi")):
        with pytest.raises(SourceError, match=said) as error:
            table(tmp_path / name).listing()
        assert "\n" not in str(error.value)


def unlistable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may list every folder, so the call says no by itself."""
    scan = os.scandir

    def refusing(path: Any = ".") -> Any:
        if not isinstance(path, int) and Path(os.fsdecode(path)) == folder:
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refusing)


@pytest.mark.parametrize("format", ["parquet", "json"])
def test_a_folder_that_cannot_be_listed_is_named_and_nothing_is_concluded(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("open", "closed"):
        path = tmp_path / name / f"a.{format}"
        write_lines(path, lines(name)) if format == "json" else write_parquet(path, rows(name))
    source = table(tmp_path, format)
    assert source.listing().complete
    unlistable(tmp_path / "closed", monkeypatch)
    listing = source.listing()
    assert not listing.complete
    assert [(r.key, r.reason, r.retry) for r in listing.rejected] == [("closed", "unreadable_folder", True)]
    assert [p.key for p in listing.partitions] == [f"open/a.{format}"]
    unlistable(tmp_path, monkeypatch)
    with pytest.raises(SourceError, match="Permission denied"):
        source.listing()


def test_a_link_to_a_folder_and_one_to_nothing_are_named(tmp_path: Path) -> None:
    root = tmp_path / "rows"
    write_parquet(root / "a.parquet", rows("1"))
    write_parquet(tmp_path / "else" / "b.parquet", rows("2"))
    (root / "linked").symlink_to(tmp_path / "else")
    (root / "broken.parquet").symlink_to(tmp_path / "nothing.parquet")
    found = told(table(root))
    assert found.reasons == {"linked": "link_to_folder", "broken.parquet": "io_error"} and ids_of(found) == {"1"}


ODD = [
    "my lake",
    "Büro",
    "100%",
    "per%20cent",
    "a#b?c",
    "back\\slash",
    "tab\tnewline\n",
    "team=9",
    "~t",
    "日本",
    "q[1]*",
]


@pytest.mark.parametrize("name", ODD, ids=ascii)
@pytest.mark.parametrize("format", ["parquet", "json", "delta"])
def test_a_table_lies_below_any_path(tmp_path: Path, format: str, name: str) -> None:
    plain, root = tmp_path / "plain", tmp_path / name / "rows"
    if format == "delta":
        whole = rows("1", "2", "3").append_column("team", pa.array(["A b", "Bü", "C%"]))
        log = DeltaLog(plain, {**MAPPED, "team": "string"}, ["team"], ["deletionVectors"]).create()
        for at, team in enumerate(["T1", "T2", "T3"]):
            log.add(f"team={team}%41 ü/a.parquet", whole.slice(at, 1).drop(["team"]), {"team": team})
        log.delete("team=T3%41 ü/a.parquet", [0], inline=False)
    elif format == "json":
        write_lines(plain / "team=T1" / "a.json", lines("1"))
        write_lines(plain / "team=T2" / "a.json", lines("2"))
    else:
        write_parquet(plain / "team=T1" / "a.parquet", rows("1"))
        write_parquet(plain / "team=T2" / "a.parquet", rows("2"))
    root.parent.mkdir()
    shutil.move(plain, root)
    found = told(of_teams(root, format))
    assert found.rejected == [] and set(found.texts) == {"T1/t/1", "T2/t/2"}


def test_a_path_that_is_not_utf8(tmp_path: Path) -> None:
    root = Path(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xfc\xdfe"))
    write_parquet(tmp_path / "parquet" / "a.parquet", rows("1"))
    write_lines(tmp_path / "json" / "a.json", lines("1"))
    packed = write_lines(tmp_path / "packed" / "a.json", lines("1"))
    packed.with_suffix(".json.gz").write_bytes(gzip.compress(packed.read_bytes()))
    packed.unlink()
    write_deltalake(str(tmp_path / "delta"), rows("1"))
    root.mkdir()
    for name in ("parquet", "json", "packed", "delta"):
        shutil.move(tmp_path / name, root / name)
        assert ids_of(told(table(root / name, "json" if name == "packed" else name))) == {"1"}


# -- columns -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["parquet", "json"])
def test_a_column_that_some_files_do_not_have_is_null_there(tmp_path: Path, format: str) -> None:
    new: list[dict[str, object]] = [{**lines("2")[0]}, {**lines("3")[0], "gone": True}]
    if format == "json":
        write_lines(tmp_path / "old.json", lines("1"))
        write_lines(tmp_path / "new.json", new)
    else:
        write_parquet(tmp_path / "old.parquet", rows("1"))
        write_parquet(
            tmp_path / "new.parquet",
            pa.Table.from_pylist(new, schema=rows().schema.append(pa.field("gone", pa.bool_()))),
        )
    found = told(table(tmp_path, format, deleted="gone"))
    assert ids_of(found) == {"1", "2"} and list(found.removed) == ["T1/t/3"] and found.rejected == []


@pytest.mark.parametrize("format", ["parquet", "json", "delta"])
@pytest.mark.parametrize("name", ["text", "deleted", "updated_at"])
def test_a_column_that_no_file_has_is_a_fault_of_the_settings_and_deletes_nothing(
    tmp_path: Path, format: str, name: str
) -> None:
    if format == "delta":
        write_deltalake(str(tmp_path), rows("1", "2"))
    elif format == "json":
        write_lines(tmp_path / "a.json", lines("1", "2"))
    else:
        write_parquet(tmp_path / "a.parquet", rows("1", "2"))
    listing = table(tmp_path, format, **{name: "missing"}).listing()
    assert listing.partitions == () and not listing.complete
    assert [(r.reason, r.whole) for r in listing.rejected] == [("missing_column", True)]
    assert listing.rejected[0].detail == f"no file has the columns of {name} = 'missing'"


def test_without_its_ids_a_file_cannot_be_read_and_the_others_can(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", rows("1"))
    write_parquet(tmp_path / "b.parquet", rows("2").drop(["id"]))
    found = told(table(tmp_path))
    assert ids_of(found) == {"1"} and [(r.reason, r.detail, r.whole) for r in found.rejected] == [
        ("missing_column", "id", True)
    ]


@pytest.mark.parametrize("format", ["parquet", "json"])
def test_a_column_may_be_inside_another(tmp_path: Path, format: str) -> None:
    nested = [{"m": {"id": "1", "said": {"body": "x"}}, "at": AT}, {"m": {"id": "2", "said": None}, "at": AT}]
    if format == "json":
        write_lines(tmp_path / "a.json", nested)
    else:
        write_parquet(tmp_path / "a.parquet", pa.Table.from_pylist(nested))
    found = told(table(tmp_path, format, id="m.id", text="m.said.body"))
    assert found.texts == {"T1/t/1": "x"} and list(found.removed) == ["T1/t/2"]


def test_a_name_with_a_dot_in_it_is_a_name_first(tmp_path: Path) -> None:
    write_parquet(tmp_path / "a.parquet", {"id": ["1"], "m.body": ["x"], "at": [AT], "m": [{"body": "y"}]})
    assert told(table(tmp_path, text="m.body")).texts == {"T1/t/1": "x"}


# -- parquet -----------------------------------------------------------------------------------------------------------


def test_older_times_of_spark_past_the_nanoseconds_of_64_bits(tmp_path: Path) -> None:
    at = pa.array([253_402_214_400_000_000, 0], pa.timestamp("us"))
    whole = pa.table({"id": ["1", "2"], "body": ["x", "y"], "at": at})
    try:
        pq.write_table(whole, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    except pa.ArrowInvalid:
        pytest.skip("this pyarrow writes no such time")
    found = told(table(tmp_path)).documents
    assert found["T1/t/2"].created_at == 0 and found["T1/t/1"].created_at == 253_402_214_400_000_000


def test_damaged_files_are_rejected_whole_and_the_others_are_read(tmp_path: Path) -> None:
    good = write_parquet(tmp_path / "good.parquet", rows("1")).read_bytes()
    large = write_parquet(tmp_path / "spoiled.parquet", rows(*map(str, range(2000))))
    spoiled = bytearray(large.read_bytes())
    spoiled[len(spoiled) // 3 : len(spoiled) // 3 + 600] = b"\xff" * 600
    large.write_bytes(spoiled)
    (tmp_path / "cut.parquet").write_bytes(good[:-20])
    (tmp_path / "empty.parquet").write_bytes(b"")
    (tmp_path / "other.parquet").write_bytes(b"id,body\n1,x\n")
    found = {p.key: list(table(tmp_path).read(p)) for p in table(tmp_path).listing().partitions}
    bad = {key: records[-1].whole for key, records in found.items() if hasattr(records[-1], "whole")}
    assert bad == {f"{name}.parquet": True for name in ("cut", "empty", "other", "spoiled")}
    lasts = [found[key][-1] for key in bad]
    assert [r.reason for r in lasts if isinstance(r, Rejected)] == ["unreadable_table"] * 4


def test_a_file_that_changes_between_two_looks_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_lines(tmp_path / "a.json", lines("1", "1", "2"))
    source = table(tmp_path, "json")
    (partition,) = source.listing().partitions
    records = source.read(partition)
    from jobs.sources.table.ndjson import JsonData

    looks: list[int] = []
    batches = JsonData.batches

    def growing(data: JsonData, columns: Any) -> Any:
        if looks:
            path.write_bytes(path.read_bytes() + b'{"id": "3", "body": "late", "at": "2025-03-03"}\n')
        looks.append(1)
        return batches(data, columns)

    monkeypatch.setattr(JsonData, "batches", growing)
    last = list(records)[-1]
    assert isinstance(last, Rejected)
    assert (last.reason, last.retry, last.whole) == ("changed_while_read", True, True)


# -- what it takes -----------------------------------------------------------------------------------------------------


def test_which_row_counts_is_decided_without_the_texts(tmp_path: Path) -> None:
    """Of 60 MB of text in one file no more than a batch or two is held at a time."""
    count, text = 60_000, "word " * 200
    writer = pq.ParquetWriter(tmp_path / "a.parquet", rows().schema, compression="none", use_dictionary=False)
    for start in range(0, count, 2_000):
        batch = rows(*(str(n % (count - 10)) for n in range(start, start + 2_000)))
        writer.write_table(batch.set_column(1, "body", pa.array([f"{n} {text}" for n in range(2_000)])))
    writer.close()
    code = (
        "import resource, sys\nfrom pathlib import Path\nfrom tests.support.tables import table\n"
        "source = table(Path(sys.argv[1]))\nlist(map(list, (source.read(p) for p in ())))\n"
        "from embedding.records import Document\n(partition,) = source.listing().partitions\n"
        "def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024\n"
        "before = peak()\nread = sum(isinstance(r, Document) for r in source.read(partition))\nprint(read, peak() - before)"
    )
    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    read, grown = map(int, ran.stdout.split())
    assert read == count - 10 and grown < 60, ran.stdout


def test_columns_of_units_are_no_columns() -> None:
    columns = Columns(id="id", text="body", created_at="at", created_unit="ms")
    source = TableSource(Path("x"), source_id="x", format="json", columns=columns, team_id="T1")
    assert source.rows.wanted == ["at", "body", "id"]
    with pytest.raises(ValueError, match="created_unit"):
        Columns(id="id", text="body", created_at="at", created_unit="weeks")  # type: ignore[arg-type]  # no such unit
