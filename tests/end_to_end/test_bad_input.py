"""Bad input, end to end: it is put in quarantine or refused in one line, and costs nothing that was published before.

The tables below are the specification. Each is read in one run over a workspace that was run before, and every entry
is then looked at by itself.
"""

from __future__ import annotations

import copy
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from fpdf import FPDF

from jobs.state.store import State
from tests.support.command_line import invoke
from tests.support.paths import ONE_CORE, ROOT
from tests.support.workspace import DAY, START, TEAM, Ran, Workspace, copied, counts, message

pytestmark = pytest.mark.usefixtures("encoder_here")

NEXT_DAY = "2025-03-04"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"


# -- what a workspace holds --------------------------------------------------------------------------------------------


def published(space: Workspace) -> dict[str, str]:
    """Content hash by chunk id, as the ledger has it; ``verify`` proves that the index agrees."""
    rows = State(space.root / "state").read("published", ["chunk_id", "content_hash"]).to_pylist()
    return {row["chunk_id"]: row["content_hash"] for row in rows}


def texts(space: Workspace) -> dict[str, str]:
    """Text by chunk id."""
    rows = State(space.root / "state").read("chunks", ["chunk_id", "text"]).to_pylist()
    return {row["chunk_id"]: row["text"] for row in rows}


def media_types(space: Workspace) -> dict[str, str]:
    """Media type of every file by its path."""
    rows = State(space.root / "state").read("chunks", ["kind", "meta"]).to_pylist()
    metas = [json.loads(row["meta"]) for row in rows if row["kind"] == "file"]
    return {meta["path"]: meta["media_type"] for meta in metas}


