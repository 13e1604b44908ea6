"""What becomes of the records of an export's files."""

from __future__ import annotations

import json
import zipfile
from collections import Counter
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedding.errors import RejectedRecord
from embedding.records import Document, Rejected, Removed, Skipped
from jobs.sources.slack_export_parser import Channel, parse_channels, parse_users, read_day
from tests.support.paths import ROOT

UBUNTU = ROOT / "../shared/data/slack-ubuntu.zip"
CHANNEL = Channel("C1", "general")
TS = "1503435956.000247"
LATER = "1503435960.000100"
Outcome = Document | Rejected | Removed | Skipped


def read_bytes(data: bytes, channel: Channel = CHANNEL, names: Mapping[str, str] | None = None) -> list[Outcome]:
    return list(read_day(data, team_id="T01", channel=channel, names=names or {"U1": "Ada"}))


def read(*records: object, channel: Channel = CHANNEL) -> list[Outcome]:
    return read_bytes(json.dumps(records).encode(), channel)


def message(text: object = "hello", **fields: object) -> dict[str, object]:
    return {"type": "message", "user": "U1", "text": text, "ts": TS, **fields}


def document(*records: object) -> Document:
    (outcome,) = read(*records)
    assert isinstance(outcome, Document), outcome
    return outcome


def summary(outcomes: list[Outcome]) -> list[str]:
    return [outcome.text if isinstance(outcome, Document) else outcome.reason for outcome in outcomes]


def test_a_message() -> None:
    assert document(message("hello <@U2>")) == Document(
        doc_id=f"T01/m/C1/{TS}",
        team_id="T01",
        channel_id="C1",
        channel_name="general",
        kind="message",
        created_at=1503435956000247,
        updated_at=1503435956000247,
        version=1503435956000247,
        text="hello @U2",
        meta={"user": "U1", "author": "Ada"},
        refs=frozenset({"U1", "U2", "C1"}),
        mentions=("U2",),
        author="Ada",
        author_id="U1",
    )


def test_an_edit_time_is_the_version() -> None:
    found = document(message(edited={"user": "U1", "ts": LATER}))
    assert (found.created_at, found.updated_at, found.version) == (1503435956000247, 1503435960000100, 1503435960000100)
    assert found.meta["edited"] is True


def test_a_reply_knows_its_parent_and_a_parent_is_no_reply() -> None:
    reply = document(message(ts=LATER, thread_ts=TS, subtype="thread_broadcast"))
    assert (reply.meta["thread_ts"], reply.meta["parent"]) == (TS, f"T01/m/C1/{TS}")
    assert "parent" not in document(message(thread_ts=TS, reply_count=1)).meta


@pytest.mark.parametrize(
    ("fields", "author"),
    [
        ({"user": "U1", "user_profile": {"real_name": "x"}}, "Ada"),
        ({"user": "U9", "user_profile": {"display_name": "", "real_name": "Grace"}}, "Grace"),
        ({"user": "U9"}, "U9"),
        ({"user": None, "bot_id": "B1", "username": "builder"}, "builder"),
        ({"user": None, "bot_id": "B1", "bot_profile": {"name": "Jenkins"}}, "Jenkins"),
    ],
)
def test_author(fields: dict[str, object], author: str) -> None:
    assert document({**message(), **fields}).meta["author"] == author


def test_other_metadata_is_there_only_where_it_says_something() -> None:
    record = message(
        "see <https://x.io/a?b=c>",
        subtype="bot_message",
        bot_id="B1",
        files=[{"title": "plan"}],
        team="T02",
        user_team="T01",
    )
    (found,) = read(record, channel=Channel("G1", "secret", "private"))
    assert isinstance(found, Document)
    assert found.meta == {
        "user": "U1",
        "author": "Ada",
        "links": ["https://x.io/a"],
        "files": ["plan"],
        "subtype": "bot_message",
        "private": True,
        "bot": True,
        "team": "T02",
    }
    assert found.team_id == "T01"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'[{"ts": "1.0"',
        b"{}",
        b"null",
        b"\xff\xfe[]",
        '["\u00e9"]'.encode("latin-1"),
        "[]".encode("utf-16"),
        b"[" * 100_000,
    ],
)
def test_a_broken_file_is_one_rejection_of_the_whole(data: bytes) -> None:
    (found,) = read_bytes(data)
    assert isinstance(found, Rejected)
    assert (found.key, found.reason, found.whole) == ("", "bad_json", True)


