"""A damaged table of the state is named with its file and the fix, and rebuilt without encoding anything again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from jobs.state.integrity import find_damage, first_damage, record_versions
from jobs.state.store import State
from jobs.state.tables import TABLES
from tests.support.workspace import DAY, TEAM, TEXTS, Ran, Workspace, counts, folder_of, message

pytestmark = pytest.mark.usefixtures("encoder_here")

REBUILT = [name for name in TABLES if name != "purges"]


def data_file(table: Path) -> Path:
    """One of the files that the table's newest version is made of."""
    return Path(sorted(DeltaTable(str(table)).file_uris())[-1].removeprefix("file://"))


def last_entry(table: Path) -> Path:
    return sorted((table / "_delta_log").glob("*.json"))[-1]


def cut(table: Path) -> Path:
    file = data_file(table)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    return file


def gone(table: Path) -> Path:
    file = data_file(table)
    file.unlink()
    return file


def garbled(table: Path) -> Path:
    """As long as before, and with the magic numbers at both ends: a bad block of a disk."""
    file = data_file(table)
    data = bytearray(file.read_bytes())
    data[4 : len(data) // 2] = bytes(b ^ 0xA5 for b in data[4 : len(data) // 2])
    file.write_bytes(data)
    return file


def entry_cut(table: Path) -> Path:
    file = last_entry(table)
    file.write_text(file.read_text()[:-20])
    return file


def entry_empty(table: Path) -> Path:
    """What a power cut leaves of a file that was not flushed."""
    file = last_entry(table)
    file.write_text("")
    return file


def entry_gone(table: Path) -> Path:
    last_entry(table).unlink()
    return table / "_delta_log"


def folder_gone(table: Path) -> Path:
    shutil.rmtree(table)
    return table


def log_gone(table: Path) -> Path:
    shutil.rmtree(table / "_delta_log")
    return table / "_delta_log"


DAMAGES = [cut, gone, garbled, entry_cut, entry_empty, entry_gone, folder_gone, log_gone]
Damaging = Callable[[Path], Path]


def assert_named(refused: Ran, table: str, file: Path, code: int = 1) -> None:
    lines = [line for line in refused.err.splitlines() if line.strip()]
    assert len(lines) == 1 and "unexpected" not in refused.err, refused.err
    assert refused.code == code == refused.body["error"]["exit_code"]
    assert f"table '{table}' is damaged" in lines[0] and str(file) in lines[0]
    assert ("embedmill verify --repair" if code == 1 else "backup") in lines[0]


# -- finding it --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A state with some rows of every table, written in two commits each."""
    state = State(tmp_path_factory.mktemp("written") / "state", cut="c1", fence=1)
    for name, spec in TABLES.items():
        for number in range(2):
            values = {f.name: f"v{number}" for f in spec.schema if pa.types.is_string(f.type)}
            values |= {f.name: bytes(400) for f in spec.schema if pa.types.is_binary(f.type)}
            state.change(name, [{**values, "_delete": False}])
    record_versions(state.root)
    return folder_of(state)


@pytest.fixture
def state(tmp_path: Path, written: Path) -> State:
    shutil.copytree(written, tmp_path / "state")
    return State(tmp_path / "state", cut="c1", fence=1)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda d: d.__name__)
@pytest.mark.parametrize("table", TABLES)
def test_damage_is_found_with_its_table_and_file(state: State, table: str, damage: Damaging) -> None:
    assert find_damage(state.root) == []
    assert first_damage(state.root) is None
    file = damage(folder_of(state) / table)
    found = find_damage(state.root)
    assert [(d.table, folder_of(state) / d.file) for d in found] == [(table, file)]


@pytest.mark.parametrize("damage", [entry_empty, entry_gone, folder_gone, log_gone], ids=lambda d: d.__name__)
def test_what_would_look_like_a_whole_older_table_is_seen_before_anything_is_opened(
    state: State, damage: Damaging
) -> None:
    file = damage(folder_of(state) / "chunks")
    seen = first_damage(state.root)
    assert seen is not None and (seen.table, folder_of(state) / seen.file) == ("chunks", file)


