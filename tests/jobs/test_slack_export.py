"""Exports as people pack them: what is in them is the same, whatever its folder, its separators and its spelling."""

from __future__ import annotations

import json
import pickle
import unicodedata
import zipfile
from pathlib import Path

import pytest

from embedding.errors import SourceError
from embedding.records import Document
from jobs.sources.base import Listing, ReadLimits
from jobs.sources.slack_export import SlackExport

DAY = "2025-03-03.json"
TS = "1740960000.000100"
Files = dict[str, object]


def said(text: str, ts: str = TS) -> list[dict[str, object]]:
    return [{"type": "message", "user": "U1", "ts": ts, "text": text}]


EXPORT: Files = {
    "users.json": [{"id": "U1", "name": "ada"}],
    "channels.json": [{"id": "C1", "name": "general"}, {"id": "C2", "name": "日本語ガイド"}],
    f"general/{DAY}": said("hello"),
    f"日本語ガイド/{DAY}": said("guide"),
}
READ = {f"T/m/C1/{TS}": "hello", f"T/m/C2/{TS}": "guide"}


def source(root: Path) -> SlackExport:
    return SlackExport(root, source_id="export", team_id="T", limits=ReadLimits(3, 640, 2_000_000))


def zipped(root: Path, files: Files, *more: tuple[str, object]) -> SlackExport:
    with zipfile.ZipFile(root / "export.zip", "w") as archive:
        for name, value in (*files.items(), *more):
            archive.writestr(name, json.dumps(value) if not isinstance(value, bytes) else value)
    return source(root / "export.zip")


def folder(root: Path, files: Files) -> SlackExport:
    for name, value in files.items():
        path = root / "export" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(value) if not isinstance(value, bytes) else "")
    return source(root / "export")


def documents(export: SlackExport, listing: Listing | None = None) -> dict[str, Document]:
    """What an export holds by id, read as an executor reads it."""
    listing = listing or export.listing()
    sent: SlackExport = pickle.loads(pickle.dumps(export))
    records = [record for partition in listing.partitions for record in sent.read(partition)]
    assert all(isinstance(record, Document) for record in records), records
    return {record.doc_id: record for record in records if isinstance(record, Document)}


def texts(export: SlackExport) -> dict[str, str]:
    listing = export.listing()
    assert listing.complete and not listing.rejected, listing
    return {doc_id: document.text for doc_id, document in documents(export, listing).items()}


def renamed(prefix: str = "", separator: str = "/") -> Files:
    return {prefix + name.replace("/", separator): value for name, value in EXPORT.items()}


SHAPES = {
    "as Slack packs it": EXPORT,
    "Windows separators": renamed(separator="\\"),
    "Windows separators and a top folder": renamed("My Export\\", "\\"),
    "./ before each": renamed("./"),
    ".\\ before each": renamed(".\\", "\\"),
    "a top folder": renamed("My Export/"),
    "two folders around it": renamed("backup/My Export/"),
    "a top folder called teams": renamed("teams/"),
    "names in NFD": {unicodedata.normalize("NFD", name): value for name, value in EXPORT.items()},
}


@pytest.mark.parametrize("files", SHAPES.values(), ids=SHAPES.keys())
def test_an_export_is_itself_however_it_is_packed(tmp_path: Path, files: Files) -> None:
    whole = zipped(tmp_path, files)
    assert texts(whole) == texts(folder(tmp_path, files)) == READ
    assert [partition.key for partition in whole.listing().partitions] == ["C1/2025-03-03", "C2/2025-03-03"]


JUNK: Files = {
    f"__MACOSX/general/._{DAY}": b"\0",
    f"__MACOSX/general/{DAY}": b"\0",
    "general/.DS_Store": b"\0",
    ".DS_Store": b"\0",
    "Thumbs.db": b"\0",
    "general/canvas_in_the_conversation.json": [{"id": "F1"}],
    "canvases.json": [],
    "readme.txt": b"x",
    "integration_logs.json": [],
    "general/huddle_transcripts.json": [],
    "FC:F01:talk/2025.json": [],
    f".trash/{DAY}": [],
    f"__uploads/F1/{DAY}": b"a file that somebody shared",
}


