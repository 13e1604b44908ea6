"""The state folder: which folders it accepts, and that a start cut short leaves one that can be opened again."""

from __future__ import annotations

from pathlib import Path

import pytest

from embedding.errors import ConfigError, SpaceMismatchError
from jobs.state import State


def test_a_start_that_died_before_the_first_table_can_be_repeated(tmp_path: Path) -> None:
    first = State(tmp_path / "state")
    assert State(tmp_path / "state").hash_key == first.hash_key


def test_a_folder_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.docx").write_text("mine")
    with pytest.raises(ConfigError, match="folder of its own"):
        State(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.docx"]


def test_another_space_is_refused_by_both_names(tmp_path: Path) -> None:
    State(tmp_path).claim_space("aaaa", "model-a")
    with pytest.raises(SpaceMismatchError, match=r"aaaa.*bbbb"):
        State(tmp_path).claim_space("bbbb", "model-b")