def test_odd_but_readable_json() -> None:
    assert read_bytes(b"[]") == []
    assert summary(read_bytes(b"\xef\xbb\xbf" + json.dumps([message()]).encode())) == ["hello"]
    surrogate_and_nan = rb'[{"ts": "1.000001", "text": "a\ud800b", "x": NaN}]'
    assert summary(read_bytes(surrogate_and_nan)) == ["a\ufffdb"]


@pytest.mark.parametrize(
    ("record", "key", "reason"),
    [
        (7, "@0", "not_an_object"),
        (None, "@0", "not_an_object"),
        ({"text": "a canvas"}, "@0", "missing_ts"),
        (message(ts=""), "@0", "missing_ts"),
        (message(ts=1503435956.000247), "@0", "bad_ts"),
        (message(ts="yesterday"), "@0", "bad_ts"),
        (message(ts="\u0661.\u0662"), "@0", "bad_ts"),
        (message(ts=TS + "\n"), "@0", "bad_ts"),
        (message(text=5), TS, "bad_record"),
        (message(user=["U1"]), TS, "bad_record"),
        (message(subtype={}, blocks={"a": 1}), TS, "bad_record"),
        (message(subtype="message_changed", message=None), TS, "bad_record"),
    ],
)
def test_rejections(record: object, key: str, reason: str) -> None:
    (found,) = read(record)
    assert isinstance(found, Rejected)
    assert (found.key, found.reason, found.channel_id, found.whole) == (key, reason, "C1", False)
    assert found.doc_id == ("" if key.startswith("@") else f"T01/m/C1/{key}")
    assert bool(found.digest) == (found.doc_id == ""), "a record without an id is told from others by its content"


def test_a_rejection_tells_the_fault_but_no_text() -> None:
    (fault,) = read(message(text=["secret"]))
    assert isinstance(fault, Rejected)
    assert fault.detail == "TypeError"


def digests(data: str) -> list[str]:
    return [outcome.digest for outcome in read_bytes(data.encode()) if isinstance(outcome, Rejected)]


def test_a_record_without_a_time_is_known_again_wherever_and_however_it_is_written() -> None:
    once = '{"text": "\\ud800 when?", "n": 1}'
    assert len({*digests(f"[{once}]"), *digests(f'[{{"ts": "1.0", "text": "x"}}, {once}]')}) == 1
    assert digests(f"[{once}]") == digests('[ {"n":1,"text":"\\ud800 when?"} ]')
    assert digests(f"[{once}]") != digests(once.replace("1", "2").join("[]"))
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    assert digests(f"[{deep}]") == digests(f"[7, {deep} ]")[1:] != digests(f"[{deep.replace('1', '2')}]")
    nested = '{"a":' * 1000 + "1" + "}" * 1000
    assert len(digests(f"[{nested}]")) == 1, "just not too deep to be read"


@pytest.mark.parametrize(
    "subtype",
    [
        "channel_join",
        "channel_topic",
        "pinned_item",
        "bot_add",
        "message_replied",
        "welcome_party",
        "channel_tab_added",
    ],
)
def test_housekeeping_is_skipped(subtype: str) -> None:
    assert read(message("joined", subtype=subtype)) == [Skipped("housekeeping")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "a poll: tea or coffee?"}, "a poll: tea or coffee?"),
        ({"text": "deployed", "user": None, "bot_id": "B1"}, "deployed"),
        ({"text": "", "blocks": [{"type": "header", "text": {"text": "Poll"}}]}, "Poll"),
        ({"text": ""}, "housekeeping"),
        ({"text": "a tab was added", "user": None}, "housekeeping"),
        ({"text": "<@U5> joined the party", "user": "USLACKBOT"}, "housekeeping"),
        ({"text": "<@U1> pinned a tab"}, "housekeeping"),
        ({"text": "<@U1|ada> pinned a tab"}, "housekeeping"),
        ({"text": "<@U2> have a look"}, "@U2 have a look"),
    ],
)
def test_a_subtype_that_is_new_is_a_message_where_somebody_says_something(
    fields: dict[str, object], expected: str
) -> None:
    """Slack adds subtypes all the time; none of them is a reason to fail for ever."""
    assert summary(read({**message(subtype="brand_new"), **fields})) == [expected]