def reasons(space: Workspace) -> dict[str, str]:
    """Reason of everything in quarantine, by partition and key (a fault of a listing has no partition)."""
    rows = State(space.root / "state").read("quarantine", ["partition", "key", "reason"]).to_pylist()
    return {"|".join(part for part in (row["partition"], row["key"]) if part): row["reason"] for row in rows}


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Size and time of every file below a folder; the scratch of an engine that may be at work is left out."""
    files = [p for p in folder.rglob("*") if p.is_file() and "engines" not in str(p)]
    return {str(p): (p.stat().st_size, p.stat().st_mtime_ns) for p in files}


def assert_kept(space: Workspace, before: dict[str, str], ran: Ran) -> None:
    """Nothing that was published before has gone or changed, and the index is what the state says it is."""
    assert before.items() <= published(space).items()
    assert ran.body["chunks"]["deleted"] == 0
    assert ran.body["index_rows"]["after"] == len(published(space))
    verified = space.verify()
    assert verified.code == 0, verified.body["differences"]


def assert_one_line(err: str, *wanted: str) -> None:
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("embedmill: "), err
    assert "unexpected" not in err and "Traceback" not in err
    for part in wanted:
        assert part in err


@dataclass
class Poisoned:
    """A workspace that was run, got its bad input and was run again."""

    space: Workspace
    before: dict[str, str]
    ran: Ran
    reasons: dict[str, str]
    texts: dict[str, str]


def poison(space: Workspace, add: Callable[[Workspace], None]) -> Poisoned:
    """Add bad input to a workspace that was run before, and run it again."""
    before = published(space)
    add(space)
    return Poisoned(space, before, space.run(), reasons(space), texts(space))


@pytest.fixture(scope="module")
def ran_before(tmp_path_factory: pytest.TempPathFactory, _ran_once: Workspace) -> Workspace:
    """A workspace that was run and that no test may change."""
    return copied(_ran_once, tmp_path_factory.mktemp("ran_before") / "ws")


# -- messages ----------------------------------------------------------------------------------------------------------


def said(second: int, text: str, more: str = "") -> str:
    """The JSON of a message as it stands in a day file: ``text`` is raw JSON, so that it may hold any escape."""
    return f'{{"type": "message", "user": "U1", "ts": "{START + second}.000200", "text": "{text}"{more}}}'


WORDS = [f"w{number:06d}" for number in range(131_072)]  # with the blanks between them 1 MiB

# What a message is, and why it is in quarantine.
BAD_MESSAGES = {
    "no ts": ('{"type": "message", "user": "U1", "text": "when?"}', "missing_ts"),
    "an empty ts": ('{"type": "message", "user": "U1", "ts": "", "text": "when?"}', "missing_ts"),
    "a ts that is no time": ('{"type": "message", "user": "U1", "ts": "noon", "text": "when?"}', "bad_ts"),
    "a ts with a lone surrogate": ('{"type": "message", "ts": "17\\ud800", "text": "when?"}', "bad_ts"),
    "not an object": ('"a message"', "not_an_object"),
    "a subtype that is a list": (said(103, "what?", ', "subtype": ["bot_message"]'), "bad_record"),
    "a list for a text": ('{"type": "message", "ts": "1740960107.000200", "text": ["a"]}', "bad_record"),
    "the first of two with one ts": (said(108, "the first of two with one ts"), "duplicate_ts"),
}
# What is said, and what is published of it.
ODD_MESSAGES = {
    "the last of two with one ts": (said(108, "the last of two with one ts"), "the last of two with one ts"),
    "a NUL": (said(201, "a zero\\u0000 byte"), "a zero byte"),
    "a lone surrogate": (said(202, "half \\ud800 of an emoji"), "half \ufffd of an emoji"),
    "a mention with a lone surrogate": (said(203, "ask <@U\\ud800> or <#C\\udc00>"), "ask @U\ufffd or #C\ufffd"),
    "a writer with a lone surrogate": (said(204, "by nobody", ', "username": "\\udfff"'), "by nobody"),
    "a link with NUL and surrogate": (said(205, "see <https://a.example/\\u0000\\ud800|this>"), "see this"),
    "a link of 70,000 characters": (said(206, f"see <https://a.example/{'x' * 70_000}|that>"), "see that"),
    "a file with a title of 72,000 characters": (
        said(207, "a long title", f', "files": [{{"title": "{" ".join(WORDS[:9_000])}"}}]'),
        "a long title\n" + " ".join(WORDS[:9_000]),
    ),
    "an unknown user": (said(208, "who is <@U404>?"), "who is @U404?"),
    "an unknown subtype": (said(209, "what is it?", ', "subtype": "hologram"'), "what is it?"),
    "a subtype with a lone surrogate": (said(210, "what?", ', "subtype": "x\\ud800"'), "what?"),
}
# What says nothing, which is no fault, and what it is counted as.
EMPTY_MESSAGES = {
    "an empty text": (said(401, ""), "empty_text"),
    "blanks for a text": (said(402, " \\n\\t "), "empty_text"),
    "NULs for a text": (said(403, "\\u0000\\u0000"), "empty_text"),
    "a file behind the limit of the plan": (
        said(404, "", ', "files": [{"id": "F1", "mode": "hidden_by_limit"}]'),
        "empty_text",
    ),
    "a file that was deleted": (said(405, "", ', "files": [{"id": "F1", "mode": "tombstone"}]'), "empty_text"),
    "a notice of Slack's": (said(406, "<@U5> joined.", ', "subtype": "welcome_party"'), "housekeeping"),
    "a notice of a kind that is new": (said(407, "", ', "subtype": "hologram_added"'), "housekeeping"),
    "a message that was deleted": (said(408, "", ', "subtype": "tombstone"'), "deleted"),
}
LONG = said(300, " ".join(WORDS))


@pytest.fixture(scope="module")
def bad_messages(tmp_path_factory: pytest.TempPathFactory, _ran_once: Workspace) -> Poisoned:
    """Every message of the tables in one day file; beside it a day that has lost its end and one that is no JSON."""

    def add(space: Workspace) -> None:
        records = [record for record, _ in (BAD_MESSAGES | ODD_MESSAGES | EMPTY_MESSAGES).values()]
        (space.export / "general" / f"{NEXT_DAY}.json").write_text(f"[{','.join([*records, LONG])}]")
        (space.export / "random" / f"{NEXT_DAY}.json").write_text("<html>Sign in</html>")
        whole = (space.export / "random" / f"{DAY}.json").read_text()
        (space.export / "random" / f"{DAY}.json").write_text(whole[: len(whole) // 2])
        # A message of an earlier run is not in its day any more, but one of that day cannot be told which it is.
        space.day("general", [*space.messages("general")[1:], {"type": "message", "text": "no ts"}])

    return poison(copied(_ran_once, tmp_path_factory.mktemp("messages") / "ws"), add)


@pytest.mark.parametrize(("record", "reason"), BAD_MESSAGES.values(), ids=BAD_MESSAGES.keys())
def test_bad_message_is_in_quarantine(bad_messages: Poisoned, record: str, reason: str) -> None:
    """Its key is its ts, or its place in the file where it has none."""
    found = re.search(r'"ts": "([0-9.]+)"', record)
    place = [r for r, _ in BAD_MESSAGES.values()].index(record)
    assert bad_messages.reasons[f"C1/{NEXT_DAY}|{found[1] if found else f'@{place}'}"] == reason


def test_status_names_what_is_in_quarantine(bad_messages: Poisoned) -> None:
    told = bad_messages.space.call("status").body["quarantine"]
    assert len(told["newest"]) == min(told["total"], 20) > 5
    assert all(one["source_id"] and one["first_seen"] for one in told["newest"])
    named = {(one["partition"], one["reason"]) for one in told["newest"]}
    assert {(f"C2/{NEXT_DAY}", "bad_json"), (f"C2/{DAY}", "bad_json")} <= named
    shown = invoke(["status", "--config", str(bad_messages.space.config)]).stdout
    assert f"C2/{DAY}: bad_json, " in shown


def test_no_other_message_is_in_quarantine(bad_messages: Poisoned) -> None:
    assert bad_messages.ran.code == 3
    in_day = [key for key in bad_messages.reasons if key.startswith(f"C1/{NEXT_DAY}|")]
    assert len(in_day) == len(BAD_MESSAGES)
    assert sum(bad_messages.space.quarantine().values()) == len(BAD_MESSAGES) + 3 == len(bad_messages.reasons)
    assert bad_messages.ran.body["documents"]["quarantined"] == len(bad_messages.reasons)


@pytest.mark.parametrize(("record", "expected"), ODD_MESSAGES.values(), ids=ODD_MESSAGES.keys())
def test_odd_message_is_published(bad_messages: Poisoned, record: str, expected: str) -> None:
    ts = json.loads(record)["ts"]
    assert whole_text(bad_messages.texts, f"{TEAM}/m/C1/{ts}") == expected


def test_messages_that_say_nothing_are_counted(bad_messages: Poisoned) -> None:
    expected = Counter(reason for _, reason in EMPTY_MESSAGES.values())
    assert bad_messages.ran.body["documents"]["skipped"] == expected


def chunks_of(found: dict[str, str], doc_id: str) -> list[str]:
    """A document's chunks in their order; a gap in their numbers is an error."""
    return [found[f"{doc_id}#{n}"] for n in range(sum(chunk.startswith(f"{doc_id}#") for chunk in found))]


