"""A rollback shows nothing that was deleted, edited or purged since its version was live."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from embedding.errors import ConfigError, MassDeleteError
from indexers import exact
from jobs.commands.gc import gc
from jobs.commands.purge import purge
from jobs.commands.reindex import reindex
from jobs.commands.rollback import rollback
from jobs.commands.run import run
from jobs.commands.verify import verify
from jobs.scope import Scope
from tests.support.in_process import (
    GROWING,
    Death,
    Killed,
    WatchedIndex,
    copied_with_index,
    open_pipeline,
    tables_loaded,
    without_ray,
)
from tests.support.workspace import TEAM, TEXTS, Workspace, message

LONG = " ".join(f"Door {n} of the harbour office moves." for n in range(30))
V1 = "messages__v1"


@pytest.fixture(scope="module", autouse=True)
def here() -> Iterator[None]:
    with without_ray():
        yield


@pytest.fixture(scope="module")
def _same(here: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Workspace, str]:
    return cut_over(tmp_path_factory.mktemp("same") / "ws", "")


def changed_since(root: Path, same: tuple[Workspace, str], space_line: str) -> tuple[Workspace, str]:
    """What ``cut_over`` makes; of the same space a copy."""
    if space_line:
        return cut_over(root, space_line)
    space = copied_with_index(same[0], root)
    return space, same[1]


def go(space: Workspace) -> Any:
    return run(open_pipeline(space.config), Scope(), allow_mass_delete=True)


def shown(space: Workspace, version: str) -> dict[str, str]:
    index = open_pipeline(space.config).index()
    assert isinstance(index, WatchedIndex)
    return {key: row["text"] for key, row in index._store.versions[version].rows.items()}


def live(space: Workspace) -> str | None:
    return open_pipeline(space.config).index().live()


def cut_over(root: Path, space_line: str) -> tuple[Workspace, str]:
    """A workspace with two versions, and what happened to its documents since the second one is live."""
    space = Workspace(root)
    (space.files / "long.txt").write_text(LONG)
    (space.files / "steady.txt").write_text(LONG.replace("harbour", "station"))
    go(space)
    before = space.config.read_text()
    space.config.write_text(before.replace("[model]\n", f"[model]\n{space_line}"))
    assert reindex(open_pipeline(space.config), Scope()).activated
    purge(open_pipeline(space.config), team=TEAM, channel="", ids=[f"{TEAM}/f/handbook.md"], before=None)
    edited = message(1, "The kitchen is closed", edited={"user": "U1", "ts": "1740970000.000000"})
    silent = message(2, "A text that changed and kept its date")
    space.day("general", [edited, silent, message(3, TEXTS[3]), message(9, "said since")])  # the first is deleted
    (space.files / "notes.txt").unlink()
    (space.files / "long.txt").write_text(LONG.replace("Door 29", "Door 30"))
    os.utime(space.files / "long.txt", (time.time() + 5, time.time() + 5))
    go(space)
    return space, before


@pytest.mark.parametrize("space_line", ["", "max_tokens = 16\n"], ids=["the same space", "another space"])
def test_what_is_gone_is_removed_before_the_alias_moves(
    tmp_path: Path, _same: tuple[Workspace, str], space_line: str
) -> None:
    space, before = changed_since(tmp_path / "ws", _same, space_line)
    was = shown(space, V1)
    back = rollback(open_pipeline(space.config))
    now = shown(space, V1)
    assert back.index == live(space) == V1 and back.removed == len(was) - len(now) and back.rows == len(now)
    texts = " ".join(now.values())
    for gone in (TEXTS[0], TEXTS[1], TEXTS[2], "A locker opens", "Call the courier", "Door 29 of the harbour"):
        assert gone not in texts, "deleted, edited or purged since"
    assert {TEXTS[3], TEXTS[4], TEXTS[5]} <= set(now.values()) and "Door 29 of the station" in texts
    assert now.items() <= was.items(), "what did not change stays as it was"
    space.config.write_text(before)
    go(space)
    assert verify(open_pipeline(space.config), Scope()).status == "ok"
    assert {"The kitchen is closed", "said since"} <= set(shown(space, V1).values())


def test_deletions_that_no_run_was_let_carry_out_are_not_a_rollbacks_either(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "ws")
    go(space)
    reindex(open_pipeline(space.config), Scope())
    space.config.write_text(space.config.read_text() + "[limits]\nmax_delete_rows = 2\nmax_delete_fraction = 0.3\n")
    was = shown(space, V1)
    assert rollback(open_pipeline(space.config)).removed == 0 and shown(space, V1) == was, "nothing has changed"
    reindex(open_pipeline(space.config), Scope())
    edited = [message(n, f"edited {n}", edited={"user": "U1", "ts": "1740970000.000000"}) for n in range(4)]
    space.day("general", edited)
    go(space)
    assert rollback(open_pipeline(space.config)).removed == 4, "edits are no deletions"
    run(open_pipeline(space.config), Scope())
    reindex(open_pipeline(space.config), Scope())
    space.day("general", edited[:1])
    with pytest.raises(MassDeleteError):
        run(open_pipeline(space.config), Scope())
    with pytest.raises(MassDeleteError):
        rollback(open_pipeline(space.config))
    assert live(space) == "messages__v2" and len(shown(space, V1)) == len(shown(space, "messages__v2")) == 8
    assert rollback(open_pipeline(space.config), allow_mass_delete=True).removed == 3


@pytest.mark.parametrize("ahead_of", ["published", "alias"])
def test_a_rollback_that_died_has_not_moved_the_alias_and_is_done_again(
    tmp_path: Path, _same: tuple[Workspace, str], ahead_of: str
) -> None:
    space, _ = changed_since(tmp_path / "ws", _same, "")
    with pytest.raises(Killed):
        rollback(open_pipeline(space.config, Death(ahead_of=ahead_of)))
    assert live(space) == "messages__v2"
    # What was removed comes back to the source just as it was: the ledger must not believe that it is still there.
    (space.files / "notes.txt").write_text("Call the courier when a door stays shut.\n")
    go(space)
    rollback(open_pipeline(space.config))
    assert live(space) == V1 and TEXTS[0] not in shown(space, V1).values()
    go(space)
    assert verify(open_pipeline(space.config), Scope()).status == "ok"
    assert any("Call the courier" in text for text in shown(space, V1).values())


def test_a_rollback_loads_no_table_that_grows_with_the_chunks(
    tmp_path: Path, _same: tuple[Workspace, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    space, _ = changed_since(tmp_path / "ws", _same, "")
    whole = tables_loaded(monkeypatch)
    assert rollback(open_pipeline(space.config)).removed > 0
    assert whole and not GROWING & set(whole)


def build_after(space: Workspace, tokens: int, scope: Scope) -> bool:
    """Reindex into the space of another chunk length; returns whether the alias moved."""
    text = re.sub(r"max_tokens = \d+\n", "", space.config.read_text())
    space.config.write_text(text.replace("[model]\n", f"[model]\nmax_tokens = {tokens}\n"))
    return reindex(open_pipeline(space.config), scope).activated


def test_a_version_that_was_never_live_is_not_gone_back_to(tmp_path: Path) -> None:
    """A build of a part, or one that the gate refused, stays below the version of another space that goes live later."""
    space = Workspace(tmp_path / "ws")
    go(space)
    assert not build_after(space, 16, Scope(channels=("C1",)))
    assert build_after(space, 24, Scope()) and live(space) == "messages__v3"
    assert rollback(open_pipeline(space.config)).index == live(space) == V1
    with pytest.raises(ConfigError, match="no version was live before messages__v1"):
        rollback(open_pipeline(space.config))


def test_a_version_that_was_never_live_does_not_take_the_place_of_one_that_was(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "ws")
    go(space)
    assert not build_after(space, 16, Scope(channels=("C1",)))
    assert build_after(space, 24, Scope())
    collected = gc(open_pipeline(space.config), keep=2)
    assert collected.kept == (V1, "messages__v3") and collected.dropped == ("messages__v2",)


def test_the_version_before_is_found_in_a_state_that_noted_none(tmp_path: Path, _same: tuple[Workspace, str]) -> None:
    """Earlier releases did not note which versions were live: there it is the one below."""
    space, _ = changed_since(tmp_path / "ws", _same, "")
    marker = space.root / "state" / "embedmill.json"
    noted = json.loads(marker.read_text())
    assert noted.pop("served") == [V1, "messages__v2"]
    marker.write_text(json.dumps(noted))
    assert rollback(open_pipeline(space.config)).index == V1
    assert json.loads(marker.read_text())["served"] == [V1, "messages__v2"]


def test_a_version_of_an_index_that_was_lost_is_no_longer_one_that_was_live(tmp_path: Path) -> None:
    space = Workspace(tmp_path / "ws")
    go(space)
    assert build_after(space, 16, Scope())
    state = open_pipeline(space.config).state
    assert state.served() == (V1, "messages__v2")
    exact._STORES.pop(open_pipeline(space.config).config.index_uri)
    go(space)
    assert not build_after(space, 24, Scope(channels=("C1",)))
    assert state.served() == (V1,)