@pytest.mark.parametrize(
    "subtype", ["bot_message", "me_message", "thread_broadcast", "file_share", "slackbot_response"]
)
def test_content_subtypes_are_messages(subtype: str) -> None:
    assert document(message(subtype=subtype)).text == "hello"


def test_a_call_is_housekeeping_unless_it_says_something() -> None:
    assert summary(read(message("", subtype="huddle_thread"), message("notes", subtype="huddle_thread", ts=LATER))) == [
        "housekeeping",
        "notes",
    ]


def test_old_exports_share_and_comment_on_files() -> None:
    share = message("up", subtype="file_share", file={"name": "a.txt", "url_private": "https://x/?t=xoxe-1"})
    comment = {"ts": LATER, "subtype": "file_comment", "text": "", "comment": {"comment": "nice", "user": "U1"}}
    shared, commented = read(share, comment)
    assert isinstance(shared, Document)
    assert isinstance(commented, Document)
    assert (shared.text, commented.text, commented.meta["author"]) == ("up\na.txt", "nice", "Ada")


def removed(version: int, *, deleted: bool, ts: str = TS, created: int = 1503435956000247) -> Removed:
    reason = "deleted" if deleted else "empty_text"
    return Removed(f"T01/m/C1/{ts}", "T01", "C1", "message", created, version, reason, deleted)


@pytest.mark.parametrize(
    ("event", "version"),
    [
        ({"ts": LATER, "subtype": "message_deleted", "hidden": True, "deleted_ts": TS}, 1503435960000100),
        ({"ts": LATER, "subtype": "message_deleted", "previous_message": {"ts": TS}}, 1503435960000100),
        ({"ts": TS, "subtype": "tombstone", "text": "This message was deleted."}, 1503435956000247),
        ({"ts": TS, "subtype": "tombstone", "edited": {"ts": LATER}}, 1503435960000100),
        ({"ts": TS, "hidden": True, "deleted": True}, 1503435956000247),
        ({"ts": LATER, "subtype": "message_changed", "message": {"ts": TS, "subtype": "tombstone"}}, 1503435960000100),
    ],
)
def test_a_deletion_is_an_event_with_the_id_that_it_names(event: dict[str, object], version: int) -> None:
    gone = removed(version, deleted=True)
    assert read(event) == [gone], "the message may stand in another file"
    assert read(message(), event) == [Skipped("superseded"), gone]
    assert read(event, message()) == [gone, Skipped("superseded")]


def test_a_deletion_of_who_knows_what_is_in_quarantine() -> None:
    (found,) = read({"ts": LATER, "subtype": "message_deleted", "deleted_ts": "yesterday"})
    assert isinstance(found, Rejected)
    assert (found.reason, found.doc_id) == ("bad_ts", "")


def test_a_message_that_came_back_after_its_deletion_is_there() -> None:
    event = {"ts": LATER, "subtype": "message_deleted", "deleted_ts": TS}
    back = message("back", edited={"ts": "1503435961.000000"})
    for records, expected in (((event, back), ["superseded", "back"]), ((back, event), ["back", "superseded"])):
        assert summary(read(*records)) == expected
    at_once = message("edited at that very moment", edited={"ts": LATER})
    assert read(at_once, event) == [Skipped("superseded"), removed(1503435960000100, deleted=True)]


@pytest.mark.parametrize(
    "record",
    [
        message(""),
        message(" \x00 "),
        message("", files=[{"id": "F1", "mode": "tombstone"}]),
        message("", files=[{"id": "F1", "mode": "tombstone", "title": "This file was deleted."}]),
        message("", files=[{"id": "F1", "mode": "hidden_by_limit", "name": "a.png"}]),
        message("", blocks=[], attachments=[{"fallback": "[no preview available]"}]),
    ],
)
def test_a_message_without_text_is_one_that_was_emptied(record: dict[str, object]) -> None:
    assert read(record) == [removed(1503435956000247, deleted=False)]
    edited = {**record, "edited": {"user": "U1", "ts": LATER}}
    assert read(edited) == [removed(1503435960000100, deleted=False)]
    assert read(edited, message("before")) == [removed(1503435960000100, deleted=False), Skipped("superseded")]