def whole_text(found: dict[str, str], doc_id: str) -> str:
    """The text of a document put together again from its chunks, which overlap."""
    whole = ""
    for piece in chunks_of(found, doc_id):
        shared = next((n for n in range(min(len(whole), len(piece)), 0, -1) if whole.endswith(piece[:n])), 0)
        whole += piece[shared:]
    return whole


def test_long_message_is_published_in_many_chunks_and_whole(bad_messages: Poisoned) -> None:
    doc_id = f"{TEAM}/m/C1/{START + 300}.000200"
    pieces = chunks_of(bad_messages.texts, doc_id)
    assert len(pieces) > 1_000
    assert max(len(piece) for piece in pieces) <= 4096
    words = dict.fromkeys(word for piece in pieces for word in piece.split())
    assert list(words) == WORDS
    assert {f"{doc_id}#{number}" for number in range(len(pieces))} <= published(bad_messages.space).keys()


@pytest.mark.parametrize(
    ("partition", "reason"),
    [(f"C2/{NEXT_DAY}", "bad_json"), (f"C2/{DAY}", "bad_json"), (f"C1/{DAY}|@3", "missing_ts")],
    ids=["not JSON", "half an array", "a message that cannot be told from one that was deleted"],
)
def test_bad_day_is_in_quarantine(bad_messages: Poisoned, partition: str, reason: str) -> None:
    assert bad_messages.reasons[partition] == reason