@pytest.mark.parametrize("prefix", ["", "My Export/"])
def test_what_lies_beside_is_no_part_of_it(tmp_path: Path, prefix: str) -> None:
    files = renamed(prefix) | {prefix + name: value for name, value in JUNK.items()} | {"__MACOSX/._x": b"\0"}
    assert texts(zipped(tmp_path, files)) == texts(folder(tmp_path, files)) == READ


@pytest.mark.parametrize("charset", ["utf-8", "cp932", "gb18030"])
def test_names_that_were_packed_without_saying_how(tmp_path: Path, charset: str) -> None:
    """zipfile reads a name that is not declared as UTF-8 as code page 437."""
    raw = "日本語ガイド".encode(charset)
    export = zipped(tmp_path, {name.replace("日本語ガイド", "x" * len(raw)): value for name, value in EXPORT.items()})
    assert isinstance(export.root, Path)
    data = export.root.read_bytes().replace(b"x" * len(raw) + b"/", raw + b"/")
    export.root.write_bytes(data)
    assert zipfile.ZipFile(export.root).namelist()[-1] == raw.decode("cp437") + f"/{DAY}"
    assert texts(source(export.root)) == READ


@pytest.mark.parametrize(
    "name",
    [
        f"../general/{DAY}",
        f"..\\general\\{DAY}",
        f"/general/{DAY}",
        f"\\general\\{DAY}",
        f"C:\\x\\general\\{DAY}",
        f"C:general/{DAY}",
        f"general/../../{DAY}",
    ],
)
def test_an_entry_that_leaves_its_folder_may_be_a_day_of_the_export(tmp_path: Path, name: str) -> None:
    export = zipped(tmp_path, EXPORT, (name, said("from outside")))
    listing = export.listing()
    assert [reject.reason for reject in listing.rejected] == ["unsafe_path"]
    assert not listing.complete
    assert {d.text for d in documents(export, listing).values()} == set(READ.values())


@pytest.mark.parametrize("name", ["../channels.json", "C:\\My Export\\users.json"])
def test_names_that_are_out_of_reach_are_not_absent(tmp_path: Path, name: str) -> None:
    """Read without them, every message would be another one."""
    files = {key: value for key, value in EXPORT.items() if key != name.rpartition("/")[2]}
    listing = zipped(tmp_path, files, (name, [])).listing()
    assert not listing.partitions and not listing.complete
    assert [reject.reason for reject in listing.rejected] == ["unsafe_path"]


def test_an_archive_of_which_everything_is_refused_is_not_empty(tmp_path: Path) -> None:
    listing = zipped(tmp_path, {f"../{name}": value for name, value in EXPORT.items()}).listing()
    assert not listing.partitions and not listing.complete and listing.rejected


def test_of_two_entries_with_one_path_the_last_is_the_file(tmp_path: Path) -> None:
    again = (f"./general/{DAY}", said("hello again"))
    export = zipped(tmp_path, EXPORT, again)
    listing = export.listing()
    assert [reject.reason for reject in listing.rejected] == ["duplicate_entry"]
    assert documents(export, listing)[f"T/m/C1/{TS}"].text == "hello again"
    assert texts(zipped(tmp_path, EXPORT, (f"general\\{DAY}", said("hello")))) == READ, "the same twice is no fault"


def test_several_exports_in_one_place_are_refused(tmp_path: Path) -> None:
    files = renamed("2024/") | renamed("2025/")
    for export in (zipped(tmp_path, files), folder(tmp_path, files)):
        with pytest.raises(SourceError, match="several exports"):
            export.listing()


@pytest.mark.parametrize("files", [{}, {"readme.txt": b"x"}, {"channels.json": []}])
def test_an_export_without_a_day_is_refused(tmp_path: Path, files: Files) -> None:
    with pytest.raises(SourceError, match="no day file"):
        zipped(tmp_path, files).listing()


def test_a_loop_of_links_is_walked_once(tmp_path: Path) -> None:
    export = folder(tmp_path, EXPORT)
    for name in ("loop", "round"):
        (tmp_path / "export" / name).symlink_to(tmp_path / "export")
    (tmp_path / "export" / "general" / "up").symlink_to("..")
    assert texts(export) == READ


