"""Verify against the sources themselves: what tables and index agree on, and no source shows.

A row is planted, or taken away, in texts, ledger and index alike, as if a run had believed it: the other checks see
nothing then.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from embedding import ids
from embedding.errors import MassDeleteError
from embedding.records import Document, Kind, Record, Rejected, Removed
from jobs.bodies.answers import VerifyBody
from jobs.commands.run import run
from jobs.commands.verify import verify
from jobs.extract.changes import Extraction
from jobs.scope import Scope
from jobs.sources import open_sources
from jobs.sources.base import Listing, Partition
from jobs.verify.source_check import Event, Shown, choose, differing, read_again
from tests.support.in_process import WatchedIndex, copied_with_index, open_pipeline, without_ray
from tests.support.workspace import TEAM, TEXTS, Workspace, message, writing

V1 = "messages__v1"
SAID = f"{TEAM}/m/C1/1740960000.000100"
PLANTED = f"{TEAM}/m/C1/1740960777.000100"


@pytest.fixture(scope="module")
def _once(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    space = Workspace(tmp_path_factory.mktemp("sound") / "ws")
    with without_ray():
        go(space)
    return space


@pytest.fixture
def sound(tmp_path: Path, _once: Workspace) -> Iterator[Workspace]:
    """A workspace whose index is what its sources show."""
    space = copied_with_index(_once, tmp_path / "ws")
    with without_ray():
        yield space


def go(space: Workspace) -> Any:
    return run(open_pipeline(space.config), Scope(), allow_mass_delete=True)


def check(space: Workspace, scope: Scope | None = None, **options: Any) -> VerifyBody:
    return verify(open_pipeline(space.config), scope or Scope(), **options)


def found(body: VerifyBody) -> dict[str, int]:
    return {kind: count for kind, count in body.differences.items() if count}


def texts(space: Workspace) -> dict[str, str]:
    index = open_pipeline(space.config).index()
    assert isinstance(index, WatchedIndex)
    return {key: row["text"] for key, row in index._store.versions[V1].rows.items()}


def plant(
    space: Workspace, document: str, text: str | None, like: str = SAID, version: int | None = None, **owner: str
) -> None:
    """Make texts, ledger and index say that a document has this text, or with None that there is no such document."""
    pipeline = open_pipeline(space.config)
    index, state = pipeline.index(), writing(pipeline.state)
    assert isinstance(index, WatchedIndex)
    held = index._store.versions[V1]
    key = f"{document}#0"
    if text is None:
        for name in ("chunks", "published"):
            state.drop(name, f"chunk_id = '{key}'")
        del held.rows[key], held.vectors[key]
        return
    changes: dict[str, Any] = {"chunk_id": key, "content_hash": ids.content_hash(state.hash_key, TEAM, text)}
    more = {"doc_id": document, "text": text, **({} if version is None else {"version": version})}
    for name in ("chunks", "published"):
        [row] = [r for r in state.read(name).to_pylist() if r["chunk_id"] == f"{like}#0"]
        given = changes | ({**more, **owner} if name == "chunks" else {})
        state.change(name, [row | given | {"_delete": False}])
    held.rows[key] = held.rows[f"{like}#0"] | changes | more
    held.vectors[key] = held.vectors[f"{like}#0"]


def test_a_row_that_no_source_shows_is_seen_and_removed(sound: Workspace) -> None:
    body = check(sound)
    assert (body.status, found(body), body.sampled_source_partitions) == ("ok", {}, 4), "all, of so few"
    assert body.held_back == () and body.source_partitions_marked == 0
    plant(sound, PLANTED, "what no source shows", version=1 << 60)
    assert check(sound, Scope(channels=("C2",))).status == "ok", "it is outside the scope"
    body = check(sound, Scope(channels=("C1",)))
    assert (body.status, found(body), body.examples) == ("differs", {"source": 1}, (f"{PLANTED}#0",))
    mended = check(sound, repair=True)
    assert (mended.status, mended.repaired, mended.source_partitions_marked) == ("repaired", 1, 1)
    assert f"{PLANTED}#0" not in texts(sound)
    assert go(sound).extracted.opened == 1, "its partition is read anew"
    assert check(sound).status == "ok" and len(texts(sound)) == 8


def test_a_row_of_a_partition_that_nobody_knows_is_seen_and_removed(sound: Workspace) -> None:
    """No run can find it gone: a run looks for partitions that ``sources`` has and the listing has not."""
    plant(sound, PLANTED, "what no source shows", partition="C1/2025-03-09")
    plant(sound, f"{TEAM}/f/gone.txt", "of a source that was taken out", source_id="files-elsewhere")
    go(sound)
    body = check(sound)
    assert (body.status, found(body), body.examples) == ("differs", {"source": 1}, (f"{PLANTED}#0",))
    assert check(sound, repair=True).status == "repaired" and f"{PLANTED}#0" not in texts(sound)
    assert check(sound).status == "ok"
    plant(sound, PLANTED, "what no source shows", partition="C1/2025-03-09")
    (sound.export / "general" / "2025-03-09.json").symlink_to("/etc/hostname")
    assert check(sound).status == "ok", "it may be there"


def test_what_its_source_has_otherwise_is_seen_and_mended_by_the_next_run(sound: Workspace) -> None:
    plant(sound, SAID, "an older text of it")
    plant(sound, f"{TEAM}/m/C2/1740960000.000100", None)
    assert found(check(sound)) == {"source": 2}
    marked = check(sound, repair=True)
    assert (marked.status, marked.repaired, marked.source_partitions_marked) == ("differs", 0, 2)
    go(sound)
    assert set(TEXTS) <= set(texts(sound).values()) and check(sound).status == "ok"


def test_a_deletion_that_was_passed_over_is_seen(sound: Workspace) -> None:
    """Its event stands in a day file of its own; tables and index are as if it had not been read."""
    deletion = {"type": "message", "subtype": "message_deleted", "deleted_ts": SAID.rpartition("/")[2]}
    event = deletion | {"ts": "1740999999.000100", "channel": "C1"}
    sound.day("general", [event, message(40, "said on that day")], day="2025-03-04")
    go(sound)
    assert f"{SAID}#0" not in texts(sound)
    plant(sound, SAID, "said again by a mistake", like=f"{TEAM}/m/C1/1740960001.000100")
    assert found(check(sound)) == {"source": 1}
    assert check(sound, repair=True).status == "repaired" and f"{SAID}#0" not in texts(sound)


def test_what_changed_or_cannot_be_read_is_no_difference(sound: Workspace) -> None:
    plant(sound, PLANTED, "what no source shows")
    sound.day("general", [message(n, text) for n, text in enumerate(TEXTS[:3])])
    body = check(sound)
    assert (body.status, body.source_partitions_changed, body.sampled_source_partitions) == ("ok", 1, 3)
    (sound.export / "general" / "2025-03-03.json").write_text("not json")
    go(sound)
    body = check(sound)
    assert found(body) == {} and [one.partition for one in body.held_back] == ["C1/2025-03-03"]


def test_a_repair_passes_the_guard_of_a_run(sound: Workspace) -> None:
    """The rows that a refused run would have deleted are not deleted by a repair either."""
    sound.config.write_text(sound.config.read_text() + "[limits]\nmax_delete_rows = 2\nmax_delete_fraction = 0.3\n")
    sound.day("general", [message(0, TEXTS[0])])
    before = texts(sound)
    with pytest.raises(MassDeleteError):
        run(open_pipeline(sound.config), Scope())
    with pytest.raises(MassDeleteError):
        check(sound, repair=True)
    assert texts(sound) == before and found(check(sound)) == {"undesired": 3}
    assert check(sound, repair=True, allow_mass_delete=True).repaired == 3 and len(texts(sound)) == 5


def test_partitions_of_sampled_rows_come_first_and_the_others_in_turn(
    sound: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = open_pipeline(sound.config)
    sources = open_sources(pipeline.config)

    def chosen(turn: str, *wanted: str) -> list[str]:
        first = {(sources[0].source_id, key) for key in wanted}
        extraction = Extraction(pipeline.state, sources, pipeline.chunking(), Scope(), turn, now=0)
        return [p.key for _, p in choose(extraction, first)]

    assert len(chosen("one")) == 4
    monkeypatch.setattr("jobs.verify.source_check.PARTITIONS", 1)
    assert {key for n in range(40) for key in chosen(str(n))} == {
        "C1/2025-03-03",
        "C2/2025-03-03",
        "handbook.md",
        "notes.txt",
    }
    assert all(chosen(str(n), "C2/2025-03-03") == ["C2/2025-03-03"] for n in range(5))
    monkeypatch.setattr("jobs.verify.source_check.BYTES", 0)
    assert chosen("one") == []


class Telling:
    """A source of one partition that says what it is given."""

    source_id = "told"
    team_id: str | None = TEAM
    kind: Kind = "message"
    reader = "told:1"
    names: Mapping[str, str] = {}

    def __init__(self, *records: Record) -> None:
        self.records = records

    def listing(self) -> Listing:
        return Listing((Partition("day", "", "", 1),), (), True)

    def read(self, partition: Partition) -> Iterator[Record]:
        yield from self.records

    def isolation_limits(self, partition: Partition) -> None:
        return None


def test_what_a_partition_says_is_read_as_events(sound: Workspace) -> None:
    text = Document(f"{TEAM}/m/C1/1", TEAM, "C1", "general", "message", 1, 2, 2, "said and edited")
    ended = Removed(f"{TEAM}/m/C1/2", TEAM, "C1", "message", 1, 9, "deleted")
    emptied = Removed(f"{TEAM}/m/C1/3", TEAM, "C1", "message", 1, 7, "empty_text", deleted=False)
    unread = [Rejected("4", "torn", doc_id=f"{TEAM}/m/C1/4"), Rejected("a picture", "image", ignored=True)]
    pipeline, at = open_pipeline(sound.config), ("told", "day")

    def told(*records: Record) -> Shown:
        extraction = Extraction(pipeline.state, [Telling(*records)], pipeline.chunking(), Scope(), "run", now=0)
        return read_again(extraction, [(0, Partition("day", "", "", 1))])

    shown = told(text, ended, emptied, *unread)
    content = ids.content_hash(pipeline.state.hash_key, TEAM, "said and edited")
    assert {
        doc: [(e.version, e.deleted, dict(e.chunks), e.at) for e in events] for doc, events in shown.events.items()
    } == {
        text.doc_id: [(2, False, {f"{text.doc_id}#0": content}, at)],
        ended.doc_id: [(9, True, {}, at)],
        emptied.doc_id: [(7, False, {}, at)],
    }
    assert (shown.unreadable, shown.open) == ({f"{TEAM}/m/C1/4"}, set())
    assert told(text, Rejected("5", "torn")).open == {at}, "it may be any document"


# -- the comparison by itself ------------------------------------------------------------------------------------------

P, Q = ("export", "C1/2025-03-03"), ("export", "C1/2025-03-04")


def said(at: tuple[str, str], version: int, text: str = "", *, deleted: bool = False) -> Event:
    return Event(version, 0, at, deleted, {"d#0": text} if text else {})


@pytest.mark.parametrize(
    ("shown", "stored", "indexed", "differs"),
    [
        ([said(P, 1, "a")], [said(P, 1, "a")], "a", False),
        ([said(P, 1, "a")], [said(P, 1, "b")], "b", True),
        ([said(P, 1, "a")], [said(P, 1, "b")], "a", False),  # the index is right, and what is not is seen without this
        ([said(P, 1, "a")], [], "", True),
        ([], [said(P, 1, "a")], "a", True),
        ([], [said(P, 1, "a")], "", False),
        ([], [said(Q, 1, "a")], "a", False),
        ([said(P, 1, "a")], [said(Q, 2, "b")], "b", False),
        ([said(P, 1, "a")], [said(Q, 1, "b")], "b", False),  # the later partition
        ([said(P, 2, "a")], [said(Q, 1, "b")], "b", True),
        ([said(P, 1, "a"), said(P, 2)], [said(P, 1, "a")], "a", True),
        ([said(P, 1, "a"), said(P, 1, deleted=True)], [said(P, 1, "a")], "a", True),
        ([said(P, 1, "a")], [said(P, 1, "a"), said(Q, 2, deleted=True)], "a", True),
        ([said(P, 3, "a")], [said(P, 3, "a"), said(Q, 2, deleted=True)], "a", False),
        ([said(P, 1, deleted=True)], [], "", False),
    ],
)
def test_the_newest_event_of_a_document_counts(
    shown: list[Event], stored: list[Event], indexed: str, differs: bool
) -> None:
    answer = list(
        differing(Shown({"d": shown} if shown else {}), {"d": stored}, {"d": {"d#0": indexed} if indexed else {}}, {P})
    )
    assert bool(answer) is differs


def test_nothing_follows_from_what_could_not_be_read() -> None:
    stored = {"d": [said(P, 1, "a")]}
    assert not list(differing(Shown(unreadable={"d"}), stored, {"d": {"d#0": "a"}}, {P}))
    assert not list(differing(Shown(open={P}), stored, {"d": {"d#0": "a"}}, {P}))
    gone = Shown({"d": [said(P, 2, deleted=True)]}, open={P})
    assert list(differing(gone, stored, {"d": {"d#0": "a"}}, {P})), "what was read of it counts"
