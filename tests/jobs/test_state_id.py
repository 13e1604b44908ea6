"""An index belongs to the state that writes it: another is refused, until it takes the index over."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedding.errors import DamagedStateError, OwnershipError
from jobs.bodies.answers import Taken
from jobs.commands.gc import gc
from jobs.commands.plan import plan
from jobs.commands.purge import purge
from jobs.commands.reindex import reindex
from jobs.commands.rollback import rollback
from jobs.commands.run import run
from jobs.commands.status import status
from jobs.commands.step import StepRequest, step
from jobs.commands.takeover import takeover
from jobs.commands.verify import verify
from jobs.scope import Scope
from jobs.state.state_id import state_id
from tests.support.in_process import WatchedIndex, open_pipeline, without_ray
from tests.support.workspace import TEAM, Workspace

WRITERS: dict[str, Callable[[Any], Any]] = {
    "run": lambda pipeline: run(pipeline, Scope()),
    "step extract": lambda pipeline: step(pipeline, Scope(), StepRequest("extract", "night")),
    "step of a build": lambda pipeline: step(pipeline, Scope(), StepRequest("extract", "build", build=True)),
    "verify --repair": lambda pipeline: verify(pipeline, Scope(), repair=True),
    "reindex": lambda pipeline: reindex(pipeline, Scope()),
    "rollback": rollback,
    "purge": lambda pipeline: purge(pipeline, team=TEAM, channel="", ids=[], before=None),
    "gc": lambda pipeline: gc(pipeline),
}


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Workspace, Workspace]]:
    """Two states of two teams' sources, whose configurations name one index. The first has run."""
    root = tmp_path_factory.mktemp("two")
    spaces = []
    for name in ("first", "second"):
        space = Workspace(root / name, files=False)
        space.config.write_text(space.config.read_text() + f'[index]\nuri = "{root / "shared.db"}"\n')
        spaces.append(space)
    with without_ray():
        run(open_pipeline(spaces[0].config), Scope())
        yield spaces[0], spaces[1]


def held(space: Workspace) -> dict[str, set[str]]:
    index = open_pipeline(space.config).index()
    assert isinstance(index, WatchedIndex)
    return {version: set(index._store.versions[version].rows) for version in index.versions()}


def owners(space: Workspace) -> set[str]:
    index = open_pipeline(space.config).index()
    return {index.owner_of(version) for version in index.versions()}


@pytest.mark.parametrize("command", WRITERS)
def test_what_writes_is_refused_for_another_state(two: tuple[Workspace, Workspace], command: str) -> None:
    first, second = two
    before = held(first)
    with pytest.raises(OwnershipError, match=r"belongs to state .* this is state .* `embedmill takeover`") as refused:
        WRITERS[command](open_pipeline(second.config))
    assert refused.value.exit_code == 5 and held(first) == before
    for space in two:
        assert state_id(space.root / "state") in str(refused.value)
    assert owners(first) == {state_id(first.root / "state")}


def test_what_only_reads_is_not(two: tuple[Workspace, Workspace]) -> None:
    first, second = two
    before = held(first)
    assert plan(open_pipeline(second.config), Scope()).chunks.total == 6
    assert verify(open_pipeline(second.config), Scope()).status == "differs"
    told = status(open_pipeline(second.config))
    assert told.state_id != told.index.versions[0].owner == state_id(first.root / "state")
    assert held(first) == before


def test_who_takes_an_index_over_writes_it_and_the_other_is_refused(two: tuple[Workspace, Workspace]) -> None:
    first, second = two
    was = state_id(first.root / "state")
    body = takeover(open_pipeline(second.config))
    assert body.versions == (Taken(name="messages__v1", owner_before=was),) and body.taken == 1
    assert takeover(open_pipeline(second.config)).taken == 0
    assert run(open_pipeline(second.config), Scope()).status == "ok"
    with pytest.raises(OwnershipError):
        run(open_pipeline(first.config), Scope())
    takeover(open_pipeline(first.config))
    assert owners(first) == {was} and run(open_pipeline(first.config), Scope()).status == "ok"


def test_a_version_of_an_earlier_release_is_the_first_writers(two: tuple[Workspace, Workspace]) -> None:
    first, second = two
    open_pipeline(first.config).index().set_owner("messages__v1", "")
    verify(open_pipeline(second.config), Scope())
    assert owners(first) == {""}, "who reads owns nothing"
    assert run(open_pipeline(first.config), Scope()).status == "ok"
    assert owners(first) == {state_id(first.root / "state")}
    with pytest.raises(OwnershipError):
        run(open_pipeline(second.config), Scope())


def test_versions_that_are_built_are_owned_from_the_start(two: tuple[Workspace, Workspace]) -> None:
    first, second = two
    assert reindex(open_pipeline(first.config), Scope(), activate=False).gate.passed
    assert len(held(first)) == 2 and owners(first) == {state_id(first.root / "state")}
    with pytest.raises(OwnershipError):
        step(open_pipeline(second.config), Scope(), StepRequest("plan", "build", build=True))


def test_a_restored_copy_is_the_same_state(two: tuple[Workspace, Workspace], tmp_path: Path) -> None:
    first, _ = two
    shutil.copytree(first.root, tmp_path / "copy", ignore=shutil.ignore_patterns("engines*"))
    assert run(open_pipeline(tmp_path / "copy" / "embedmill.toml"), Scope(), allow_mass_delete=True).status == "ok"
    file = tmp_path / "copy" / "state" / "state.id"
    file.write_text("")
    with pytest.raises(DamagedStateError, match="put it back from a backup, or remove it and run"):
        run(open_pipeline(tmp_path / "copy" / "embedmill.toml"), Scope())


def test_the_commands_say_so_with_exit_5_and_take_over(ran: Workspace) -> None:
    ours = ran.call("status").body["state_id"]
    (ran.root / "state" / "state.id").unlink()
    refused = ran.run()
    assert refused.code == 5 and refused.body["error"]["kind"] == "OwnershipError" and ours in refused.err
    taken = ran.call("takeover")
    assert taken.code == 0 and taken.body["versions"] == [{"name": "messages__v1", "owner_before": ours}]
    assert ran.run().code == 0 and ran.verify().code == 0