# -- who may see a channel ---------------------------------------------------------------------------------------------


def test_a_channel_that_became_private_is_read_again(tmp_path: Path) -> None:
    public = folder(tmp_path, EXPORT)
    before = {p.key: p.fingerprint for p in public.listing().partitions}
    assert not documents(public)[f"T/m/C1/{TS}"].meta.get("private")
    (tmp_path / "export" / "channels.json").write_text(json.dumps([{"id": "C2", "name": "日本語ガイド"}]))
    (tmp_path / "export" / "groups.json").write_text(json.dumps([{"id": "C1", "name": "general"}]))
    private = source(tmp_path / "export")
    after = {p.key: p.fingerprint for p in private.listing().partitions}
    assert {key for key in before if before[key] != after[key]} == {"C1/2025-03-03"}
    assert documents(private)[f"T/m/C1/{TS}"].meta["private"] is True


# -- Enterprise Grid ---------------------------------------------------------------------------------------------------


GRID: Files = {
    "org_users.json": [{"id": "U1", "name": "ada"}, {"id": "U2", "name": "bob"}],
    "dms.json": [{"id": "D1", "members": ["U1", "U2"]}],
    "mpims.json": [{"id": "G1", "name": "mpdm-ada--bob-1"}],
    f"D1/{DAY}": said("between two"),
    f"mpdm-ada--bob-1/{DAY}": said("between some"),
    "teams/north/channels.json": [{"id": "CN", "name": "general"}, {"id": "CS", "name": "shared"}],
    "teams/north/users.json": [{"id": "U3", "name": "cy"}],
    f"teams/north/general/{DAY}": said("in the north, <@U2> and <@U3>"),
    f"teams/north/shared/{DAY}": said("for both"),
    f"teams/north/unlisted/{DAY}": said("unlisted in the north"),
    "teams/south/channels.json": [{"id": "CT", "name": "general"}, {"id": "CS", "name": "shared"}],
    "teams/south/groups.json": [{"id": "GS", "name": "hush"}],
    f"teams/south/general/{DAY}": said("in the south"),
    f"teams/south/shared/{DAY}": said("for both, from the south", "1740960001.000100"),
    f"teams/south/hush/{DAY}": said("quiet"),
    f"teams/south/unlisted/{DAY}": said("unlisted in the south"),
}
GRID_READ = {
    f"T/m/D1/{TS}": "between two",
    f"T/m/G1/{TS}": "between some",
    f"T/m/CN/{TS}": "in the north, @bob and @cy",
    f"T/m/CS/{TS}": "for both",
    "T/m/CS/1740960001.000100": "for both, from the south",
    f"T/m/CT/{TS}": "in the south",
    f"T/m/GS/{TS}": "quiet",
    f"T/m/north%3Aunlisted/{TS}": "unlisted in the north",
    f"T/m/south%3Aunlisted/{TS}": "unlisted in the south",
}


@pytest.mark.parametrize("prefix", ["", "org export/"])
def test_every_workspace_of_a_grid_export_is_read(tmp_path: Path, prefix: str) -> None:
    files = {prefix + name: value for name, value in GRID.items()}
    export = zipped(tmp_path, files)
    assert texts(export) == texts(folder(tmp_path, files)) == GRID_READ
    found = documents(export)
    assert found[f"T/m/CN/{TS}"].meta["workspace"] == "north"
    assert "workspace" not in found[f"T/m/D1/{TS}"].meta
    private = {doc_id.split("/")[2] for doc_id, document in found.items() if document.meta.get("private")}
    assert private == {"D1", "G1", "GS"}


def test_a_workspace_whose_names_cannot_be_read_says_nothing_of_the_others(tmp_path: Path) -> None:
    listing = zipped(tmp_path, GRID | {"teams/south/channels.json": b"[{"}).listing()
    assert [reject.key for reject in listing.rejected] == ["teams/south/channels.json"]
    assert not listing.complete


def test_a_channel_called_teams_is_a_channel(tmp_path: Path) -> None:
    files = EXPORT | {f"teams/{DAY}": said("about teams")}
    assert texts(zipped(tmp_path, files)) == READ | {f"T/m/teams/{TS}": "about teams"}
