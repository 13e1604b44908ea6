"""What each event of a document does, wherever it stands: stories told in a few steps, all of them read together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import pytest

from tests.support.events import Partitions, Stories, emptied, gone, nameless, picture, text, torn, unreadable


class Step(NamedTuple):
    """What the partitions hold; which texts are known after a run; reason and number of documents held back."""

    partitions: Partitions
    shown: dict[str, str]
    held: tuple[tuple[str, int], ...] = ()
    since: int = 0  # the step at which the first of them began to be


@dataclass
class Found:
    shown: dict[str, str]
    held: tuple[tuple[str, int], ...]
    since: int = 0
    quarantine: list[tuple[str, str, bool]] = field(default_factory=list)


A, A2, B = text("x", 1, "the lift is broken"), text("x", 3, "the lift is mended"), text("y", 1, "soup today")
LIFT, MENDED, SOUP = {"x": "the lift is broken"}, {"x": "the lift is mended"}, {"y": "soup today"}

STORIES: dict[str, list[Step]] = {
    "a deletion in a later partition takes a document of an earlier one away": [
        Step({"a/1": [A, B]}, LIFT | SOUP),
        Step({"a/1": [A, B], "a/2": [gone("x", 2)]}, SOUP),
    ],
    "a deletion in an earlier partition does so as well": [
        Step({"a/2": [A, B]}, LIFT | SOUP),
        Step({"a/1": [gone("x", 2)], "a/2": [A, B]}, SOUP),
    ],
    "a deletion in another source does so as well": [
        Step({"b/1": [A, B]}, LIFT | SOUP),
        Step({"b/1": [A, B], "a/1": [gone("x", 2)]}, SOUP),
    ],
    "an old row whose partition is read after the deletion does not come back": [
        Step({"a/1": [gone("x", 2)], "a/3": [B]}, SOUP),
        Step({"a/1": [gone("x", 2)], "a/2": [A], "a/3": [B]}, SOUP),
        Step({"a/1": [gone("x", 2)], "a/2": [A, text("z", 1, "ship it")], "a/3": [B]}, SOUP | {"z": "ship it"}),
    ],
    "an edit after the deletion is a return": [
        Step({"a/1": [A, B], "a/2": [gone("x", 2)]}, SOUP),
        Step({"a/1": [A, B], "a/2": [gone("x", 2)], "a/3": [A2]}, MENDED | SOUP),
        Step({"a/1": [A, B], "a/2": [gone("x", 2)]}, SOUP),
    ],
    "a document comes back when the partition with its deletion goes": [
        Step({"a/1": [A, B], "a/2": [gone("x", 2)]}, SOUP),
        Step({"a/1": [A, B]}, LIFT | SOUP),
    ],
    "a document comes back when its deletion is taken back": [
        Step({"a/1": [A, B], "a/2": [gone("x", 2)]}, SOUP),
        Step({"a/1": [A, B], "a/2": [text("z", 1, "ship it")]}, LIFT | SOUP | {"z": "ship it"}),
    ],
    "of one version a deletion wins over a text of a later partition and source": [
        Step({"a/1": [gone("x", 1)], "a/2": [A], "b/2": [A, B]}, SOUP),
    ],
    "of one version an emptied text ranks like a text, by its place": [
        Step({"a/1": [emptied("x", 1)], "a/2": [A], "b/1": [B]}, LIFT | SOUP),
        Step({"a/1": [emptied("x", 1)], "a/2": [A], "b/1": [B, emptied("x", 1)]}, SOUP),
    ],
    "an edit that leaves no text takes the old text away": [
        Step({"a/1": [A, B]}, LIFT | SOUP),
        Step({"a/1": [emptied("x", 2), B]}, SOUP),
        Step({"a/1": [A2, B]}, MENDED | SOUP),
    ],
    "of two events of a document in one partition the newer one counts": [
        Step({"a/1": [A2, A, gone("y", 2), B]}, MENDED),
        Step({"a/1": [A, gone("x", 2), B, text("y", 3, "no soup")]}, {"y": "no soup"}),
    ],
    "a nameless record holds back what went missing as it came, for as long as it is there": [
        Step({"a/1": [A, B]}, LIFT | SOUP),
        Step({"a/1": [A, nameless("?")]}, LIFT | SOUP, (("missing_id", 1),), 2),
        Step({"a/1": [A2, nameless("?")]}, MENDED | SOUP, (("missing_id", 1),), 2),
        Step({"a/1": [A2]}, MENDED),
    ],
    "what goes missing later cannot be a record that was there before": [
        Step({"a/1": [A, B, nameless("?")]}, LIFT | SOUP),
        Step({"a/1": [A, nameless("?")]}, LIFT),
        Step({"a/1": [nameless("?"), text("z", 1, "ship it")]}, {"z": "ship it"}),
    ],
    "of two equal nameless records the second is new": [
        Step({"a/1": [A, B, nameless("?")]}, LIFT | SOUP),
        Step({"a/1": [A, nameless("?"), nameless("?")]}, LIFT | SOUP, (("missing_id", 1),), 2),
    ],
    "a nameless record holds back nothing of other partitions": [
        Step({"a/1": [A], "a/2": [B]}, LIFT | SOUP),
        Step(
            {"a/1": [nameless("?")], "a/2": [text("z", 1, "ship it")]}, LIFT | {"z": "ship it"}, (("missing_id", 1),), 2
        ),
    ],
    "what is held back goes when it is deleted elsewhere": [
        Step({"a/1": [A, B]}, LIFT | SOUP),
        Step({"a/1": [A, nameless("?")]}, LIFT | SOUP, (("missing_id", 1),), 2),
        Step({"a/1": [A, nameless("?")], "a/2": [gone("y", 2)]}, LIFT),
    ],
    "a document whose own record cannot be read keeps its text, and no other does": [
        Step({"a/1": [A, B]}, LIFT | SOUP),
        Step({"a/1": [unreadable("x")]}, LIFT, (("bad_created_at", 1),), 2),
        Step({"a/1": [text("z", 1, "ship it")]}, {"z": "ship it"}),
    ],
    "a document that cannot be read goes by a newer deletion, not by an older one": [
        Step({"a/1": [A2, B]}, MENDED | SOUP),
        Step({"a/1": [unreadable("x"), B], "a/2": [gone("x", 2)]}, MENDED | SOUP, (("bad_created_at", 1),), 2),
        Step({"a/1": [unreadable("x"), B], "a/2": [gone("x", 4)]}, SOUP),
    ],
    "a document that cannot be read and moves to another partition goes with that one": [
        Step({"a/1": [A, B]}, LIFT | SOUP),
        Step({"a/2": [unreadable("x"), B]}, LIFT | SOUP),
        Step({"a/3": [B]}, SOUP),
    ],
    "a partition that is cut off keeps all it had": [
        Step({"a/1": [A, B]}, LIFT | SOUP),
        Step({"a/1": [A2, torn()]}, MENDED | SOUP, (("cut_off", 1),), 2),
        Step({"a/1": [torn()]}, MENDED | SOUP, (("cut_off", 2),), 2),
        Step({"a/1": [A2]}, MENDED),
    ],
    "a record of no use protects nothing": [
        Step({"a/1": [A], "a/2": [B]}, LIFT | SOUP),
        Step({"a/1": [picture()], "a/2": [B]}, SOUP),
    ],
    "another text of the same version wins by its place, and the loser is reported": [
        Step({"a/1": [A]}, LIFT),
        Step({"a/1": [A], "a/2": [text("x", 1, "the lift is gone")]}, {"x": "the lift is gone"}),
        Step({"a/2": [text("x", 1, "the lift is gone")]}, {"x": "the lift is gone"}),
    ],
}


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Found]]:
    """What was known after each step of each story."""
    stories = Stories(tmp_path_factory.mktemp("events") / "ws")
    found: dict[str, list[Found]] = {name: [] for name in STORIES}
    ids = {name: f"T{number}" for number, name in enumerate(STORIES)}
    for number in range(max(map(len, STORIES.values()))):
        for name, steps in STORIES.items():
            if number < len(steps):
                stories.tell(ids[name], steps[number].partitions)
        stories.read()
        shown, held, quarantine = stories.shown(), stories.held(), stories.quarantine()
        for name, story in ids.items():
            counts = tuple((one.reason, one.documents) for one in held[story])
            since = min((one.since // 1_000_000 for one in held[story]), default=0)
            found[name].append(Found(shown[story], counts, since, quarantine[story]))
    return found


@pytest.mark.parametrize("name", STORIES)
def test_story(name: str, told: dict[str, list[Found]]) -> None:
    for number, (step, found) in enumerate(zip(STORIES[name], told[name], strict=False), 1):
        assert found.shown == step.shown, f"step {number}"
        assert (found.held, found.since) == (step.held, step.since), f"step {number}"


def test_what_loses_is_in_quarantine_until_it_is_gone(told: dict[str, list[Found]]) -> None:
    steps = told["another text of the same version wins by its place, and the loser is reported"]
    assert [step.quarantine for step in steps[:3]] == [[], [("1", "duplicate_document", False)], []]


def test_what_is_of_no_use_is_a_class_of_its_own(told: dict[str, list[Found]]) -> None:
    [_, step, *_] = told["a record of no use protects nothing"]
    assert step.quarantine == [("1", "unsupported_type", True)]
