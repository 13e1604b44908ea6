"""Property: whatever happens to a document, wherever and in whatever order it is read, its newest event decides.

Many random histories are read together, by the real extract on Spark; runs have scopes, and die at their commits.
EMBEDMILL_TEST_HISTORIES asks for more than the few of CI, EMBEDMILL_TEST_SEED for others.
"""

from __future__ import annotations

import os
import random

import pytest

from jobs.scope import Scope
from tests.support.events import Stories
from tests.support.histories import History, newest
from tests.support.in_process import Death, Killed

pytestmark = pytest.mark.usefixtures("small_row_groups")

HISTORIES = int(os.environ.get("EMBEDMILL_TEST_HISTORIES", "40"))
RUNS = int(os.environ.get("EMBEDMILL_TEST_RUNS", "5"))
SEED = int(os.environ.get("EMBEDMILL_TEST_SEED", "1"))


def test_the_newest_event_of_a_document_wins(tmp_path_factory: pytest.TempPathFactory) -> None:
    chance = random.Random(SEED)
    stories = Stories(tmp_path_factory.mktemp("histories") / "ws")
    histories = {f"T{n}": History(random.Random(f"{SEED}/{n}"), faults=n % 3 == 0) for n in range(HISTORIES)}
    for number in range(RUNS):
        for team, history in histories.items():
            history.change()
            stories.tell(team, history.now())
        if number % 3 == 2:  # it dies, and more happens before the next run to those that can be read
            with pytest.raises(Killed):
                stories.read(death=Death(at=chance.randint(1, 6), after=chance.random() < 0.5))
            for team, history in histories.items():
                if not history.faults:
                    history.change()
                    stories.tell(team, history.now())
        seen = list(histories)
        if number % 4 == 3:
            seen = chance.sample(seen, HISTORIES // 2)
            stories.read(Scope(teams=tuple(seen)))
        else:
            stories.read()
        for team in seen:
            histories[team].oracle.run(histories[team].now())
        shown, wrong = stories.shown(), []
        for team, history in histories.items():
            expected = {doc: event.text for doc, event in history.oracle.shown.items()}
            if team in seen and not history.faults:
                assert expected == newest(history.now()), "the oracle itself"
            if shown[team] != expected:
                wrong.append("\n".join([f"{team}: {shown[team]}, and not {expected}", *history.told]))
        assert not wrong, f"seed {SEED}, run {number}: {len(wrong)} stories\n" + "\n\n".join(wrong)
