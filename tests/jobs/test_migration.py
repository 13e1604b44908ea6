"""A state of the former format is refused with the command that rewrites it, and is the same rows after that."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from embedding.errors import ConfigError
from jobs.state import migration
from jobs.state.integrity import find_damage, first_damage, recorded_versions
from jobs.state.lease import Lease
from jobs.state.store import State
from jobs.state.tables import BUCKETS, TABLES
from jobs.state.writable_tables import WritableTables
from tests.support.former_state import PARTITIONED, as_former, mark_former, write_former
from tests.support.workspace import TEAM, TEXTS, Workspace, counts, message

Rows = dict[str, list[dict[str, object]]]
TEAMS = [f"T{n}" for n in range(40)]


def stored(name: str) -> pa.Schema:
    own = ("bucket", "layer", "seq", "gone")
    return pa.schema([field for field in TABLES[name].stored if field.name not in own])


def former(root: Path, teams: int = len(TEAMS)) -> Rows:
    """A state of so many teams in the former format; returns its rows by table, sorted."""
    State(root, fence=1).change("purges", [])
    rows: Rows = {}
    for name in PARTITIONED:
        schema = stored(name)
        rows[name] = [
            {
                field.name: team
                if field.name == "team_id"
                else f"{team}-{n}".encode()
                if pa.types.is_binary(field.type)
                else n
                if pa.types.is_integer(field.type)
                else n == 1
                if pa.types.is_boolean(field.type)
                else [f"{field.name} {n}"]
                if pa.types.is_list(field.type)
                else f"{field.name}-{n % 2}"
                if field.name in PARTITIONED[name]
                else f"{field.name} {n}"
                for field in schema
            }
            for team in TEAMS[:teams]
            for n in range(3)
        ]
        write_former(root, name, pa.Table.from_pylist(rows[name], schema=schema))
    mark_former(root)
    return {name: ordered(listed) for name, listed in rows.items()}


def ordered(rows: list[dict[str, object]]) -> list[dict[str, object]]:
    return sorted(rows, key=lambda row: [str(value) for value in row.values()])


def now(root: Path) -> Rows:
    state = State(root)
    return {name: ordered(state.dataset(name).to_table(stored(name).names).to_pylist()) for name in PARTITIONED}


def migrate(root: Path) -> None:
    with Lease(root, run_id="r", seconds=60, newest=lambda: 5) as lease:
        migration.migrate(root, lease, lambda name, total: lambda rows: None)


def test_a_state_of_the_former_format_is_refused_with_the_command_that_rewrites_it(tmp_path: Path) -> None:
    former(tmp_path)
    with pytest.raises(ConfigError, match="has format 3.*run `embedmill state migrate`"):
        State(tmp_path)


def test_rows_are_the_same_and_files_no_longer_grow_with_the_teams(tmp_path: Path) -> None:
    before = former(tmp_path)
    assert migration.rows_to_migrate(tmp_path) == {"chunks": 120, "vectors": 120, "published": 120}
    migrate(tmp_path)
    assert now(tmp_path) == before
    state = State(tmp_path)
    assert all(len(state.files(name)) <= 2 * BUCKETS for name in PARTITIONED)
    assert migration.rows_to_migrate(tmp_path) == {} and not (tmp_path / "migrating").exists()
    assert state.newest_fence() > 5 and find_damage(tmp_path) == [] and first_damage(tmp_path) is None
    assert recorded_versions(tmp_path).keys() >= PARTITIONED.keys()


class Died(Exception):
    """The process was killed."""


@pytest.mark.parametrize("ahead", [True, False], ids=["ahead of it", "after it"])
def test_killed_at_any_step_and_repeated_it_ends_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: bool
) -> None:
    """Steps are the renames of folders, the commits of new tables, and the removals of old ones."""
    rows = former(tmp_path / "first", teams=8)  # there are as many steps of more
    steps = 0

    def killing(at: int) -> None:
        count = 0

        def wrap(owner: object, name: str) -> None:
            real = getattr(owner, name)

            def step(*given: object, **named: object) -> object:
                nonlocal count, steps
                count += 1
                steps = max(steps, count)
                if count == at and ahead:
                    raise Died
                found = real(*given, **named)
                if count == at:
                    raise Died
                return found

            patched.setattr(owner, name, step)

        wrap(migration, "rename")
        wrap(migration, "record_versions")
        wrap(migration, "restamp")
        wrap(WritableTables, "append")
        wrap(shutil, "rmtree")

    at = 1
    while True:
        root = tmp_path / f"state-{at}"
        shutil.copytree(tmp_path / "first", root)
        with monkeypatch.context() as patched:
            killing(at)
            try:
                migrate(root)
                break
            except Died:
                pass
        if not (root / "embedmill.json").read_text().count('"format": 4'):
            with pytest.raises(ConfigError, match="state migrate"):
                State(root)
        migrate(root)
        assert now(root) == rows and find_damage(root) == [], f"killed at step {at}"
        assert not (root / "migrating").exists()
        at += 1
    assert at > steps > 12


def test_what_is_no_state_and_what_is_another_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no state"):
        migration.rows_to_migrate(tmp_path)
    (tmp_path / "embedmill.json").write_text('{"format": 2, "spaces": {}}')
    with pytest.raises(ConfigError, match="only format 3 is migrated"):
        migration.rows_to_migrate(tmp_path)


@pytest.mark.usefixtures("encoder_here")
def test_after_a_migration_a_run_has_nothing_to_do_and_everything_goes_on(workspace: Workspace) -> None:
    assert workspace.run().code == 0
    tables = workspace.call("status").body["tables"]
    root = workspace.root / "state"
    as_former(root)
    for command in ("run", "status", "plan"):
        refused = workspace.call(command)
        assert refused.code == 2 and "run `embedmill state migrate`" in refused.body["error"]["message"]
        assert len(refused.err.strip().splitlines()) == 1
    done = workspace.call("state", "migrate")
    assert done.code == 0 and done.body == {"format": 4, "tables": {n: tables[n] for n in PARTITIONED}}
    assert workspace.call("state", "migrate").body == {"format": 4, "tables": {}}
    assert workspace.call("status").body["tables"] | {"runs": 0} == tables | {"runs": 0}
    again = workspace.run()
    assert counts(again) == {} and again.body["tokens"]["embedded"] == 0
    assert workspace.verify().code == 0
    assert json.loads((root / "embedmill.json").read_text())["format"] == 4

    workspace.day("general", [*workspace.messages("general"), message(20, "one more")])
    assert counts(workspace.run()) == {"embedded": 1}
    receipt = workspace.call("purge", "--team", TEAM, "--channel", "C1")
    assert receipt.code == 0 and receipt.body["removed"]["index"] >= 5
    assert workspace.verify().code == 0
    assert workspace.call("search", TEXTS[5], "--team", TEAM).body["hits"]
