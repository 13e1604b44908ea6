"""Scratch of engines goes once they cannot be running any more, on whatever machine they were."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jobs.state.work_folder import clear_work, open_scratch, show_life
from tests.support.paths import ROOT

SECONDS = 60  # of a lease


@pytest.fixture
def work(tmp_path: Path) -> Path:
    folder = tmp_path / "work"
    folder.mkdir()
    return folder


def engines(work: Path, name: str) -> Path:
    folder = work / name
    folder.mkdir()
    (folder / "spilled").write_text("what somebody wrote")
    return folder


def elsewhere(folder: Path) -> None:
    """As if another machine had shown the sign of life."""
    said = json.loads((folder / "alive.json").read_text())
    (folder / "alive.json").write_text(json.dumps(said | {"host": "other", "machine": "another boot"}))


def aged(folder: Path, seconds: float) -> None:
    os.utime(folder / "alive.json", (at := time.time() - seconds, at))


def test_engines_of_another_machine_stay_while_they_show_that_they_live(work: Path) -> None:
    folder = engines(work, "engines-other-17")
    show_life(folder, SECONDS)
    elsewhere(folder)
    assert clear_work(work.parent) == 0 and folder.exists()
    aged(folder, SECONDS - 5)
    assert clear_work(work.parent) == 0
    aged(folder, SECONDS + 1)
    assert clear_work(work.parent) == 1 and list(work.iterdir()) == []


def test_engines_of_another_host_that_never_said_that_they_live_go(work: Path) -> None:
    engines(work, f"engines-other-{os.getpid()}")
    assert clear_work(work.parent) == 1 and list(work.iterdir()) == []


def test_of_this_machine_the_process_itself_tells(work: Path) -> None:
    mine, older = engines(work, f"engines-{socket.gethostname()}-{os.getpid()}"), work / "older"
    show_life(mine, SECONDS)
    aged(mine, 10 * SECONDS)
    assert clear_work(work.parent) == 0, "however long it was stopped"
    program = "import sys; from pathlib import Path; from jobs.state.work_folder import show_life; show_life(Path(sys.argv[1]), 60)"
    older = engines(work, "engines-same-1")
    subprocess.run([sys.executable, "-c", program, str(older)], cwd=ROOT, check=True)
    assert clear_work(work.parent) == 1 and [p.name for p in work.iterdir()] == [mine.name]


def test_sign_of_life_is_kept_fresh_for_as_long_as_the_process_lives(work: Path) -> None:
    folder = engines(work, "engines-other-18")
    show_life(folder, 1)
    elsewhere(folder)
    time.sleep(2)
    assert clear_work(work.parent) == 0


def test_work_of_runs_goes_with_the_next_one(work: Path) -> None:
    for name in ("20250101T000000-aaaaaa", "20250101T000001-bbbbbb", ".20250101T000000-cccccc.0"):
        engines(work, name)
    assert clear_work(work.parent, keep="20250101T000001-bbbbbb") == 2
    assert [p.name for p in work.iterdir()] == ["20250101T000001-bbbbbb"]


def test_what_a_process_of_the_same_id_left_goes_when_this_one_opens_its_scratch_and_its_own_stays(
    tmp_path: Path,
) -> None:
    """In a container every command may have the same id."""
    folder = tmp_path / "work" / "engines-here-7"
    folder.mkdir(parents=True)
    (folder / "spilled").write_text("of a killed run")
    open_scratch(folder, SECONDS)
    assert [file.name for file in folder.iterdir()] == ["alive.json"] and folder.stat().st_mode & 0o77 == 0
    (folder / "own").touch()
    open_scratch(folder, SECONDS)
    assert (folder / "own").exists()