def test_a_change_event_replaces_the_message() -> None:
    event = {"ts": LATER, "subtype": "message_changed", "hidden": True, "message": message("new")}
    for records, expected in (((message(), event), ["superseded", "new"]), ((event, message()), ["new", "superseded"])):
        found = read(*records)
        assert summary(found) == expected
        (new,) = (outcome for outcome in found if isinstance(outcome, Document))
        assert (new.doc_id, new.version) == (f"T01/m/C1/{TS}", 1503435960000100)


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ((message("a"), message("a")), ["duplicate", "a"]),
        ((message("a"), message("b")), ["duplicate_ts", "b"]),
        ((message("b", edited={"ts": LATER}), message("a")), ["b", "superseded"]),
        ((message("b", edited={"ts": LATER}), message("a", edited={"ts": LATER})), ["duplicate_ts", "a"]),
        ((message("a"), message("b", user="U2", edited={"ts": LATER})), ["duplicate_ts", "b"]),
        ((message("a"), message("", edited={"ts": LATER})), ["superseded", "empty_text"]),
        ((message("a"), message("")), ["superseded", "empty_text"]),
        ((message(""), message("a")), ["superseded", "a"]),
        ((message("a", edited={"ts": LATER}), message("")), ["a", "superseded"]),
        (
            (message("a"), message("b"), {"ts": LATER, "subtype": "message_deleted", "deleted_ts": TS}),
            ["superseded", "superseded", "deleted"],
        ),
        ((message("joined", subtype="channel_join"), message("a")), ["housekeeping", "a"]),
    ],
)
def test_several_records_of_one_ts(records: tuple[object, ...], expected: list[str]) -> None:
    assert summary(read(*records)) == expected


def test_rejections_have_unique_keys() -> None:
    found = read(message("a"), message("b"), {**message(), "text": []}, message("c"))
    assert [outcome.key for outcome in found if isinstance(outcome, Rejected)] == [TS, "@1", "@2"]
    assert {outcome.doc_id for outcome in found if not isinstance(outcome, Skipped)} == {f"T01/m/C1/{TS}"}


def test_users_by_display_name_then_real_name_then_handle() -> None:
    users = [
        {"id": "U1", "name": "a", "real_name": "Ada L", "profile": {"display_name": "ada"}},
        {"id": "U2", "name": "b", "real_name": "Bob", "profile": {"display_name": " "}},
        {"id": "U3", "name": "c", "profile": None},
        {"id": "U4"},
        {"name": "no id"},
        "no object",
    ]
    assert parse_users(json.dumps(users).encode()) == {"U1": "ada", "U2": "Bob", "U3": "c"}


def test_channels_by_folder() -> None:
    channels = [{"id": "C1", "name": "general"}, {"id": "C2", "name": "hush", "is_private": True}, {"id": "D1"}, {}, 3]
    assert parse_channels(json.dumps(channels).encode()) == {
        "general": Channel("C1", "general"),
        "hush": Channel("C2", "hush", "private"),
        "D1": Channel("D1", "D1", "direct"),
    }
    was_a_group = b'[{"id": "G1", "name": "open", "is_private": false}, {"id": "G2", "name": "old"}]'
    assert {c.name: c.private for c in parse_channels(was_a_group).values()} == {"open": False, "old": True}
    assert parse_channels(b'[{"id": "C3", "name": "x"}]', private=True) == {"x": Channel("C3", "x", "private")}


@pytest.mark.parametrize("parse", [parse_users, parse_channels])
@pytest.mark.parametrize("data", [b"", b"[{", b"{}", b"\xff"])
def test_broken_name_files_are_rejected(parse: object, data: bytes) -> None:
    assert callable(parse)
    with pytest.raises(RejectedRecord) as caught:
        parse(data)
    assert caught.value.reason == "bad_json"


