"""Parses the files of a Slack export: users, channels, and the messages of one day file.

Pure: bytes in, ``Record`` (embedding.records) out, exactly one for each record of the file.
Never touches a file system and never raises for what a record holds; listing and opening an export is
``jobs/sources/slack_export.py``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from embedding import ids
from embedding.records import Document, Record, Rejected, Removed, Skipped, Visibility
from embedding.text.slack import normalise_label, normalise_message
from embedding.text.slack_files import has_file
from jobs.sources.slack_events import (
    CALLS,
    deleted_ts,
    edit_time,
    is_deletion,
    is_housekeeping,
    is_known,
    is_ts,
    micros,
    text_of,
    ts_fault,
)
from jobs.sources.slack_json import TooDeep, digest, entries, load

_TYPES: tuple[tuple[str, type], ...] = (
    ("text", str),
    ("user", str),
    ("username", str),
    ("bot_id", str),
    ("thread_ts", str),
    ("blocks", list),
    ("attachments", list),
    ("files", list),
    ("file", dict),
    ("comment", dict),
    ("edited", dict),
    ("user_profile", dict),
    ("bot_profile", dict),
)


@dataclass(frozen=True, slots=True)
class Channel:
    """A conversation of the export, known by its folder's name. ``workspace`` is set in an Enterprise Grid export."""

    id: str
    name: str
    visibility: Visibility = "public"
    workspace: str = ""

    @property
    def private(self) -> bool:
        """Whether only its members may read it."""
        return self.visibility in ("private", "direct")


def parse_users(data: bytes) -> dict[str, str]:
    """Display names by user id from ``users.json``: display name, else real name, else handle."""
    names = {}
    for entry in entries(data):
        profile = entry.get("profile")
        known = profile if isinstance(profile, dict) else {}
        candidates = (
            known.get("display_name"),
            entry.get("real_name"),
            known.get("real_name"),
            entry.get("name"),
        )
        if (user := text_of(entry, "id")) and (name := _first_name(*candidates)):
            names[user] = name
    return names


def parse_channels(data: bytes, *, private: bool = False) -> dict[str, Channel]:
    """Channels by folder name, from ``channels.json``, ``groups.json``, ``mpims.json`` or ``dms.json``.

    Pass ``private`` for the last three: their entries do not always say so themselves. A direct message has no name
    and its folder is named by its id.
    """
    channels = {}
    for entry in entries(data):
        channel = normalise_label(text_of(entry, "id"))
        if not channel:
            continue
        folder = text_of(entry, "name") or channel
        hidden = private or any(entry.get(key) is True for key in ("is_private", "is_group", "is_im", "is_mpim"))
        # A channel keeps its id when it becomes private or public, so that the id decides only where nothing else does.
        hidden = hidden or channel[0] == "D" or (channel[0] == "G" and entry.get("is_private") is not False)
        direct = channel[0] == "D" or any(entry.get(key) is True for key in ("is_im", "is_mpim"))
        shared = any(entry.get(key) is True for key in ("is_ext_shared", "is_shared"))
        visibility: Visibility = "direct" if direct else "private" if hidden else "shared" if shared else "public"
        channels[folder] = Channel(channel, normalise_label(folder) or channel, visibility)
    return channels


def read_day(data: bytes, *, team_id: str, channel: Channel, names: Mapping[str, str]) -> Iterator[Record]:
    """Read the bytes of one day file. Edits and deletions within the file are applied, in whatever order they stand."""
    try:
        records = load(data)
        if not isinstance(records, list):
            raise ValueError
    except (ValueError, RecursionError):  # UnicodeDecodeError and JSONDecodeError are ValueErrors
        yield Rejected("", "bad_json", "not a JSON array of messages in UTF-8", channel.id, whole=True)
        return
    day = _Day(team_id, channel, names)
    outcomes = [day.read(index, record) for index, record in enumerate(records)]
    day.resolve_duplicates(outcomes)
    used: set[str] = set()
    for index, outcome in enumerate(outcomes):
        if isinstance(outcome, Rejected):
            if outcome.key in used:  # a key is unique in its partition; the doc_id still names the message
                outcome = replace(outcome, key=f"@{index}")
            used.add(outcome.key)
        yield outcome


