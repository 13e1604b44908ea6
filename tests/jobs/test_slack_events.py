"""Whatever happened to a message, and in whatever order the records of a day stand: its newest event wins."""

from __future__ import annotations

import json
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding import ids
from embedding.records import Document, Removed, Skipped
from jobs.sources.slack_events import CALLS, CONTENT, DELETIONS, HOUSEKEEPING
from jobs.sources.slack_export_parser import Channel, read_day

START = 1_740_960_000


class Happened(NamedTuple):
    """Something that happened to a message, some seconds after it was written."""

    message: int
    after: int
    what: str

    @property
    def ts(self) -> str:
        return f"{START + 1000 * self.message}.000100"

    @property
    def at(self) -> str:
        return f"{START + 1000 * self.message + self.after}.000100"

    @property
    def version(self) -> int:
        return int(self.at.replace(".", ""))

    def record(self, text: str) -> dict[str, object]:
        """The record that an export has of it."""
        if self.what == "deleted":
            return {"ts": self.at, "subtype": "message_deleted", "hidden": True, "deleted_ts": self.ts}
        if self.what == "tombstone":
            return {"ts": self.ts, "subtype": "tombstone", "edited": {"ts": self.at}}
        said: dict[str, object] = {"ts": self.ts, "user": "U1", "text": "" if self.what == "emptied" else text}
        if self.what == "changed" and self.after:
            return {"ts": self.at, "subtype": "message_changed", "hidden": True, "message": said}
        return said | ({"edited": {"user": "U1", "ts": self.at}} if self.after else {})


HISTORIES = st.lists(
    st.builds(
        Happened,
        st.integers(0, 2),
        st.integers(0, 3),
        st.sampled_from(["said", "changed", "emptied", "deleted", "tombstone"]),
    ),
    max_size=10,
)


@settings(max_examples=300)
@given(HISTORIES)
def test_the_newest_event_of_a_message_wins(history: list[Happened]) -> None:
    data = json.dumps([event.record(f"text {place}") for place, event in enumerate(history)]).encode()
    outcomes = list(read_day(data, team_id="T", channel=Channel("C", "general"), names={}))
    assert len(outcomes) == len(history)
    for message in {event.message for event in history}:
        of_it = [place for place, event in enumerate(history) if event.message == message]
        # The oracle: the latest; of two at one time a deletion, then what stands last.
        newest = max(of_it, key=lambda p: (history[p].version, history[p].what in ("deleted", "tombstone"), p))
        event, outcome = history[newest], outcomes[newest]
        assert isinstance(outcome, Document | Removed)
        assert (outcome.doc_id, outcome.version) == (ids.message_id("T", "C", event.ts), event.version)
        if isinstance(outcome, Document):
            assert event.what in ("said", "changed") and outcome.text == f"text {newest}"
        else:
            assert (outcome.reason, outcome.deleted) == (
                ("empty_text", False) if event.what == "emptied" else ("deleted", True)
            )
        for place in of_it:
            replaced = outcomes[place]
            if place != newest and not isinstance(replaced, Skipped):
                # Two texts at one time are a fault of the export, which is told; the last stays.
                assert getattr(replaced, "reason", "") == "duplicate_ts" and isinstance(outcome, Document)


def test_no_subtype_is_in_two_lists() -> None:
    lists = (CONTENT, HOUSEKEEPING, CALLS, DELETIONS)
    assert sum(map(len, lists)) == len(frozenset().union(*lists))


@pytest.mark.parametrize("subtype", sorted(HOUSEKEEPING))
def test_a_notice_is_none_of_the_documents(subtype: str) -> None:
    notice = {"ts": f"{START}.000100", "subtype": subtype, "user": "U1", "text": "<@U1> did something"}
    data = json.dumps([notice]).encode()
    assert list(read_day(data, team_id="T", channel=Channel("C", "general"), names={})) == [Skipped("housekeeping")]