ATOMS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from([TS, "rich_text"])
)
KEYS = st.sampled_from(
    [
        "ts",
        "text",
        "subtype",
        "user",
        "blocks",
        "elements",
        "type",
        "attachments",
        "fields",
        "files",
        "file",
        "comment",
        "edited",
        "thread_ts",
        "message",
        "hidden",
        "deleted",
        "deleted_ts",
        "user_profile",
        "bot_profile",
        "bot_id",
        "title",
        "rows",
        "style",
        "team",
    ]
)
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5), max_leaves=12
)
RECORDS = VALUES | st.fixed_dictionaries(
    {"ts": st.sampled_from([TS, LATER])},
    optional={
        "subtype": st.sampled_from(["message_changed", "message_deleted", "bot_message", "huddle_thread", "odd"])
        | VALUES,
        "message": st.dictionaries(KEYS, VALUES, max_size=4),
        "text": st.text() | VALUES,
        "edited": VALUES,
        "blocks": st.lists(VALUES, max_size=3),
        "attachments": st.lists(VALUES, max_size=3),
    },
)


@settings(max_examples=300)
@given(st.lists(RECORDS, max_size=4))
def test_every_record_comes_to_exactly_one_outcome(records: list[object]) -> None:
    outcomes = read(*records)
    assert len(outcomes) == len(records)
    keys = [outcome.key for outcome in outcomes if isinstance(outcome, Rejected)]
    documents = [outcome.doc_id for outcome in outcomes if isinstance(outcome, Document | Removed)]
    assert len(set(keys)) == len(keys)
    assert len(set(documents)) == len(documents)
    for outcome in outcomes:
        if isinstance(outcome, Document):
            assert outcome.text
            json.dumps(outcome.meta, ensure_ascii=False).encode()  # no lone surrogate gets as far as the tables


@settings(max_examples=100)
@given(st.binary(max_size=60))
def test_any_bytes_are_read(data: bytes) -> None:
    read_bytes(data)


def test_ubuntu_export() -> None:
    if not UBUNTU.exists():
        pytest.skip("the shared sample export is not on this machine")
    counts: Counter[str] = Counter()
    with zipfile.ZipFile(UBUNTU) as archive:
        names = parse_users(archive.read("users.json"))
        channels = parse_channels(archive.read("channels.json"))
        for path in archive.namelist():
            if path.count("/") != 1 or not path.endswith(".json"):
                continue
            for outcome in read_bytes(archive.read(path), channels[path.partition("/")[0]], names):
                counts["said" if isinstance(outcome, Document | Rejected) else outcome.reason] += 1
                counts["rejected"] += isinstance(outcome, Rejected)
                counts["replies"] += isinstance(outcome, Document) and "parent" in outcome.meta
    assert len(names) == 3711
    assert (counts["said"], counts["rejected"], counts["housekeeping"]) == (25_469, 0, 2_027)
    assert counts["empty_text"] == 4
    # The export holds 6,107 replies; 20 of them hang on a channel_leave.
    assert counts["replies"] == 6_087


def test_whom_a_message_names_is_known_by_id() -> None:
    """In its text or its blocks, each once; what is no id of a person is none."""
    elements = [{"type": "user", "user_id": "U4"}, {"type": "usergroup", "usergroup_id": "S1"}]
    section = {"type": "rich_text_section", "elements": elements}
    said = document(
        message(
            f"<@U3> and <@U2|grace> and <@U3>, see <#C9> <!here> <@{'U' * 65}> <@no one>",
            blocks=[{"type": "rich_text", "elements": [section]}],
        )
    )
    assert said.mentions == ("U2", "U3", "U4")
    assert document(message("nobody")).mentions == ()


@pytest.mark.parametrize(
    ("fields", "came"),
    [
        ({}, False),
        ({"files": [{"id": "F1", "title": "plan.pdf"}]}, True),
        ({"files": [{"id": "F1"}]}, True),
        ({"file": {"id": "F1", "title": "plan.pdf"}, "subtype": "file_share"}, True),
        ({"files": [{"id": "F1", "mode": "tombstone"}]}, False),
        ({"file": {"id": "F1", "title": "plan.pdf"}, "subtype": "file_mention"}, False),
        ({"files": []}, False),
    ],
    ids=[
        "no file",
        "a file",
        "a file without a title",
        "the older form",
        "deleted",
        "names another's",
        "an empty list",
    ],
)
def test_a_message_says_whether_a_file_came_with_it(fields: dict[str, object], came: bool) -> None:
    assert document(message("look", **fields)).has_file is came