def _check_types(message: Mapping[str, object]) -> None:
    """Raises TypeError where a field that is read later is of another type than Slack's."""
    for key, kind in _TYPES:
        value = message.get(key)
        if value is not None and not isinstance(value, kind):
            raise TypeError


class _Event(NamedTuple):
    """What happened to a message, in the order in which one event wins over another."""

    version: int
    deleted: bool  # of two at one time, a deletion
    edited: int  # -1: never; 0: at an unknown time
    place: int  # in the file; the last of what cannot be told apart otherwise

    def older(self, other: _Event) -> bool:
        """Whether the other happened later, and does not only stand later."""
        return self[:3] < other[:3]


class _Day:
    """The records of one day file while it is read: what each of them came to, and what happened to each message."""

    def __init__(self, team_id: str, channel: Channel, names: Mapping[str, str]) -> None:
        self.team_id = team_id
        self.channel = channel
        self.names = names
        self._events: dict[str, list[_Event]] = {}  # by the ts of the message

    def read(self, index: int, record: object) -> Record:
        """What one record comes to, taken by itself. Never raises."""
        if isinstance(record, TooDeep):
            return self._reject(index, "too_deep", record)
        if not isinstance(record, dict):
            return self._reject(index, "not_an_object", record)
        ts = ""
        try:
            if reason := ts_fault(record):
                return self._reject(index, reason, record)
            ts = record["ts"]
            message: Any = record
            happened = None
            if record.get("subtype") == "message_changed":
                message, happened = record.get("message"), micros(ts)
                if not isinstance(message, dict):
                    raise TypeError
                if reason := ts_fault(message):
                    return self._reject(index, reason, record)
                ts = message["ts"]
            return self._outcome(index, record, message, happened)
        except Exception as error:  # one odd record must not cost the other messages of its day
            return self._reject(index, "bad_record", record, type(error).__name__, ts)

    def _outcome(self, index: int, record: object, message: dict[str, object], happened: int | None) -> Record:
        """What a message comes to; ``happened`` is when ``record`` says that it was changed. Raises for an odd one."""
        ts, subtype = message["ts"], message.get("subtype") or ""
        if not isinstance(ts, str) or not isinstance(subtype, str):
            raise TypeError
        edited = edit_time(message)
        if happened is not None:
            edited = max(edited or 0, happened)
        version = max(micros(ts), edited or 0)
        if is_deletion(message, subtype):
            gone = deleted_ts(message)
            if not is_ts(gone):
                return self._reject(index, "bad_ts", record)
            self._happened(gone, _Event(version, True, -1, index))
            return self._removed(gone, version, "deleted")
        if is_housekeeping(message, subtype):
            return Skipped("housekeeping")
        _check_types(message)
        document = self._document(message, subtype, version, edited is not None)
        if subtype in CALLS and document is None:
            return Skipped("housekeeping")
        if not is_known(subtype) and (document is None or "author" not in document.meta):
            return Skipped("housekeeping")  # Slack's own, of a kind that is new: no user wrote it
        self._happened(ts, _Event(version, False, -1 if edited is None else edited, index))
        return document or self._removed(ts, version, "empty_text", deleted=False)

    def resolve_duplicates(self, outcomes: list[Record]) -> None:
        """Let the newest event win where several are of one message; what it replaces is counted."""
        for ts, events in self._events.items():
            if len(events) > 1:
                winner = max(events)
                for event in events:
                    if event is not winner:
                        outcomes[event.place] = self._lost(event, winner, ts, outcomes)

    def _happened(self, ts: str, event: _Event) -> None:
        self._events.setdefault(ts, []).append(event)

    def _lost(self, event: _Event, winner: _Event, ts: str, outcomes: list[Record]) -> Record:
        loser, best = outcomes[event.place], outcomes[winner.place]
        if not (isinstance(loser, Document) and isinstance(best, Document)):
            return Skipped("superseded")
        same_user = loser.meta.get("user") == best.meta.get("user")
        if same_user and loser.text == best.text:
            return Skipped("duplicate")
        if same_user and event.older(winner):
            return Skipped("superseded")
        return self._reject(event.place, "duplicate_ts", None, ts=ts)

    def _removed(self, ts: str, version: int, reason: str, *, deleted: bool = True) -> Removed:
        return Removed(
            doc_id=ids.message_id(self.team_id, self.channel.id, ts),
            team_id=self.team_id,
            channel_id=self.channel.id,
            kind="message",
            created_at=micros(ts),
            version=version,
            reason=reason,
            deleted=deleted,
        )

    def _reject(self, index: int, reason: str, record: object, detail: str = "", ts: str = "") -> Rejected:
        if not ts:
            return Rejected(f"@{index}", reason, detail, self.channel.id, digest=digest(record))
        doc_id = ids.message_id(self.team_id, self.channel.id, ts)
        return Rejected(ts, reason, detail, self.channel.id, micros(ts), doc_id=doc_id)

    def _document(self, message: dict[str, object], subtype: str, version: int, edited: bool) -> Document | None:
        content = normalise_message(message, self.names)
        if not content.text:
            return None
        ts = str(message["ts"])
        user, author = self._author(message)
        thread = self._thread(message, ts)
        said: dict[str, object] = {
            "user": user,
            "author": author,
            **thread,
            "workspace": self.channel.workspace,
            "links": list(content.links),
            "files": list(content.files),
            "subtype": subtype if subtype in ("bot_message", "me_message") else "",
            "private": self.channel.private,
            "edited": edited,
            "bot": subtype == "bot_message" or bool(message.get("bot_id")),
        }
        return Document(
            doc_id=ids.message_id(self.team_id, self.channel.id, ts),
            team_id=self.team_id,
            channel_id=self.channel.id,
            channel_name=self.channel.name,
            kind="message",
            created_at=micros(ts),
            updated_at=version,
            version=version,
            text=content.text,
            meta={key: value for key, value in said.items() if value} | self._homes(message),
            refs=content.refs | {self.channel.id, user} if user else content.refs | {self.channel.id},
            author=author,
            author_id=user,
            thread_id=thread.get("parent", ""),
            visibility=self.channel.visibility,
            mentions=content.mentions,
            has_file=has_file(message),
        )

    def _thread(self, message: dict[str, object], ts: str) -> dict[str, str]:
        """The thread that a reply is in, and the id of its first message."""
        thread_ts = message.get("thread_ts")
        if not (isinstance(thread_ts, str) and thread_ts != ts and is_ts(thread_ts)):
            return {}
        return {"thread_ts": thread_ts, "parent": ids.message_id(self.team_id, self.channel.id, thread_ts)}

    def _homes(self, message: dict[str, object]) -> dict[str, object]:
        """The writer's own workspace, in a channel that workspaces share."""
        homes = {key: text_of(message, key) for key in ("team", "user_team")}
        return {key: normalise_label(team) for key, team in homes.items() if team and team != self.team_id}

    def _author(self, message: dict[str, object]) -> tuple[str, str]:
        user = text_of(message, "user") or text_of(message.get("comment"), "user") or text_of(message, "bot_id")
        if not user.isalnum():
            user = normalise_label(user)
        if user and (name := self.names.get(user)):
            return user, name
        profile = message.get("user_profile")
        known = (text_of(profile, "display_name"), text_of(profile, "real_name"), text_of(profile, "name"))
        name = _first_name(*known, message.get("username"), text_of(message.get("bot_profile"), "name"))
        return user, name or user


def _first_name(*candidates: object) -> str:
    return next((name for value in candidates if isinstance(value, str) and (name := normalise_label(value))), "")
