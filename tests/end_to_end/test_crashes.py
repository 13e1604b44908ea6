"""A run that dies, and a source that changes before the next one: what the dead run had begun must not stay.

Each is a sequence that the model-based test (test_model.py) found.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.commands.purge import purge
from jobs.commands.run import run
from jobs.scope import Scope
from jobs.state.store import State
from tests.support.in_process import Death, Killed, WatchedIndex, copied_with_index, open_pipeline, without_ray
from tests.support.workspace import START, TEAM, TEXTS, Workspace, message, writing

GENERAL = [message(n, text) for n, text in enumerate(TEXTS[:4])]
NEW = message(50, "The tram stops at the museum")
MARCH = Scope(until=(START + 86_400) * 1_000_000)


@pytest.fixture(autouse=True)
def here() -> Iterator[None]:
    with without_ray():
        yield


@pytest.fixture(scope="module")
def _published_once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    space = Workspace(tmp_path_factory.mktemp("published") / "ws")
    with without_ray():
        go(space)
    return space


@pytest.fixture
def published(tmp_path: Path, _published_once: Workspace) -> Workspace:
    """A workspace whose first run is done."""
    space = copied_with_index(_published_once, tmp_path / "ws")
    return space


def go(space: Workspace, scope: Scope | None = None) -> Any:
    return run(open_pipeline(space.config), scope or Scope(), allow_mass_delete=True)


def die(space: Workspace, ahead_of: str, once: str = "") -> None:
    with pytest.raises(Killed):
        run(open_pipeline(space.config, Death(ahead_of=ahead_of, once=once)), Scope(), allow_mass_delete=True)


def held(space: Workspace, version: str = "messages__v1") -> dict[str, str]:
    """Text by chunk id."""
    index = open_pipeline(space.config).index()
    assert isinstance(index, WatchedIndex)
    return {k: row["text"] for k, row in index._store.versions[version].rows.items()}


def ledger(space: Workspace) -> list[str]:
    return sorted(State(space.root / "state").read("published", ["chunk_id"])["chunk_id"].to_pylist())


def test_a_message_that_goes_after_a_run_died_with_it_leaves_no_ghost(published: Workspace) -> None:
    before = held(published)
    published.day("general", [*GENERAL, NEW])
    die(published, "published")
    assert len(held(published)) == len(before) + 1, "the index has it, and the ledger does not know"
    published.day("general", GENERAL)
    go(published)
    assert held(published) == before and ledger(published) == sorted(before)


def test_an_edit_that_is_taken_back_after_a_run_died_with_it_is_taken_back(published: Workspace) -> None:
    before = held(published)
    published.day("general", [message(0, "An edit that will be taken back"), *GENERAL[1:]])
    die(published, "published")
    assert held(published) != before
    published.day("general", GENERAL)
    go(published)
    assert held(published) == before


def test_a_message_that_comes_back_after_a_run_died_deleting_it_is_there(published: Workspace) -> None:
    before = held(published)
    published.day("general", GENERAL[1:])
    die(published, "published")
    assert len(held(published)) == len(before) - 1
    published.day("general", GENERAL)
    go(published)
    assert held(published) == before


def test_a_file_that_goes_after_a_run_died_reading_it_is_gone(published: Workspace) -> None:
    before = held(published)
    new = published.files / "new.txt"
    new.write_text("A file of one night")
    die(published, "sources", once="chunks")
    new.unlink()
    go(published)
    assert held(published) == before


def test_a_message_in_two_days_survives_a_death_and_the_loss_of_one(published: Workspace) -> None:
    before = held(published)
    published.day("general", [GENERAL[1]], day="2025-03-04")
    die(published, "sources", once="chunks")
    published.day("general", [], day="2025-03-04")
    go(published)
    assert held(published) == before


def test_a_file_written_again_is_in_the_ledger_once_when_only_its_new_time_is_in_the_scope(
    published: Workspace,
) -> None:
    file = published.files / "notes.txt"
    os.utime(file, (START, START))
    go(published)
    before = ledger(published)
    file.write_text("Call the courier at noon.\n")
    assert go(published, Scope(since=(START + 86_400) * 1_000_000)).upserted >= 1
    assert ledger(published) == before
    go(published)
    assert ledger(published) == before == sorted(held(published))


def test_a_file_written_again_stays_when_only_its_old_time_is_in_the_scope(published: Workspace) -> None:
    file = published.files / "notes.txt"
    os.utime(file, (START, START))
    go(published)
    before = ledger(published)
    file.write_text("Call the courier at noon.\n")
    die(published, "index")  # it was read, and not yet published
    assert go(published, MARCH).deleted == 0
    assert ledger(published) == before == sorted(held(published))


@pytest.mark.parametrize("at", range(2, 10))  # ahead of them stands that it has begun
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_purge_that_died_is_finished_by_the_next_run(published: Workspace, at: int, after: bool) -> None:
    death = Death(at, after)
    try:
        purge(open_pipeline(published.config, death), team=TEAM, channel="C1", ids=[], before=None)
    except Killed:
        if not [write for write in death.writes if write.where == "purges" and write.done]:
            assert len(held(published)) == 8, "it had not begun"
            return
    go(published)
    state = State(published.root / "state")
    assert len(held(published)) == len(ledger(published)) == state.count("chunks") == state.count("vectors") == 4
    published.day("general", [*GENERAL, message(60, "said before the purge, and read after it")])
    go(published)
    assert len(held(published)) == 4
    runs = state.read("runs", ["command", "status"]).to_pylist()
    assert {"command": "purge", "status": "ok"} in runs


def test_a_purge_that_is_carried_out_again_spares_what_is_newer(published: Workspace) -> None:
    doc_id = f"{TEAM}/m/C1/{START + 1}.000100"
    purge(open_pipeline(published.config), team=TEAM, channel="", ids=[doc_id], before=None)
    later = message(1, "Written anew after the purge", edited={"user": "U1", "ts": f"{int(time.time()) + 3600}.000000"})
    published.day("general", [GENERAL[0], later, *GENERAL[2:]])
    go(published)
    assert held(published)[f"{doc_id}#0"] == "Written anew after the purge"
    writing(State(published.root / "state")).drop(
        "runs", "true"
    )  # as a rebuilt table: no row says that the purge had ended
    go(published)
    assert held(published)[f"{doc_id}#0"] == "Written anew after the purge"
    assert len(ledger(published)) == State(published.root / "state").count("chunks") == 8