def test_purges_come_first_and_every_damage_is_listed(state: State) -> None:
    for name in TABLES:
        cut(folder_of(state) / name)
    found = [d.table for d in find_damage(state.root)]
    assert found[0] == "purges" and sorted(found) == sorted(TABLES)


def test_a_state_without_a_note_is_not_damaged(state: State) -> None:
    """One that an earlier version wrote: its tables may be made one by one."""
    (state.root / "tables.json").unlink()
    shutil.rmtree(folder_of(state) / "runs")
    assert first_damage(state.root) is None and find_damage(state.root) == []
    assert state.count("runs") == 0


# -- rebuilding it -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A workspace with something in every table. Each test damages it and leaves it rebuilt for the next."""
    space = Workspace(tmp_path_factory.mktemp("damaged") / "ws")
    space.day("random", [*space.messages("random"), {"type": "message", "text": "no ts"}])
    assert space.run().code == 3
    assert space.call("purge", "--team", TEAM, "--ids", f"{TEAM}/f/notes.txt").code == 0
    return space


def rows(space: Workspace, table: str) -> int:
    return State(space.root / "state").count(table)


@pytest.mark.parametrize(
    ("table", "damage", "command"),
    [
        ("sources", garbled, "run"),
        ("vectors", garbled, "verify"),
        ("published", cut, "plan"),
        pytest.param("chunks", entry_cut, "run", marks=pytest.mark.long),
        pytest.param("chunks", gone, "verify", marks=pytest.mark.long),
        pytest.param("vectors", entry_gone, "status", marks=pytest.mark.long),
        pytest.param("quarantine", folder_gone, "status", marks=pytest.mark.long),
        pytest.param("runs", entry_cut, "status", marks=pytest.mark.long),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_damaged_table_is_named_and_rebuilt_and_nothing_is_encoded_again(
    whole: Workspace, table: str, damage: Damaging, command: str
) -> None:
    held = {name: rows(whole, name) for name in ("chunks", "vectors", "published", "quarantine")}
    file = damage(whole.root / "state" / table)
    assert_named(whole.call(command), table, file)

    mended = whole.verify("--repair")
    assert mended.code == 0, mended
    assert mended.body["status"] == "repaired" and mended.body["rebuilt"] == [table]
    assert mended.body["repaired"] == 0, "the index was right all the time"
    assert {name: rows(whole, name) for name in held} == held

    again = whole.run()
    assert again.code == 3, "the message without a ts is in quarantine as before"
    assert counts(again) == {} and again.body["tokens"]["embedded"] == 0
    assert find_damage(whole.root / "state") == []


def test_all_that_can_be_rebuilt_at_once(whole: Workspace) -> None:
    for name in REBUILT:
        folder_gone(whole.root / "state" / name)
    rebuilt = whole.verify("--repair")
    assert rebuilt.code == 0 and rebuilt.body["rebuilt"] == sorted(REBUILT)
    assert counts(whole.run()) == {}
    other = whole.call("reindex")
    assert other.code == 3 and other.body["chunks"]["embedded"] == 0, "every vector came back from the index"
    assert other.body["gate"]["passed"] and whole.verify().code == 0
    hits = whole.call("search", TEXTS[0], "--team", TEAM).body["hits"]
    assert hits[0]["text"] == TEXTS[0]


@pytest.mark.long
def test_what_left_its_source_meanwhile_is_deleted(whole: Workspace) -> None:
    """Its partition is in no ``sources`` any more, but chunks of it are."""
    whole.day("general", [message(700, "a day that will be gone")], day="2025-03-05")
    assert counts(whole.run()) == {"embedded": 1}
    cut(whole.root / "state" / "sources")
    (whole.export / "general" / "2025-03-05.json").unlink()
    assert whole.verify("--repair").code == 0
    assert whole.verify().code == 0 and counts(whole.run()) == {}
    assert "a day that will be gone" not in str(State(whole.root / "state").read("chunks", ["text"]).to_pylist())


def test_index_rows_of_an_unreadable_day_stay_although_their_chunks_are_lost(whole: Workspace) -> None:
    day = whole.export / "general" / f"{DAY}.json"
    good = day.read_text()
    held = whole.call("status").body["index"]["versions"][-1]["rows"]
    day.write_text("not json")
    folder_gone(whole.root / "state" / "chunks")
    kept = whole.verify("--repair")
    assert kept.code == 4 and kept.body["differences"]["undesired"] == 4
    assert kept.body["index_rows"] == held
    day.write_text(good)
    assert counts(whole.run()) == {}
    assert whole.verify().code == 0


def test_killed_rebuild_is_begun_again(whole: Workspace) -> None:
    root = whole.root / "state"
    record_versions(root, rebuilding=["published"])
    shutil.rmtree(root / "published")
    State(root, fence=1).table("published")
    assert_named(whole.run(), "published", root / "published")
    rebuilt = whole.verify("--repair")
    assert rebuilt.code == 0 and rebuilt.body["rebuilt"] == ["published"]
    assert counts(whole.run()) == {}


# -- what is refused ---------------------------------------------------------------------------------------------------

COMMANDS = [
    ("plan",),
    ("run",),
    ("search", "lockers", "--team", TEAM),
    ("verify",),
    ("status",),
    ("reindex",),
    ("rollback",),
    ("gc",),
    ("purge", "--team", TEAM),
    ("step", "extract", "--run-id", "r1"),
]


def test_every_command_names_a_table_that_is_missing(whole: Workspace) -> None:
    folder = whole.root / "state" / "vectors"
    shutil.move(folder, whole.root / "aside")
    for command in COMMANDS:
        assert_named(whole.call(*command), "vectors", folder)
    shutil.move(whole.root / "aside", folder)
    assert whole.call("status").code == 0


@pytest.mark.parametrize("damage", [cut, entry_gone, folder_gone], ids=lambda d: d.__name__)
def test_without_its_purge_rules_nothing_is_written(whole: Workspace, damage: Damaging) -> None:
    """The file's rule was purged; extracting it again without the rule would bring it back."""
    purges = whole.root / "state" / "purges"
    shutil.copytree(purges, whole.root / "backup")
    before = rows(whole, "chunks")
    file = damage(purges)
    notes = whole.files / "notes.txt"
    os.utime(notes, ns=(0, notes.stat().st_mtime_ns))  # another change time: a run reads it again, and so the rules
    for command in ("run", "verify --repair"):
        assert_named(whole.call(*command.split()), "purges", file, code=5)
    assert rows(whole, "chunks") == before
    shutil.rmtree(purges, ignore_errors=True)
    shutil.move(whole.root / "backup", purges)
    assert whole.run().code == 3
    assert rows(whole, "chunks") == before


@pytest.mark.parametrize("content", [None, b"", b"half of a key"], ids=["missing", "empty", "cut"])
def test_a_lost_hash_key_is_not_replaced_in_silence(whole: Workspace, content: bytes | None) -> None:
    key = whole.root / "state" / "hash.key"
    good = key.read_bytes()
    key.unlink() if content is None else key.write_bytes(content)
    refused = whole.run()
    assert refused.code == 1 and str(key) in refused.err and "backup" in refused.err
    key.write_bytes(good)


def test_a_damaged_marker_is_named(whole: Workspace) -> None:
    marker = whole.root / "state" / "embedmill.json"
    marker.write_text("{")
    refused = whole.run()
    assert refused.code == 1 and str(marker) in refused.err
    marker.unlink()
    assert counts(whole.run()) == {}
