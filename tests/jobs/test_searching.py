"""Searches with the configuration's own settings: what they find by words, names, time, thread and conversation."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from embedding.errors import ConfigError
from embedding.ids import message_id
from jobs.commands.run import run
from jobs.commands.search import search
from jobs.known_names import author_ids, check_search, language_codes, mentioned_ids
from jobs.scope import Scope
from jobs.search.searcher import Query
from tests.support.in_process import open_pipeline, without_ray
from tests.support.workspace import START, TEAM, TEXT, Workspace, message

ROOT_ID = message_id(TEAM, "C1", f"{START}.000100")


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A public and a private channel, two people, a thread, and a file; indexed once for all tests here."""
    workspace = Workspace(tmp_path_factory.mktemp("searching") / "ws")
    config = workspace.config.read_text().replace(TEXT, "")
    workspace.config.write_text(
        config.replace('uri = "export"', 'uri = "export"\npermalink = "https://a/{channel_id}/p{ts}"')
    )
    people = [("U1", "Ada"), ("U2", "Grace")]
    workspace.write_json("users.json", [{"id": i, "name": n, "profile": {"display_name": n}} for i, n in people])
    workspace.write_json("groups.json", [{"id": "G1", "name": "board"}])
    shutil.rmtree(workspace.export / "random")
    workspace.channels({"C1": "general"})
    workspace.day(
        "general",
        [
            message(0, "Does anyone have the key of the boathouse?"),
            message(1, "It hangs behind the door", user="U2", thread_ts=f"{START}.000100"),
            message(20_000, "Heute gibt es wieder Suppe", files=[{"id": "F1"}]),
        ],
    )
    workspace.day("general", [message(86_400, "The regatta is on Saturday, <@U1>", user="U2")], "2025-03-04")
    workspace.day("board", [message(5, "The boathouse will be sold")])
    with without_ray():
        run(open_pipeline(workspace.config), Scope())
        yield workspace


def found(space: Workspace, text: str, **asked: Any) -> list[str]:
    asked = {"mode": "hybrid"} | asked
    return [hit.text for hit in search(open_pipeline(space.config), Query(text, TEAM, **asked)).hits]


def test_messages_and_files_are_found_and_no_conversation_itself(space: Workspace) -> None:
    body = search(open_pipeline(space.config), Query("boathouse key", TEAM, mode="hybrid", k=20))
    assert {hit.kind for hit in body.hits} == {"message", "file"}
    assert len(body.hits) == 7
    assert body.hits[0].text == "Does anyone have the key of the boathouse?"
    assert (body.hits[0].author, body.hits[0].channel_name, body.hits[0].visibility) == ("Ada", "general", "public")
    assert body.words


def test_an_answer_without_a_word_of_the_question_is_found_by_its_conversation(space: Workspace) -> None:
    """It shares no word with the question, and its thread does."""
    assert "It hangs behind the door" in found(space, "key of the boathouse", k=3)
    assert "It hangs behind the door" not in found(space, "key of the boathouse", k=3, mode="lexical")


def test_who_wrote_it_is_matched_by_words(space: Workspace) -> None:
    assert set(found(space, "Grace", mode="lexical")) == {
        "It hangs behind the door",
        "The regatta is on Saturday, @Ada",
    }


def test_the_day_is_matched_by_words(space: Workspace) -> None:
    assert found(space, "4 March 2025", mode="lexical", k=1) == ["The regatta is on Saturday, @Ada"]


@pytest.mark.parametrize(
    ("asked", "texts"),
    [
        ({"authors": ("U2",)}, {"It hangs behind the door", "The regatta is on Saturday, @Ada"}),
        ({"thread_id": ROOT_ID}, {"It hangs behind the door"}),
        ({"channels": ("G1",)}, {"The boathouse will be sold"}),
        ({"since": (START + 86_400) * 1_000_000, "kind": "message"}, {"The regatta is on Saturday, @Ada"}),
        ({"until": (START + 1) * 1_000_000, "kind": "message"}, {"Does anyone have the key of the boathouse?"}),
        ({"mentions": ("U1",)}, {"The regatta is on Saturday, @Ada"}),
        ({"has_file": True}, {"Heute gibt es wieder Suppe"}),
        ({"languages": ("de",)}, {"Heute gibt es wieder Suppe"}),
    ],
    ids=["from", "thread", "in", "since", "until", "mentions", "has-file", "language"],
)
@pytest.mark.parametrize("mode", ["dense", "hybrid"])
def test_filters_hold_in_every_mode(space: Workspace, mode: str, asked: dict[str, Any], texts: set[str]) -> None:
    assert set(found(space, "boathouse", k=20, mode=mode, **asked)) == texts


