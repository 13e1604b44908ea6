"""Parses the files of a Slack export: users, channels, and the messages of one day file.

Pure: bytes in, ``Record`` (embedding.records) out, exactly one for each record of the file.
Never touches a file system and never raises for what a record holds; listing and opening an export is
``jobs/sources/slack.py``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import orjson

from embedding import ids
from embedding.errors import RejectedRecord
from embedding.records import Document, Record, Rejected, Skipped
from embedding.slack_text import normalise_label, normalise_message

_TS = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,6}))?")  # 11 digits of seconds last to the year 5138
_DELETIONS = frozenset({"message_deleted", "tombstone"})
# Subtypes that people or bots say something with.
_CONTENT = frozenset({
    "ai_message", "app_message", "assistant_app_thread", "bot_message", "canvas_comment",
    "document_comment_root", "document_mention", "file_comment", "file_mention", "file_share",
    "list_record_comment", "me_message", "reply_broadcast", "slackbot_response", "thread_broadcast",
})  # fmt: skip
# Subtypes that Slack writes about the conversation itself.
_HOUSEKEEPING = frozenset({
    "app_conversation_join", "app_conversation_leave", "bot_add", "bot_channel_join", "bot_channel_leave",
    "bot_disable", "bot_enable", "bot_remove", "canvas_shared_updated", "channel_archive",
    "channel_canvas_updated", "channel_convert_to_private", "channel_convert_to_public", "channel_join",
    "channel_leave", "channel_name", "channel_posting_permissions", "channel_purpose", "channel_shared",
    "channel_topic", "channel_unarchive", "channel_unshared", "ekm_access_denied", "external_channel_archived",
    "group_archive", "group_join", "group_leave", "group_name", "group_purpose", "group_topic",
    "group_unarchive", "joiner_notification", "joiner_notification_for_inviter", "message_replied", "mpim_join",
    "mpim_leave", "pinned_item", "reminder_add", "reminder_delete", "sh_room_ended", "shared_channel_join",
    "shared_channel_leave", "tabbed_canvas_updated", "thread_locked", "thread_unlocked",
    "unfurl_suggestion_warning", "unpinned_item", "workflow_posting_permissions",
})  # fmt: skip
_CALLS = frozenset({"huddle_thread", "sh_room_created", "sh_room_shared"})  # housekeeping, unless they say something
TOO_DEEP = object()  # stands for a record that is nested deeper than JSON can be read
_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)
_TYPES: tuple[tuple[str, type], ...] = (
    ("text", str), ("user", str), ("username", str), ("bot_id", str), ("thread_ts", str), ("blocks", list),
    ("attachments", list), ("files", list), ("file", dict), ("comment", dict), ("edited", dict),
    ("user_profile", dict), ("bot_profile", dict),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Channel:
    """A conversation of the export, known by its folder's name."""

    id: str
    name: str
    private: bool = False


def parse_users(data: bytes) -> dict[str, str]:
    """Display names by user id from ``users.json``: display name, else real name, else handle."""
    names = {}
    for entry in _entries(data):
        profile = entry.get("profile")
        known = profile if isinstance(profile, dict) else {}
        candidates = (
            known.get("display_name"), entry.get("real_name"), known.get("real_name"), entry.get("name"),
        )  # fmt: skip
        if (user := _text(entry, "id")) and (name := _first_name(*candidates)):
            names[user] = name
    return names


def parse_channels(data: bytes, *, private: bool = False) -> dict[str, Channel]:
    """Channels by folder name, from ``channels.json``, ``groups.json``, ``mpims.json`` or ``dms.json``.

    Pass ``private`` for the last three: their entries do not always say so themselves. A direct message has no name
    and its folder is named by its id.
    """
    channels = {}
    for entry in _entries(data):
        channel = normalise_label(_text(entry, "id"))
        if not channel:
            continue
        folder = _text(entry, "name") or channel
        hidden = private or any(entry.get(key) is True for key in ("is_private", "is_group", "is_im", "is_mpim"))
        channels[folder] = Channel(channel, normalise_label(folder) or channel, hidden or channel[0] in "DG")
    return channels


def read_day(data: bytes, *, team_id: str, channel: Channel, names: Mapping[str, str]) -> Iterator[Record]:
    """Read the bytes of one day file. Edits and deletions within the file are applied, in whatever order they stand."""
    try:
        records = _load(data)
        if not isinstance(records, list):
            raise ValueError
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        yield Rejected("", "bad_json", "not a JSON array of messages in UTF-8", channel.id, whole=True)
        return
    day = _Day(team_id, channel, names)
    outcomes = [day.read(index, record) for index, record in enumerate(records)]
    day.settle(outcomes)
    used: set[str] = set()
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Rejected):
            if outcome.key in used:  # a key is unique in its partition; the doc_id still names the message
                outcome = _rekeyed(outcome, f"@{index}")
            used.add(outcome.key)
        yield outcome