def test_bad_messages_cost_nothing_that_was_published(bad_messages: Poisoned) -> None:
    assert_kept(bad_messages.space, bad_messages.before, bad_messages.ran)


# -- the files that name users and channels ----------------------------------------------------------------------------


def test_export_without_users_shows_their_ids(ran: Workspace) -> None:
    before = published(ran)
    (ran.export / "users.json").unlink()
    second = ran.run()
    assert second.code == 0
    assert counts(second) == {"updated": 6}, "the writer's name is in the metadata of each message"
    assert_kept(ran, before, second)


def test_first_export_without_users_and_channels(workspace: Workspace) -> None:
    (workspace.export / "users.json").unlink()
    (workspace.export / "channels.json").unlink()
    assert workspace.run().code == 0
    assert f"{TEAM}/m/general/{START}.000100#0" in published(workspace), "a folder's name stands for its channel's id"
    assert workspace.verify().code == 0


@pytest.mark.parametrize("name", ["users.json", "channels.json"])
def test_names_that_cannot_be_read_cost_nothing(ran: Workspace, name: str) -> None:
    """Without channels.json the folders would be channels of other ids: every message new, and every old one gone."""
    before = published(ran)
    (ran.export / name).write_text('[{"id": "U1", "na')
    broken = ran.run()
    assert broken.code == 3
    assert reasons(ran) == {name: "bad_json"}
    assert published(ran).keys() == before.keys()
    assert_kept(ran, before, broken)


# -- an export in a zip ------------------------------------------------------------------------------------------------


@pytest.fixture
def in_zip(workspace: Workspace) -> Workspace:
    """A workspace whose export is a .zip; ``pack`` writes it."""
    workspace.config.write_text(workspace.config.read_text().replace('uri = "export"', 'uri = "export.zip"'))
    pack(workspace)
    return workspace


