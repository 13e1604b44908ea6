"""A source is known by its own id, and two sources of a team never share a document by accident."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from urllib.parse import unquote

import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding import ids, parsers
from embedding.errors import ConfigError, RejectedRecord
from embedding.records import Document, Record, Rejected, Skipped
from jobs.config import load_config
from jobs.sources import identity, open_sources, qualifiers
from jobs.sources.base import ReadLimits, SourceContext
from jobs.sources.files import FilesSource
from jobs.state.store import State
from tests.support.workspace import TEAM, Workspace, counts

pytestmark = pytest.mark.usefixtures("encoder_here")

FILES = '[[sources]]\nkind = "files"\nuri = "{uri}"\nteam_id = "{team}"\n'
TABLE = '[[sources]]\nkind = "table"\nuri = "{uri}"\nformat = "json"\n{more}[sources.columns]\nid = "i"\ntext = "t"\ncreated_at = "c"\n'
EXPORT = '[[sources]]\nkind = "slack_export"\nuri = "{uri}"\nteam_id = "T01"\n'


# -- ids ---------------------------------------------------------------------------------------------------------------

names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0/"), min_size=1, max_size=12)
paths = st.lists(names, min_size=1, max_size=3).map("/".join)
qualifying = st.from_regex(r"[A-Za-z0-9_.-]{1,12}", fullmatch=True)


@given(paths, paths, qualifying)
def test_qualified_id_is_never_that_of_a_path_or_a_row(one: str, other: str, qualifier: str) -> None:
    assert ids.file_id(TEAM, one, qualifier) != ids.file_id(TEAM, other)
    assert ids.row_id(TEAM, one, qualifier) != ids.row_id(TEAM, other)
    tricky = f"@{qualifier}/{one}"
    assert ids.file_id(TEAM, one, qualifier) != ids.file_id(TEAM, tricky)
    assert unquote(ids.file_id(TEAM, one, qualifier)).endswith(tricky)


@given(st.tuples(paths, qualifying), st.tuples(paths, qualifying))
def test_two_qualified_ids_are_equal_only_where_all_is(one: tuple[str, str], other: tuple[str, str]) -> None:
    assert (ids.file_id(TEAM, *one) == ids.file_id(TEAM, *other)) == (one == other)
    assert (ids.row_id(TEAM, *one) == ids.row_id(TEAM, *other)) == (one == other)


# -- configuration -----------------------------------------------------------------------------------------------------


def written(folder: Path, *sources: str) -> Path:
    for name in ("a", "b", "c"):
        (folder / name).mkdir(exist_ok=True)
    file = folder / "embedmill.toml"
    file.write_text("".join(sources))
    return file


def test_the_first_of_a_team_has_plain_ids_and_each_that_follows_its_own_name(tmp_path: Path) -> None:
    config = load_config(
        written(
            tmp_path,
            FILES.format(uri="a", team="T1"),
            FILES.format(uri="a", team="T2"),
            FILES.format(uri="b", team="T1"),
            FILES.format(uri="c", team="T1") + 'id = "handbooks"\n',
            TABLE.format(uri="a", more='team_id = "T1"\n'),
            TABLE.format(uri="b", more='team_id = "T2"\n'),
            TABLE.format(uri="c", more='id = "every-team"\n').replace('id = "i"', 'id = "i"\nteam_id = "w"'),
            TABLE.format(uri="c", more='team_id = "T2"\n'),
            EXPORT.format(uri="a"),
            EXPORT.format(uri="b"),
        )
    )
    third, last = identity(config.sources[2]), identity(config.sources[7])
    assert qualifiers(config.sources) == ["", "", third, "handbooks", "", "", "every-team", last, "", ""]
    assert len({source.source_id for source in open_sources(config)}) == 10


def test_an_id_is_the_source_whatever_its_uri_is(tmp_path: Path) -> None:
    named = FILES + 'id = "docs"\n'
    [one] = load_config(written(tmp_path, named.format(uri="a", team="T1"))).sources
    [other] = load_config(written(tmp_path, named.format(uri="b", team="T1"))).sources
    [team] = load_config(written(tmp_path, named.format(uri="a", team="T2"))).sources
    [plain] = load_config(written(tmp_path, FILES.format(uri="docs", team="T1").replace('"docs"', '"a"'))).sources
    assert identity(one) == identity(other)
    assert len({identity(source) for source in (one, team, plain)}) == 3


@pytest.mark.parametrize(
    ("sources", "fault"),
    [
        (
            [FILES.format(uri=u, team="T1") + 'id = "docs"\n' for u in "abc"],
            "sources[1].id: sources[0] has 'docs' too; give each its own",
        ),
        ([FILES.format(uri="a", team="T1") + 'id = "with blanks"\n'], "sources[0].id: String should match pattern"),
        ([FILES.format(uri="a", team="T1") + 'id = ""\n'], "sources[0].id: String should match pattern"),
        (
            [FILES.format(uri="a", team="T1"), FILES.format(uri="b", team="T1"), FILES.format(uri="./a", team="T1")],
            "sources[2]: the same as sources[0] (kind, team_id and uri); remove one of them, or give each an id",
        ),
    ],
)
def test_sources_that_cannot_be_told_apart_are_refused(tmp_path: Path, sources: list[str], fault: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_config(written(tmp_path, *sources))
    assert str(refused.value).removeprefix(f"{tmp_path / 'embedmill.toml'}: ").startswith(fault)


# -- runs --------------------------------------------------------------------------------------------------------------


def documents(space: Workspace) -> dict[str, str]:
    rows = State(space.root / "state").read("chunks", ["doc_id", "text"]).to_pylist()
    return {row["doc_id"]: row["text"] for row in rows}


def test_same_path_below_two_folders_is_two_documents(workspace: Workspace) -> None:
    (workspace.root / "more" / "deep").mkdir(parents=True)
    (workspace.root / "more" / "notes.txt").write_text("Another file of that name")
    (workspace.root / "more" / "deep" / "@x.txt").write_text("It has an at sign")
    for name, text in (("rows", "A row of one table"), ("other", "A row of another table")):
        (workspace.root / f"{name}.json").write_text(json.dumps({"i": "7", "t": text, "c": 1740960000}) + "\n")
    text = workspace.config.read_text()
    second = FILES.format(uri="more", team=TEAM) + 'id = "more"\n'
    tables = [
        TABLE.format(uri=f"{name}.json", more=f'id = "{name}"\nteam_id = "{TEAM}"\n') for name in ("rows", "other")
    ]
    workspace.config.write_text(text.replace("[model]", second + "".join(tables) + "[model]"))
    assert workspace.run().code == 0
    found = documents(workspace)
    assert found["T01/f/notes.txt"].startswith("Call the courier")
    assert found["T01/f/@more/notes.txt"] == "Another file of that name"
    assert found["T01/f/@more/deep/%40x.txt"] == "It has an at sign"
    assert (found["T01/t/7"], found["T01/t/@other/7"]) == ("A row of one table", "A row of another table")
    assert workspace.verify().code == 0

    (workspace.root / "more" / "notes.txt").unlink()
    assert counts(workspace.run()) == {"deleted": 1}
    assert "T01/f/notes.txt" in documents(workspace)

    # In another order the other one has the plain ids: all is read again, and every text has its vector.
    first = FILES.format(uri="files", team=TEAM)
    text = workspace.config.read_text()
    workspace.config.write_text(text.replace(first, "").replace(second, second + first))
    swapped = workspace.run("--allow-mass-delete")
    assert swapped.code == 0 and swapped.body["chunks"]["embedded"] == 0 and swapped.body["chunks"]["reused"] > 0
    assert documents(workspace)["T01/f/deep/%40x.txt"] == "It has an at sign"
    assert workspace.verify().code == 0


def test_monthly_export_under_a_new_name_is_the_same_source(workspace: Workspace) -> None:
    text = workspace.config.read_text()
    named = text.replace('uri = "export"\n', 'uri = "export-01"\nid = "slack"\n')
    workspace.export.rename(workspace.root / "export-01")
    workspace.config.write_text(named.replace('uri = "files"\n', 'uri = "files-01"\nid = "files"\n'))
    workspace.files.rename(workspace.root / "files-01")
    assert workspace.run().code == 0

    shutil.copytree(workspace.root / "export-01", workspace.root / "export-02")
    shutil.copytree(workspace.root / "files-01", workspace.root / "files-02")  # with its times
    (workspace.root / "files-02" / "notes.txt").unlink()
    (workspace.root / "export-02" / "random" / "2025-03-03.json").unlink()
    workspace.config.write_text(workspace.config.read_text().replace("-01", "-02"))
    again = workspace.run("--allow-mass-delete")
    assert again.body["partitions"]["opened"] == 2, "it lies elsewhere, so it is read again"
    assert counts(again) == {"deleted": 3}, "what the new export does not have any more, and nothing else"
    rows = State(workspace.root / "state").read("sources", ["source_id"])
    assert len(pc.unique(rows["source_id"])) == 2
    assert workspace.verify().code == 0


# -- files without text ------------------------------------------------------------------------------------------------


def read(folder: Path, data: bytes, qualifier: str = "") -> list[Record]:
    """What a files source says of one file."""
    (folder / "a.txt").write_bytes(data)
    limits = ReadLimits(10, 1024, 10_000)
    context = SourceContext(folder, "x", qualifier, limits)
    source = FilesSource(context, team_id=TEAM, channel_id="", max_bytes=1000)
    [partition] = source.listing().partitions
    return list(source.read(partition))


@pytest.mark.parametrize("data", [b"", b"   ", b"\n\r\n\t\n", b"\xef\xbb\xbf \n"])
def test_file_that_holds_no_text_has_none_and_is_no_fault(tmp_path: Path, data: bytes) -> None:
    assert read(tmp_path, data) == [Skipped("empty_text")]


def test_damaged_file_is_a_fault_that_protects_what_was_read_of_it(tmp_path: Path) -> None:
    [reject] = read(tmp_path, b"%PDF-1.7\nand then nothing of a PDF")
    assert isinstance(reject, Rejected) and reject.whole and not reject.ignored


def test_file_of_a_kind_of_no_use_is_listed_and_protects_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(*_: object) -> None:
        raise RejectedRecord("picture", "PNG", ignored=True)

    monkeypatch.setattr(parsers, "parse_file", parse)
    [reject] = read(tmp_path, b"\x89PNG")
    assert isinstance(reject, Rejected) and (reject.reason, reject.ignored, reject.whole) == ("picture", True, False)


def test_file_that_was_emptied_while_it_was_looked_at_is_tried_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    context = SourceContext(tmp_path, "x", "", ReadLimits(10, 1024, 10_000))
    source = FilesSource(context, team_id=TEAM, channel_id="", max_bytes=1000)
    [partition] = source.listing().partitions
    os.truncate(tmp_path / "a.txt", 0)
    [reject] = source.read(partition)
    assert isinstance(reject, Rejected) and reject.retry and reject.whole and reject.reason == "changed_meanwhile"


def test_qualifier_is_in_the_ids_and_in_the_reader(tmp_path: Path) -> None:
    [document] = read(tmp_path, b"words", qualifier="q")
    assert isinstance(document, Document) and document.doc_id == "T01/f/@q/a.txt"


def test_emptied_file_leaves_the_index(ran: Workspace) -> None:
    (ran.files / "notes.txt").write_bytes(b"")
    (ran.files / "handbook.md").write_text("\n\n")
    emptied = ran.run()
    assert emptied.code == 0 and counts(emptied) == {"deleted": 2}
    assert emptied.body["documents"]["skipped"] == {"empty_text": 2} and ran.quarantine() == {}
    assert not [doc for doc in documents(ran) if "/f/" in doc]
    assert ran.verify().code == 0
