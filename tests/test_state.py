"""The state folder: which folders it accepts, and that a start cut short leaves one that can be opened again."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding.errors import ConfigError
from jobs.state import State, write_part


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