def pack(space: Workspace, more: dict[str, str] | None = None) -> None:
    with zipfile.ZipFile(space.root / "export.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(space.export.rglob("*.json")):
            archive.write(path, str(path.relative_to(space.export)))
        for name, text in (more or {}).items():
            archive.writestr(name, text)


def test_cut_zip_deletes_nothing_and_holds_up_no_other_source(in_zip: Workspace) -> None:
    file = in_zip.root / "export.zip"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    first = in_zip.run()
    assert first.code == 3
    assert in_zip.quarantine() == {"unreadable_zip": 1}
    assert first.body["index_rows"]["after"] == 2, "the files source goes on"
    file.write_bytes(whole)
    mended = in_zip.run()
    assert mended.code == 0 and mended.body["index_rows"]["after"] == 8
    assert in_zip.quarantine() == {}
    before = published(in_zip)
    file.write_bytes(whole[:-30])
    cut = in_zip.run()
    assert cut.code == 3
    assert in_zip.quarantine() == {"unreadable_zip": 1}
    assert_kept(in_zip, before, cut)


def test_zip_entries_that_climb_or_are_damaged(in_zip: Workspace) -> None:
    assert in_zip.run().code == 0
    before = published(in_zip)
    climbing = json.dumps([message(400, "from outside")])
    in_zip.day("random", [message(401, "in an entry that is damaged")])
    pack(in_zip, {f"../{DAY}.json": climbing, f"general/../../{DAY}.json": climbing, f"/etc/{DAY}.json": climbing})
    file = in_zip.root / "export.zip"
    data = bytearray(file.read_bytes())
    at = data.index(b"random/" + DAY.encode()) + 40
    data[at : at + 20] = bytes(20)
    file.write_bytes(data)
    climbed = in_zip.run()
    assert climbed.code == 3
    assert reasons(in_zip) == {
        f"../{DAY}.json": "unsafe_path",
        f"general/../../{DAY}.json": "unsafe_path",
        f"/etc/{DAY}.json": "unsafe_path",
        f"C2/{DAY}": "unreadable_zip_entry",
    }
    assert [p.name for p in in_zip.root.rglob(f"{DAY}.json")] == [f"{DAY}.json"] * 2, "nothing is ever unpacked"
    assert not (in_zip.root.parent / f"{DAY}.json").exists()
    assert "from outside" not in texts(in_zip).values()
    assert_kept(in_zip, before, climbed)


# -- files -------------------------------------------------------------------------------------------------------------


def pdf(text: str, password: str = "") -> bytes:
    document = FPDF()
    document.set_font("Helvetica", size=12)
    if password:
        document.set_encryption(owner_password="owner", user_password=password)
    document.add_page()
    document.multi_cell(0, 6, text)
    return bytes(document.output())


def zipped(members: dict[str, str]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in members.items():
            archive.writestr(name, text)
    return buffer.getvalue()


# What a file holds, and why it is in quarantine.
BAD_FILES = {
    "cut.zip": (zipped({"a.txt": "some words " * 100})[:-40], "unreadable_zip"),
    "climbing.zip": (zipped({"../climbed.txt": "from outside"}), "unsupported_type"),
    "climbing.docx": (zipped({"../climbed.txt": "from outside", "[Content_Types].xml": DOCX}), "unsupported_type"),
    "locked.pdf": (pdf("secret", password="pw"), "encrypted_pdf"),
    "torn.pdf": (pdf("a page that was torn")[:200], "unreadable_pdf"),
    "picture.txt": (b"\x89PNG\r\n\x1a\n" + bytes(64), "unsupported_type"),
    "handbook.md": (pdf("a page that was torn")[:200], "unreadable_pdf"),  # published before
}
# What a file holds, and what it is read as.
ODD_FILES = {
    "invoice.pdf": (b"<!doctype html><html><body><p>Sign in to see the invoice", "text/html"),
    "letter.docx": (pdf("A page of a letter"), "application/pdf"),
    "b\udcffytes.txt": (b"a name that is no UTF-8", "text/plain"),
    "mail.eml": (
        b"From: a@x.example\nSubject: s\nDate: Mon, 3 Mar 2025 09:00:00 +0000\nTo: "
        + b", ".join(b"user%d@x.example" % n for n in range(5_000))
        + b"\n\nto all",
        "message/rfc822",
    ),
}
# Files with nothing in them: no fault, and nothing to publish.
EMPTY_FILES = {"empty.docx": b"", "blank.txt": b" \n\t\n ", "mark.csv": b"\xef\xbb\xbf"}
# What a link or a special file is, and why it is in quarantine. ``notes.txt`` and ``kept`` were published before.
BAD_ENTRIES = {
    "outside.txt": "link_outside_root",
    "dangling.txt": "link_outside_root",
    "round.txt": "link_outside_root",
    "pipe.txt": "not_a_file",
    "notes.txt": "link_outside_root",
    "kept": "link_to_folder",
}


@pytest.fixture(scope="module")
def bad_files(tmp_path_factory: pytest.TempPathFactory) -> Poisoned:
    space = Workspace(tmp_path_factory.mktemp("files") / "ws")
    (space.files / "kept").mkdir()
    (space.files / "kept" / "old.txt").write_text("In a folder that a link takes the place of")

    def add(space: Workspace) -> None:
        for name, (data, _) in (BAD_FILES | ODD_FILES).items():
            (space.files / name).write_bytes(data)
        for name, data in EMPTY_FILES.items():
            (space.files / name).write_bytes(data)
        outside = space.root / "outside"
        outside.mkdir()
        (outside / "private.txt").write_text("not below the root")
        (space.files / "outside.txt").symlink_to(outside / "private.txt")
        (space.files / "dangling.txt").symlink_to(outside / "nowhere.txt")
        (space.files / "round.txt").symlink_to("round.txt")
        (space.files / "inside.txt").symlink_to("invoice.pdf")
        (space.files / "notes.txt").unlink()
        (space.files / "notes.txt").symlink_to(outside / "private.txt")
        shutil.move(space.files / "kept", outside / "kept")
        (space.files / "kept").symlink_to(outside / "kept")
        os.mkfifo(space.files / "pipe.txt")

    first = space.run()
    assert first.code == 0, first
    return poison(space, add)


@pytest.mark.parametrize(("name", "reason"), [(name, reason) for name, (_, reason) in BAD_FILES.items()])
def test_bad_file_is_in_quarantine(bad_files: Poisoned, name: str, reason: str) -> None:
    assert bad_files.reasons[name] == reason


@pytest.mark.parametrize(("name", "reason"), BAD_ENTRIES.items())
def test_link_or_special_file_is_in_quarantine(bad_files: Poisoned, name: str, reason: str) -> None:
    assert bad_files.reasons[name] == reason


@pytest.mark.parametrize(("name", "media_type"), [(name, kind) for name, (_, kind) in ODD_FILES.items()], ids=repr)
def test_odd_file_is_read_as_what_it_is(bad_files: Poisoned, name: str, media_type: str) -> None:
    assert media_types(bad_files.space)[name.encode("utf-8", "replace").decode()] == media_type


@pytest.mark.parametrize("name", EMPTY_FILES)
def test_empty_file_is_no_fault_and_no_document(bad_files: Poisoned, name: str) -> None:
    assert name not in bad_files.reasons and name not in media_types(bad_files.space)
    assert bad_files.ran.body["documents"]["skipped"]["empty_text"] == len(EMPTY_FILES)


def test_bad_files_cost_nothing_that_was_published(bad_files: Poisoned) -> None:
    assert bad_files.ran.code == 3
    assert bad_files.reasons.keys() == BAD_FILES.keys() | BAD_ENTRIES.keys()
    assert "inside.txt" in media_types(bad_files.space), "a link that stays below the root is a file"
    assert "not below the root" not in bad_files.texts.values()
    assert not list(bad_files.space.root.rglob("climbed.txt"))
    assert_kept(bad_files.space, bad_files.before, bad_files.ran)


@pytest.mark.parametrize("what", ["a day file", "a channel's folder"])
def test_day_behind_a_link_out_of_the_export_is_not_deleted(ran: Workspace, what: str) -> None:
    """What is behind the link was not read, so the messages there were not found missing."""
    before = published(ran)
    hidden = ran.export / "general" / (f"{DAY}.json" if what == "a day file" else "")
    shutil.move(hidden, ran.root / "outside")
    hidden.symlink_to(ran.root / "outside")
    linked = ran.run()
    assert linked.code == 3
    assert ran.quarantine() == {"link_outside_root": 1}
    assert_kept(ran, before, linked)


def test_folder_whose_name_is_no_utf8(ran: Workspace) -> None:
    before = published(ran)
    ran.day("caf\udce9", [message(500, "in a folder of a strange name")])
    strange = ran.run()
    assert counts(strange) == {"embedded": 1}
    assert_kept(ran, before, strange)


# -- permissions -------------------------------------------------------------------------------------------------------

# root reads every file whatever its mode, unless these are taken from it.
_UNPRIVILEGED = [
    "setpriv",
    "--bounding-set=-dac_override,-dac_read_search",
    "--inh-caps=-dac_override,-dac_read_search",
]


def as_a_process(space: Workspace, *command: str, wrapped: Sequence[str] = (), module: str = "jobs.cli") -> Ran:
    """Run a command as a user does, with everything that it writes to standard error.

    ``module`` may be tests.support.in_process, which starts no Ray.
    """
    environment = {k: v for k, v in os.environ.items() if k != "EMBEDMILL_DEBUG"} | ONE_CORE
    arguments = [sys.executable, "-m", module, *command, "--config", str(space.config), "--json"]
    done = subprocess.run(
        [*wrapped, *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=180,
        check=False,
        cwd=ROOT,
    )
    return Ran(done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, done.stderr)


@pytest.fixture
def unprivileged(tmp_path: Path) -> list[str]:
    """What to put before a command so that file modes count for it; empty for who is not root."""
    locked = tmp_path / "locked"
    locked.touch(mode=0)
    wrapper = _UNPRIVILEGED if os.geteuid() == 0 else []
    if wrapper and shutil.which("setpriv") is None:
        pytest.skip("this is root, and there is no setpriv to give up its rights")
    if subprocess.run([*wrapper, "cat", str(locked)], capture_output=True, check=False).returncode == 0:
        pytest.skip("setpriv cannot give up root's right to read every file here")
    return wrapper


def test_what_may_not_be_read_is_kept_and_tried_again(ran: Workspace, unprivileged: list[str]) -> None:
    (ran.files / "deep").mkdir()
    (ran.files / "deep" / "old.txt").write_text("In a folder that may not be listed")
    ran.day("closed", [message(600, "in a folder that may not be listed")])
    ran.day("shut", [message(601, "in a folder that may be listed and not entered")])
    assert ran.run().code == 0
    before = published(ran)
    modes = {
        ran.files / "notes.txt": 0,
        ran.files / "deep": 0,
        ran.export / "general" / f"{DAY}.json": 0,
        ran.export / "closed": 0,
        ran.export / "shut": 0o600,
    }
    for path, mode in modes.items():
        path.chmod(mode)
    try:
        denied = as_a_process(ran, "run", wrapped=unprivileged, module="tests.support.in_process")
    finally:
        for path in modes:
            path.chmod(0o700)
    assert denied.err == ""
    assert denied.code == 3
    assert reasons(ran) == {
        "notes.txt": "permission_denied",
        "deep": "unreadable_folder",
        f"C1/{DAY}": "permission_denied",
        "closed": "unreadable_folder",
        "shut": "unreadable_folder",
    }
    assert_kept(ran, before, denied)
    mended = ran.run()
    assert mended.code == 0 and ran.quarantine() == {}
    assert counts(mended) == {}, "it was the same all the time"


# -- configuration -----------------------------------------------------------------------------------------------------


@pytest.fixture
def untouched(ran_before: Workspace) -> Iterator[Workspace]:
    """A workspace with a configuration of its own, whose state and index must not change."""
    before = snapshot(ran_before.root / "state")
    other = copy.copy(ran_before)
    other.config = ran_before.root / "other.toml"
    other.config.write_text(ran_before.config.read_text())
    yield other
    other.config.unlink()
    assert snapshot(ran_before.root / "state") == before


@pytest.mark.parametrize("command", ["run", "plan", "verify", "status"])
@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("[model]\n", "[model]\ncolour = 1\n", "model.colour: unknown key; remove it or correct its spelling"),
        ("[model]", "[modle]", "modle: unknown key; remove it or correct its spelling"),
        ('kind = "files"', 'kind = "fils"', "sources[1]"),
        ("[model]\n", '[model]\nactors = "many"\n', "model.actors: Input should be a valid integer"),
        ("[model]\n", "[limits]\nmin_free_mb = -1\n[model]\n", "limits.min_free_mb: Input should be greater than"),
        ('uri = "files"', 'uri = "nowhere"', "sources[1].uri: no such path: nowhere"),
        ('uri = "files"', 'uri = "files/notes.txt"', "sources[1].uri: not a folder"),
        (f'team_id = "{TEAM}"', 'team_id = "a b"', "sources[0].team_id: use 1 to 64 letters"),
        ("[model]", "[model", "not TOML"),
    ],
    ids=[
        "unknown key",
        "unknown section",
        "unknown kind",
        "wrong type",
        "out of range",
        "missing path",
        "not a folder",
        "bad team",
        "not TOML",
    ],
)
def test_wrong_configuration_is_one_line_and_touches_nothing(
    untouched: Workspace, command: str, old: str, new: str, fault: str
) -> None:
    text = untouched.config.read_text()
    assert old in text
    untouched.config.write_text(text.replace(old, new))
    refused = untouched.call(command)
    assert refused.code == 2
    assert refused.body["error"]["exit_code"] == refused.code and refused.body["error"]["message"] in refused.err
    assert_one_line(refused.err, str(untouched.config), fault)


def test_missing_configuration_says_where_it_is_looked_for(ran_before: Workspace) -> None:
    other = copy.copy(ran_before)
    other.config = ran_before.root / "nowhere.toml"
    refused = other.run()
    assert refused.code == 2
    assert_one_line(refused.err, "nowhere.toml", "--config", "EMBEDMILL_CONFIG")


# -- a full disk -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["run", "plan", "verify"])
def test_too_little_free_space_is_refused_before_anything_is_written(untouched: Workspace, command: str) -> None:
    with untouched.config.open("a") as config:
        config.write("[limits]\nmin_free_mb = 1000000000\n")
    refused = untouched.call(command)
    assert refused.code == 1
    assert_one_line(refused.err, "disk full", "MB free", "limits.min_free_mb", "free some space")


def mount(*arguments: str) -> bool:
    """Whether the mount succeeded; only root may, and not in every container."""
    return subprocess.run(["mount", *arguments], capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(_ran_once: Workspace, workspace: Workspace) -> Iterator[Workspace]:
    """A workspace whose state is a disk of its own; ``resize`` changes its size.

    The Spark of this process has started elsewhere, so that its scratch is not on that disk.
    """
    state = workspace.root / "state"
    state.mkdir()
    if shutil.which("mount") is None or not mount("-t", "tmpfs", "-o", "size=500m,mode=700", "tmpfs", str(state)):
        pytest.skip("a disk of our own cannot be mounted here")
    with workspace.config.open("a") as config:
        config.write("[limits]\nmin_free_mb = 0\n")
    yield workspace
    subprocess.run(["umount", "--lazy", str(state)], capture_output=True, check=False)


def resize(space: Workspace, free_kb: int | None) -> None:
    """Leave so much free space on the state's disk; None for plenty."""
    state = space.root / "state"
    used = shutil.disk_usage(state).used // 1024
    assert mount("-o", f"remount,size={used + free_kb}k" if free_kb is not None else "remount,size=500m", str(state))


# The less there is, the earlier the step that meets the end of the disk.
@pytest.mark.parametrize("free_kb", [pytest.param(100, marks=pytest.mark.long), 1_500])
def test_disk_that_fills_up_on_the_way_costs_nothing(small_disk: Workspace, free_kb: int) -> None:
    assert small_disk.run().code == 0
    before = published(small_disk)
    small_disk.day(
        "random", [message(n, f"message {n} " + "of many words " * 60) for n in range(1_000, 4_000)], day=NEXT_DAY
    )
    resize(small_disk, free_kb)
    full = as_a_process(small_disk, "run")
    assert full.code == 1
    assert full.body["error"]["kind"] == "ResourceError"
    assert_one_line(full.err, "disk full", "free some space")
    resize(small_disk, None)
    assert before.items() <= published(small_disk).items()
    again = small_disk.run()
    assert again.code == 0
    assert again.body["index_rows"]["after"] > 3_000
    assert_kept(small_disk, before, again)
