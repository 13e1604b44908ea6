"""The state folder: which folders it accepts, and that a start cut short leaves one that can be opened again."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding.errors import ConfigError
from embedding.records import CHUNK
from jobs.state.erasure import forget
from jobs.state.parts import write_part
from jobs.state.store import State
from jobs.state.tables import TABLES
from tests.support.canary import Canary, places


def test_a_start_that_died_before_the_first_table_can_be_repeated(tmp_path: Path) -> None:
    first = State(tmp_path / "state")
    assert State(tmp_path / "state").hash_key == first.hash_key


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(ConfigError, match="folder of its own"):
        State(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]


def test_every_space_is_remembered_with_its_cut(tmp_path: Path) -> None:
    State(tmp_path, cut="c1").note_space("aaaa", "model-a")
    State(tmp_path, cut="c2").note_space("bbbb", "model-b")
    State(tmp_path, cut="c2").note_space("aaaa", "another name")
    expected = {"aaaa": {"model": "model-a", "cut": "c1"}, "bbbb": {"model": "model-b", "cut": "c2"}}
    assert State(tmp_path).spaces() == expected


def test_a_state_of_another_format_is_refused(tmp_path: Path) -> None:
    (tmp_path / "embedmill.json").write_text('{"format": 1, "space_id": "aaaa", "model": "model-a"}')
    with pytest.raises(ConfigError, match="format 1"):
        State(tmp_path).spaces()


def test_a_cut_sees_and_changes_its_own_rows_only(tmp_path: Path) -> None:
    def rows(*ids: str, gone: bool = False) -> list[dict[str, object]]:
        return [{"source_id": "s", "partition": "p", "step": "s", "key": i, "_delete": gone} for i in ids]

    one, two = State(tmp_path, cut="one"), State(tmp_path, cut="two")
    one.change("quarantine", rows("a", "b"))
    two.change("quarantine", rows("b", "c"))
    one.change("quarantine", rows("b", gone=True))
    seen = {s.cut: sorted(s.read("quarantine", ["key"])["key"].to_pylist()) for s in (one, two)}
    assert seen == {"one": ["a"], "two": ["b", "c"]}
    assert one.count("quarantine") == 1 and one.every_cut().count("quarantine") == 3
    assert all("cut=one" in file for file in one.files("quarantine"))
    parts = write_part(str(tmp_path), "quarantine", two.read("quarantine"), "one")
    one.append("quarantine", parts)
    assert one.count("quarantine") == 3 and two.count("quarantine") == 2
    with pytest.raises(ValueError, match="one cut at a time"):
        one.every_cut().change("quarantine", rows("a", gone=True))


def test_a_table_s_log_and_statistics_hold_no_text_and_forgetting_leaves_none(tmp_path: Path) -> None:
    state, canary = State(tmp_path, cut="one"), Canary()

    def row(chunk: str, text: str) -> dict[str, object]:
        blank = {f.name: "" if f.type == pa.string() else 0 for f in CHUNK}
        return blank | {"team_id": "T", "chunk_id": chunk, "text": text, "meta": text, "_delete": False}

    state.change("chunks", [row("a", canary.text), row("b", "stays")])
    state.change("chunks", [row("a", f"{canary.text} again")])
    appended = pa.Table.from_pylist([row("c", canary.text)], schema=TABLES["chunks"].changes).select(CHUNK.names)
    state.append("chunks", write_part(str(tmp_path), "chunks", appended, "one"))
    write_part(str(tmp_path), "chunks", appended, "one")  # of a killed run
    found = places({"canary": canary}, tmp_path)["canary"]
    assert not [where for where in found if "_delta_log" in where]
    for file in (tmp_path / "chunks").rglob("*.parquet"):
        group = pq.read_metadata(file).row_group(0)
        told = {group.column(n).path_in_schema for n in range(group.num_columns) if group.column(n).is_stats_set}
        assert "chunk_id" in told and not told & {"text", "meta"}
    assert state.drop("chunks", "chunk_id IN ('a', 'c')") == 2
    assert forget(state, "chunks") >= 4
    assert places({"canary": canary}, tmp_path) == {}
    assert state.read("chunks", ["text"])["text"].to_pylist() == ["stays"]
    state.change("chunks", [row("d", "a new one")])
    assert state.count("chunks") == 2
