"""The state folder: which folders it accepts, and that a start cut short leaves one that can be opened again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.errors import ConfigError, LeaseHeldError
from embedding.records import CHUNK
from jobs.state.old_files import erase_dropped
from jobs.state.parts import write_part
from jobs.state.store import State
from jobs.state.tables import TABLES
from jobs.state.team_rows import count_by_team, group_teams, read_teams
from tests.support.canary import Canary, places

_BLANK: dict[pa.DataType, object] = {pa.string(): "", pa.list_(pa.string()): [], pa.bool_(): False}


def test_a_start_that_died_before_the_first_table_can_be_repeated(tmp_path: Path) -> None:
    first = State(tmp_path / "state", fence=1)
    assert State(tmp_path / "state").hash_key == first.hash_key == State(tmp_path / "state", fence=2).hash_key


def test_a_state_that_is_open_for_reading_creates_nothing_but_its_folder(tmp_path: Path) -> None:
    reading = State(tmp_path / "state", cut="one")
    for name, spec in TABLES.items():
        assert reading.read(name).schema.names == spec.schema.names and reading.count(name) == 0
        assert reading.files(name) == [] and reading.distinct(name, spec.key) == set()
        assert read_teams(reading, "chunks", ["T1"], ["text"]).num_rows == 0
        with pytest.raises(ValueError, match="open for reading"):
            reading.table(name)
    assert reading.values("chunks", "team_id") == [] and reading.newest_fence() == 0 and reading.spaces() == {}
    with pytest.raises(ConfigError, match="nothing was written to .*; run `embedmill run` first"):
        _ = reading.hash_key
    assert list((tmp_path / "state").iterdir()) == []
    writing = reading.for_writing(1)
    assert len(writing.hash_key) == 32 and reading.hash_key == writing.hash_key
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["hash.key"]


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(ConfigError, match="folder of its own"):
        State(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]


def test_every_space_is_remembered_with_its_cut(tmp_path: Path) -> None:
    State(tmp_path, cut="c1", fence=1).note_space("aaaa", "model-a")
    State(tmp_path, cut="c2", fence=1).note_space("bbbb", "model-b")
    State(tmp_path, cut="c2", fence=1).note_space("aaaa", "another name")
    expected = {"aaaa": {"model": "model-a", "cut": "c1"}, "bbbb": {"model": "model-b", "cut": "c2"}}
    assert State(tmp_path).spaces() == expected


def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "embedmill.json").write_text('{"format": 1, "space_id": "aaaa", "model": "model-a"}')
    with pytest.raises(ConfigError, match="format 1"):
        State(tmp_path).spaces()


def test_a_cut_sees_and_changes_its_own_rows_only(tmp_path: Path) -> None:
    def rows(*ids: str, gone: bool = False) -> list[dict[str, object]]:
        return [{"source_id": "s", "partition": "p", "step": "s", "key": i, "_delete": gone} for i in ids]

    one, two = State(tmp_path, cut="one", fence=1), State(tmp_path, cut="two", fence=1)
    one.change("quarantine", rows("a", "b"))
    two.change("quarantine", rows("b", "c"))
    one.change("quarantine", rows("b", gone=True))
    seen = {s.cut: sorted(s.read("quarantine", ["key"])["key"].to_pylist()) for s in (one, two)}
    assert seen == {"one": ["a"], "two": ["b", "c"]}
    assert one.count("quarantine") == 1 and one.every_cut().count("quarantine") == 3
    assert all("cut=one" in file for file in one.files("quarantine"))
    parts = write_part(tmp_path, "quarantine", two.read("quarantine"), "one")
    one.append("quarantine", parts)
    assert one.count("quarantine") == 3 and two.count("quarantine") == 2
    with pytest.raises(ValueError, match="one cut at a time"):
        one.every_cut().change("quarantine", rows("a", gone=True))


def test_a_table_s_log_and_statistics_hold_no_text_and_forgetting_leaves_none(tmp_path: Path) -> None:
    state, canary = State(tmp_path, cut="one", fence=1), Canary()

    def row(chunk: str, text: str) -> dict[str, object]:
        blank: dict[str, object] = {f.name: _BLANK.get(f.type, 0) for f in CHUNK}
        return blank | {"team_id": "T", "chunk_id": chunk, "text": text, "meta": text, "_delete": False}

    state.change("chunks", [row("a", canary.text), row("b", "stays")])
    state.change("chunks", [row("a", f"{canary.text} again")])
    appended = pa.Table.from_pylist([row("c", canary.text)], schema=TABLES["chunks"].changes).select(CHUNK.names)
    state.append("chunks", write_part(tmp_path, "chunks", appended, "one", seq=state.next_seq("chunks")))
    write_part(tmp_path, "chunks", appended, "one")  # of a killed run
    found = places({"canary": canary}, tmp_path)["canary"]
    assert not [where for where in found if "_delta_log" in where]
    for file in (tmp_path / "chunks").rglob("*.parquet"):
        group = pq.read_metadata(file).row_group(0)
        told = {group.column(n).path_in_schema for n in range(group.num_columns) if group.column(n).is_stats_set}
        assert "chunk_id" in told and not told & {"text", "meta"}
    assert state.drop("chunks", "chunk_id IN ('a', 'c')") == 2
    assert erase_dropped(state, "chunks") >= 4
    assert places({"canary": canary}, tmp_path) == {}
    assert state.read("chunks", ["text"])["text"].to_pylist() == ["stays"]
    state.change("chunks", [row("d", "a new one")])
    assert state.count("chunks") == 2


WRITES: dict[str, Callable[[State], object]] = {
    "append": lambda state: state.append("vectors", write_part(state.root, "vectors", vector())),
    "change": lambda state: state.change("purges", [PURGE]),
    "drop": lambda state: state.drop("purges", "true"),
    "vacuum": lambda state: state.vacuum("purges", hours=0),
    "note a space": lambda state: state.note_space("aaaa", "model-a"),
    "set properties": lambda state: state.set_properties("purges", {"delta.logRetentionDuration": "interval 1 days"}),
    "checkpoint": lambda state: state.checkpoint("purges"),
    "repair": lambda state: state.repair("purges"),
    "make anew": lambda state: state.make_anew("purges"),
    "raise the number": lambda state: state.raise_fence(),
}
PURGE: dict[str, object] = {
    "team_id": "T1",
    "channel_id": "",
    "ids": [],
    "before": None,
    "purged_at": 1,
    "run_id": "r",
    "_delete": False,
}


LEDGER = [("v1", "T1", 1), ("v1", "T1", 2), ("v1", "T2", 3), ("v1", "T3", 4), ("v2", "T1", 5)]


def vector() -> pa.Table:
    blank = {field.name: "" for field in TABLES["vectors"].schema} | {"vector": b""}
    return pa.Table.from_pylist([blank])


@pytest.mark.parametrize("write", WRITES)
def test_a_state_without_the_number_of_a_lease_is_not_written(tmp_path: Path, write: str) -> None:
    state = State(tmp_path, cut="one", fence=1)
    state.change("purges", [PURGE])
    before = state.table("purges").version(), state.read("purges").to_pylist()
    for reading in (State(tmp_path, cut="one"), State(tmp_path, cut="one").every_cut()):
        with pytest.raises(ValueError, match="open for reading"):
            WRITES[write](reading)
    assert (state.table("purges").version(), state.read("purges").to_pylist()) == before
    assert State(tmp_path).spaces() == {}


@pytest.mark.parametrize("write", sorted(set(WRITES) - {"note a space", "raise the number", "append"}))
def test_a_late_holder_changes_no_property_and_writes_no_checkpoint(tmp_path: Path, write: str) -> None:
    """A purge and a repair too: their holder may be stopped, and go on when another has taken over."""
    late, later = State(tmp_path, cut="one", fence=1), State(tmp_path, cut="one", fence=2)
    late.change("purges", [PURGE])
    later.raise_fence()
    log = sorted(path.name for path in (tmp_path / "purges" / "_delta_log").iterdir())
    with pytest.raises(LeaseHeldError):
        WRITES[write](late)
    assert sorted(path.name for path in (tmp_path / "purges" / "_delta_log").iterdir()) == log
    assert later.read("purges", ["run_id"])["run_id"].to_pylist() == ["r"]


def test_a_table_that_was_made_anew_still_refuses_an_earlier_lease(tmp_path: Path) -> None:
    late, later = State(tmp_path, cut="one", fence=1), State(tmp_path, cut="one", fence=2)
    later.make_anew("purges")
    with pytest.raises(LeaseHeldError):
        late.change("purges", [PURGE])


@pytest.mark.parametrize("name", ["chunks", "vectors"])
def test_a_team_is_read_without_the_files_of_others(tmp_path: Path, name: str) -> None:
    state = State(tmp_path, cut="one", fence=1)
    blank = {f.name: b"" if pa.types.is_binary(f.type) else None for f in TABLES[name].schema}
    for team in ("T1", "T2"):
        state.change(name, [blank | dict.fromkeys(TABLES[name].key, "k") | {"team_id": team, "_delete": False}])
    for file in state.files(name, {"team_id": "T2"}):
        Path(file).unlink()
    column = TABLES[name].key[-1]
    assert read_teams(state.every_cut(), name, ["T1"], [column]).to_pylist() == [{column: "k"}]
    assert read_teams(state, name, ["T3"], [column]).num_rows == 0


def test_rows_are_counted_by_team_and_grouped_within_a_limit(tmp_path: Path) -> None:
    state = State(tmp_path, cut="one", fence=1)
    rows = [{"index": index, "team_id": team, "chunk_id": f"{n}"} for index, team, n in LEDGER]
    blank = {field.name: None for field in TABLES["published"].schema}
    state.change("published", [blank | row | {"_delete": False} for row in rows])
    counts = count_by_team(state, "published", {"index": "v1"})
    assert counts == {"T1": 2, "T2": 1, "T3": 1}
    assert list(group_teams(counts, 2)) == [["T1"], ["T2", "T3"]]
    assert list(group_teams(counts, 1)) == [["T1"], ["T2"], ["T3"]] and list(group_teams({})) == []
    read = read_teams(state, "published", ["T1", "T3"], ["chunk_id", "team_id"], {"index": "v1"})
    assert sorted(tuple(r.values()) for r in read.to_pylist()) == [("1", "T1"), ("2", "T1"), ("4", "T3")]