class _Day:
    """The records of one day file while it is read: what each of them came to, by position and by ts."""

    def __init__(self, team_id: str, channel: Channel, names: Mapping[str, str]) -> None:
        self.team_id = team_id
        self.channel = channel
        self.names = names
        self._positions: dict[str, list[int]] = {}  # of what was said under a ts
        self._edits: dict[int, int] = {}  # edit time by position; absent where unedited
        self._deleted: set[str] = set()

    def read(self, index: int, record: object) -> Record:
        """What one record comes to, taken by itself. Never raises."""
        ts = ""
        try:
            if record is TOO_DEEP:
                return self._reject(index, "too_deep")
            if not isinstance(record, dict):
                return self._reject(index, "not_an_object")
            if reason := _ts_fault(record):
                return self._reject(index, reason)
            ts = record["ts"]
            subtype = record.get("subtype") or ""
            edited_at = None
            if subtype == "message_changed":
                edited_at = _micros(ts)
                record = record.get("message")
                if not isinstance(record, dict):
                    raise TypeError
                if reason := _ts_fault(record):
                    return self._reject(index, reason)
                ts = record["ts"]
                subtype = record.get("subtype") or ""
            if not isinstance(subtype, str):
                raise TypeError
            if subtype in _DELETIONS or (record.get("hidden") and (record.get("deleted") or "deleted_ts" in record)):
                self._deleted.add(_deleted_ts(record))
                return Skipped("deleted")
            if subtype in _HOUSEKEEPING:
                return Skipped("housekeeping")
            if subtype and subtype not in _CONTENT and subtype not in _CALLS:
                detail = re.sub(r"[^a-z0-9_]", "_", subtype.lower())[:40]
                return self._reject(index, "unknown_subtype", detail, ts)
            for key, kind in _TYPES:
                value = record.get(key)
                if value is not None and not isinstance(value, kind):
                    raise TypeError
            edited_at = _edit_time(record) or edited_at
            document = self._document(record, ts, subtype, edited_at)
            if document is None and subtype in _CALLS:
                return Skipped("housekeeping")
            self._positions.setdefault(ts, []).append(index)
            if edited_at is not None:
                self._edits[index] = edited_at
            return document or self._reject(index, "empty_text", ts=ts)
        except Exception as error:  # one odd record must not cost the other messages of its day
            return self._reject(index, "bad_record", type(error).__name__, ts)

    def settle(self, outcomes: list[Record]) -> None:
        """Apply deletions, and let one record win where several have the same ts."""
        for ts, positions in self._positions.items():
            if ts in self._deleted:
                for index in positions:
                    outcomes[index] = Skipped("deleted")
            elif len(positions) > 1:
                # The later edit wins, even where it left no text; among equals a document, and then the last.
                winner = max(positions, key=lambda i: (self._edits.get(i, -1), isinstance(outcomes[i], Document), i))
                for index in positions:
                    if index != winner:
                        outcomes[index] = self._lost(index, winner, ts, outcomes)

    def _lost(self, index: int, winner: int, ts: str, outcomes: list[Record]) -> Record:
        loser, best = outcomes[index], outcomes[winner]
        older = self._edits.get(index, -1) < self._edits.get(winner, -1)
        if isinstance(loser, Document) and isinstance(best, Document):
            same_user = loser.meta.get("user") == best.meta.get("user")
            if same_user and loser.text == best.text:
                return Skipped("duplicate")
            return Skipped("superseded") if same_user and older else self._reject(index, "duplicate_ts", ts=ts)
        return Skipped("superseded") if older else loser

    def _reject(self, index: int, reason: str, detail: str = "", ts: str = "") -> Rejected:
        if not ts:
            return Rejected(f"@{index}", reason, detail, self.channel.id)
        doc_id = ids.message_id(self.team_id, self.channel.id, ts)
        return Rejected(ts, reason, detail, self.channel.id, _micros(ts), doc_id=doc_id)

    def _document(self, message: dict[str, object], ts: str, subtype: str, edited_at: int | None) -> Document | None:
        content = normalise_message(message, self.names)
        if not content.text:
            return None
        created_at = _micros(ts)
        updated_at = max(created_at, edited_at or 0)
        user, author = self._author(message)
        bot = subtype == "bot_message" or bool(message.get("bot_id"))
        meta: dict[str, object] = {}
        if user:
            meta["user"] = user
        if author:
            meta["author"] = author
        thread_ts = message.get("thread_ts")
        if isinstance(thread_ts, str) and thread_ts != ts and _TS.fullmatch(thread_ts):
            meta["thread_ts"] = thread_ts
            meta["parent"] = ids.message_id(self.team_id, self.channel.id, thread_ts)
        if content.links:
            meta["links"] = list(content.links)
        if content.files:
            meta["files"] = list(content.files)
        if subtype in ("bot_message", "me_message"):
            meta["subtype"] = subtype
        for key, holds in (("private", self.channel.private), ("edited", edited_at is not None), ("bot", bot)):
            if holds:
                meta[key] = True
        for key in ("team", "user_team"):  # the writer's home, in a channel shared between workspaces
            if (team := _text(message, key)) and team != self.team_id:
                meta[key] = normalise_label(team)
        refs = content.refs | {self.channel.id, user} if user else content.refs | {self.channel.id}
        return Document(
            doc_id=ids.message_id(self.team_id, self.channel.id, ts),
            team_id=self.team_id,
            channel_id=self.channel.id,
            channel_name=self.channel.name,
            kind="message",
            created_at=created_at,
            updated_at=updated_at,
            version=updated_at,
            text=content.text,
            meta=meta,
            refs=refs,
        )

    def _author(self, message: dict[str, object]) -> tuple[str, str]:
        user = _text(message, "user") or _text(message.get("comment"), "user") or _text(message, "bot_id")
        if not user.isalnum():
            user = normalise_label(user)
        if user and (name := self.names.get(user)):
            return user, name
        profile = message.get("user_profile")
        known = (_text(profile, "display_name"), _text(profile, "real_name"), _text(profile, "name"))
        name = _first_name(*known, message.get("username"), _text(message.get("bot_profile"), "name"))
        return user, name or user


