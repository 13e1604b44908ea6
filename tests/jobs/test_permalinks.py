"""Addresses of hits by the ``permalink`` of their source."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from embedding import ids
from indexers.base import Hit
from jobs.config_sources import FilesSource, SlackExportSource, SourceSection, TableSource
from jobs.search.permalinks import Permalinks

ARCHIVES = "https://acme.slack.com/archives/{channel_id}/p{ts}"
SHARE = "https://files.example.com/{team_id}/{path}"


def slack(permalink: str | None = ARCHIVES, team: str = "T1", uri: str = "export") -> SlackExportSource:
    return SlackExportSource(kind="slack_export", uri=uri, team_id=team, permalink=permalink)


def files(permalink: str | None, uri: str = "files", id: str | None = None) -> FilesSource:
    return FilesSource(kind="files", uri=uri, team_id="T1", permalink=permalink, id=id)


def rows(permalink: str) -> TableSource:
    columns = {"id": "id", "text": "body", "created_at": "at", "team_id": "team"}
    return TableSource.model_validate({"kind": "table", "uri": "rows", "permalink": permalink, "columns": columns})


def hit(doc_id: str, *, channel: str = "C1", thread: str = "", team: str = "T1") -> Hit:
    return Hit(f"{doc_id}#0", 1.0, team, channel, "general", "message", doc_id, "text", 0, "{}", thread_id=thread)


def test_a_message_is_addressed_as_slack_does() -> None:
    root, reply = (ids.message_id("T1", "C1", f"1740960000.00010{n}") for n in (0, 1))
    links = Permalinks([slack()])
    assert links.of(hit(root)) == "https://acme.slack.com/archives/C1/p1740960000000100"
    assert (
        links.of(hit(reply, thread=root))
        == "https://acme.slack.com/archives/C1/p1740960000000101?thread_ts=1740960000.000100&cid=C1"
    )
    assert Permalinks([slack("https://mirror/{ts}")]).of(hit(reply, thread=root)) == "https://mirror/1740960000000101"


@pytest.mark.parametrize(
    ("sources", "address"),
    [
        ([files(None)], "a plan/Q3 ü.pdf"),
        ([files(SHARE)], "https://files.example.com/T1/a%20plan/Q3%20%C3%BC.pdf"),
        ([slack()], "a plan/Q3 ü.pdf"),
    ],
    ids=["its path without a template", "encoded", "a source that is configured no more"],
)
def test_a_file_is_addressed_by_its_path(sources: list[SourceSection], address: str) -> None:
    assert Permalinks(sources).of(hit(ids.file_id("T1", "a plan/Q3 ü.pdf"), channel="")) == address


def test_the_second_folder_of_a_team_has_its_own_address() -> None:
    links = Permalinks([files("https://one/{path}"), files("https://two/{path}", "more", "more")])
    assert links.of(hit(ids.file_id("T1", "a.md"))) == "https://one/a.md"
    assert links.of(hit(ids.file_id("T1", "a.md", "more"))) == "https://two/a.md"


def test_a_row_is_addressed_by_its_id() -> None:
    assert Permalinks([rows("https://desk/{team_id}/{id}")]).of(hit(ids.row_id("T9", "7/8"), team="T9")) == (
        "https://desk/T9/7%2F8"
    )


def test_each_team_has_the_address_of_its_own_source() -> None:
    links = Permalinks([slack(team="T2"), slack(None, uri="old"), slack("https://b/{ts}", uri="new")])
    assert links.of(hit(ids.message_id("T1", "C1", "1.5"))) == "https://b/15"
    assert links.of(hit(ids.message_id("T3", "C1", "1.5"), team="T3")) == ""


@pytest.mark.parametrize(
    "doc_id",
    [ids.message_id("T1", "C1", "1.5"), ids.row_id("T1", "x"), "T1/n/note", ids.row_id("T1", "x" * 500)],
    ids=["message", "row", "of another kind of source", "cut"],
)
def test_what_no_source_addresses_has_none(doc_id: str) -> None:
    assert Permalinks([files(SHARE)]).of(hit(doc_id)) == ""


def test_an_id_that_was_cut_has_no_address() -> None:
    assert Permalinks([rows("https://desk/{id}")]).of(hit(ids.row_id("T1", "x" * 500))) == ""
    assert Permalinks([files(None)]).of(hit(ids.file_id("T1", f"{'x' * 500}.md"))) == ""


def test_a_field_that_a_source_does_not_have_is_refused() -> None:
    with pytest.raises(
        ValidationError, match=r"\{path\} is no field of it; there are \{team_id\}, \{channel_id\}, \{ts\}"
    ):
        slack("https://acme/{path}")