def test_a_hybrid_search_asks_for_four_lists_and_nothing_else(
    space: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the version has words is known from its description."""
    asked: list[str] = []
    pipeline = open_pipeline(space.config)
    kind = type(pipeline.index())
    for name in ("search", "match"):
        real = getattr(kind, name)

        def watched(index: Any, *given: Any, _real: Any = real, _name: str = name) -> Any:
            asked.append(_name)
            return _real(index, *given)

        monkeypatch.setattr(kind, name, watched)
    search(pipeline, Query("boathouse", TEAM, mode="hybrid"))
    assert sorted(asked) == ["match", "match", "search", "search"]


def test_what_is_public_or_mine_names_no_public_channel(space: Workspace) -> None:
    public = set(found(space, "boathouse", k=20, public=True, kind="message"))
    assert "The boathouse will be sold" not in public
    assert len(public) == 4
    assert set(found(space, "boathouse", k=20, public=True, channels=("G1",), kind="message")) == {
        *public,
        "The boathouse will be sold",
    }


def test_authors_are_named_by_id_or_by_name(space: Workspace) -> None:
    pipeline = open_pipeline(space.config)
    assert author_ids(pipeline, TEAM, ["grace", "U1"]) == ("U1", "U2")
    with pytest.raises(ConfigError, match="--from: no author 'Alan' in team T01; there are Ada, Grace"):
        author_ids(pipeline, TEAM, ["Alan"])


def test_people_who_are_named_are_given_by_id_or_by_name(space: Workspace) -> None:
    pipeline = open_pipeline(space.config)
    assert mentioned_ids(pipeline, TEAM, ["ada"]) == mentioned_ids(pipeline, TEAM, ["U1"]) == ("U1",)
    with pytest.raises(ConfigError, match="--mentions: no text of team T01 names 'Grace'; texts name Ada"):
        mentioned_ids(pipeline, TEAM, ["Grace"])


def test_a_language_is_given_by_its_code_and_one_that_no_text_is_in_is_refused(space: Workspace) -> None:
    pipeline = open_pipeline(space.config)
    assert language_codes(["pt-BR", "DE", "de"]) == ("de", "pt")
    with pytest.raises(ConfigError, match="--language: 'german' is no ISO 639-1 code; give one of two letters, as de"):
        language_codes(["de", "german"])
    check_search(pipeline, TEAM, (), ("de", "nl"))
    with pytest.raises(ConfigError, match="--language: team 'T01' has no text in fr, nl; there are de, en"):
        check_search(pipeline, TEAM, (), ("fr", "nl"))


def test_a_hit_says_where_it_is_whom_it_names_and_whether_a_file_came_with_it(space: Workspace) -> None:
    pipeline = open_pipeline(space.config)
    hits = {hit.text: hit for hit in search(pipeline, Query("boathouse", TEAM, mode="hybrid", k=20)).hits}
    regatta, lunch = hits["The regatta is on Saturday, @Ada"], hits["Heute gibt es wieder Suppe"]
    assert (regatta.mentions, regatta.has_file) == (("U1",), False)
    assert regatta.permalink == f"https://a/C1/p{START + 86_400}000100"
    assert (lunch.mentions, lunch.has_file) == ((), True)
    assert (regatta.language, lunch.language) == ("en", "de")
    assert hits["It hangs behind the door"].permalink.endswith(f"?thread_ts={START}.000100&cid=C1")
    assert {hit.permalink for hit in hits.values() if hit.kind == "file"} == {"handbook.md", "notes.txt"}


def test_a_file_that_comes_later_changes_its_row_and_encodes_nothing(space: Workspace) -> None:
    """The last test here: it changes the workspace."""
    workspace, pipeline = space, open_pipeline(space.config)
    workspace.day("board", [message(5, "The boathouse will be sold", files=[{"id": "F2"}])])
    report = run(pipeline, Scope()).body()
    assert (report.chunks.embedded, report.chunks.reused, report.chunks.updated) == (0, 0, 2), "and its conversation's"
    assert "The boathouse will be sold" in found(space, "boathouse", has_file=True)