def _load(data: bytes) -> object:
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError:
        # orjson refuses lone surrogates and NaN, which real exports hold. Decoded here, since json would guess UTF-16.
        text = data.decode()
    try:
        return _decode(text)
    except RecursionError:
        return [_record(part) for part in _elements(text)]


def _decode(text: str) -> object:
    # Python makes no int of more digits than this, and would refuse the day for one.
    return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) < 4000 else float(digits))


def _record(text: str) -> object:
    try:
        return _decode(text)
    except RecursionError:
        return TOO_DEEP


def _elements(text: str) -> Iterator[str]:
    """The elements of an array, by its brackets alone: one that is nested too deep is not to cost the others."""
    if not text.lstrip().startswith("["):
        raise ValueError
    depth = start = 0
    for token in _BRACKETS.finditer(text):
        if token[0] in ("[", "{"):
            depth += 1
            if depth == 1:
                start = token.end()
        elif token[0] in ("]", "}"):
            depth -= 1
        if depth == 0 and token[0][0] != '"' or depth == 1 and token[0] == ",":
            yield text[start : token.start()]
            start = token.end()
    if depth or text[start:].strip():
        raise ValueError


def _entries(data: bytes) -> Iterator[dict[str, object]]:
    try:
        entries = _load(data)
        if not isinstance(entries, list):
            raise ValueError
    except (ValueError, RecursionError):
        raise RejectedRecord("bad_json", "not a JSON array in UTF-8") from None
    return (entry for entry in entries if isinstance(entry, dict))


def _text(record: object, key: str) -> str:
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, str) else ""


def _first_name(*candidates: object) -> str:
    return next((name for value in candidates if isinstance(value, str) and (name := normalise_label(value))), "")


def _ts_fault(record: dict[str, object]) -> str:
    ts = record.get("ts")
    if ts is None or ts == "":
        return "missing_ts"
    return "" if isinstance(ts, str) and _TS.fullmatch(ts) else "bad_ts"


def _micros(ts: str) -> int:
    """Microseconds of a checked ts. By digits: a float has too few of them."""
    seconds, _, fraction = ts.partition(".")
    return int(seconds) * 1_000_000 + int(fraction.ljust(6, "0") or "0")


def _edit_time(record: dict[str, object]) -> int | None:
    edited = record.get("edited")
    if not isinstance(edited, dict):
        return None
    ts = _text(edited, "ts")
    return _micros(ts) if _TS.fullmatch(ts) else 0  # edited, nobody knows when: before any known edit


def _deleted_ts(record: dict[str, object]) -> str:
    """The ts that a deletion takes away: another message's for an event, its own for a tombstone."""
    return _text(record, "deleted_ts") or _text(record.get("previous_message"), "ts") or _text(record, "ts")


def _rekeyed(rejected: Rejected, key: str) -> Rejected:
    return Rejected(
        key, rejected.reason, rejected.detail, rejected.channel_id, rejected.created_at, doc_id=rejected.doc_id
    )
