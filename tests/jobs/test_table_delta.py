"""The table source: Delta tables, as their log says."""

from __future__ import annotations

import pickle
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from embedding.errors import SourceError
from tests.support.delta_log import DeltaLog
from tests.support.tables import MAPPED, ids_of, of_teams, rows, table, told


@pytest.mark.parametrize("inline", [True, False])
def test_rows_of_a_deletion_vector_are_not_there(tmp_path: Path, inline: bool) -> None:
    log = DeltaLog(tmp_path, MAPPED, features=["deletionVectors"]).create()
    log.add("a.parquet", rows("1", "2", "3"))
    log.add("b.parquet", rows("4"))
    source = table(tmp_path, "delta")
    before = {p.key: p.fingerprint for p in source.listing().partitions}
    assert ids_of(told(source)) == {"1", "2", "3", "4"}
    log.delete("a.parquet", [1], inline=inline)
    after = {p.key: p.fingerprint for p in source.listing().partitions}
    assert {key for key in before if before[key] != after[key]} == {"a.parquet"}, "its bytes are what they were"
    assert ids_of(told(source)) == {"1", "3", "4"}
    log.delete("a.parquet", [1, 2], inline=inline)
    assert source.listing().partitions[0].fingerprint not in (before["a.parquet"], after["a.parquet"])
    assert ids_of(told(source)) == {"1", "4"}


def test_a_deletion_vector_of_a_large_file_with_several_batches(tmp_path: Path) -> None:
    many = [str(n) for n in range(70_000)]
    gone = [0, 8_191, 8_192, 65_535, 65_536, 69_999]
    log = DeltaLog(tmp_path, MAPPED, features=["deletionVectors"]).create()
    log.add("a.parquet", rows(*many))
    log.delete("a.parquet", gone)
    assert set(many) - ids_of(told(table(tmp_path, "delta"))) == {str(n) for n in gone}


@pytest.mark.parametrize("features", [(), ("columnMapping", "deletionVectors")], ids=["version 2", "version 3"])
@pytest.mark.parametrize("mapping", ["name", "id"])
def test_columns_are_found_where_the_tables_mapping_says(
    tmp_path: Path, mapping: str, features: tuple[str, ...]
) -> None:
    log = DeltaLog(tmp_path, {**MAPPED, "team": "string"}, ["team"], features, mapping).create()
    log.add("x1/a.parquet", rows("1", "2"), {"team": "007"})
    if features:
        log.delete("x1/a.parquet", [0])
    found = told(of_teams(tmp_path, "delta"))
    assert set(found.texts) == ({"007/t/2"} if features else {"007/t/1", "007/t/2"}) and found.rejected == []


def test_a_column_that_is_renamed_in_the_log_alone_is_read_again(tmp_path: Path) -> None:
    log = DeltaLog(tmp_path, MAPPED, mapping="name").create()
    log.add("a.parquet", rows("1"))
    before = table(tmp_path, "delta").listing().partitions[0].fingerprint
    commit = tmp_path / "_delta_log" / f"{0:020}.json"
    swapped = commit.read_text().replace("col-1", "col-x").replace("col-2", "col-1").replace("col-x", "col-2")
    commit.write_text(swapped)
    assert table(tmp_path, "delta").listing().partitions[0].fingerprint != before


@pytest.mark.parametrize("feature", ["typeWidening", "catalogManaged", "vacuumProtocolCheck", "rowFilters"])
def test_a_table_whose_features_are_not_understood_is_refused_in_one_line(tmp_path: Path, feature: str) -> None:
    DeltaLog(tmp_path, MAPPED, features=["deletionVectors", feature]).create().add("a.parquet", rows("1"))
    with pytest.raises(SourceError, match=feature) as error:
        table(tmp_path, "delta").listing()
    assert "\n" not in str(error.value) and error.value.exit_code == 2


def test_a_log_that_cannot_be_read_is_refused_without_its_words(tmp_path: Path) -> None:
    log = DeltaLog(tmp_path, MAPPED).create()
    log.add("a.parquet", rows("1"))
    commit = tmp_path / "_delta_log" / f"{1:020}.json"
    commit.write_text(commit.read_text().replace('{"add"', '{"add": {"path": "secret"}, "add"')[:-30])
    with pytest.raises(SourceError) as error:
        table(tmp_path, "delta").listing()
    assert "secret" not in str(error.value) and "\n" not in str(error.value)
    (tmp_path / "else").mkdir()
    with pytest.raises(SourceError, match="not a Delta table"):
        table(tmp_path / "else", "delta").listing()


def test_a_data_file_that_is_not_there_protects_what_it_held(tmp_path: Path) -> None:
    log = DeltaLog(tmp_path, MAPPED).create()
    log.add("a.parquet", rows("1")).unlink()
    log.add("b.parquet", rows("2"))
    listing = table(tmp_path, "delta").listing()
    assert [(r.key, r.reason) for r in listing.rejected] == [("a.parquet", "io_error")]
    assert [p.key for p in listing.partitions] == ["b.parquet"]


def test_an_executor_reads_the_version_that_was_listed(tmp_path: Path) -> None:
    log = DeltaLog(tmp_path, MAPPED, features=["deletionVectors"]).create()
    log.add("a.parquet", rows("1", "2"))
    source = table(tmp_path, "delta")
    (partition,) = source.listing().partitions
    sent = pickle.dumps(source)
    log.delete("a.parquet", [0])
    assert len(sent) < 5_000
    assert len(list(pickle.loads(sent).read(partition))) == 2


def test_a_null_partition_of_a_delta_table_is_null(tmp_path: Path) -> None:
    whole = rows("1", "2").append_column("ch", pa.array([None, "C1"]))
    write_deltalake(str(tmp_path), whole, partition_by=["ch"])
    assert {d.channel_id for d in told(table(tmp_path, "delta", channel_id="ch")).documents.values()} == {"", "C1"}
