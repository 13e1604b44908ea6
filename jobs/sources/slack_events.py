"""What kind of event a record of a day file is, and when it happened. Pure."""

from __future__ import annotations

import re

DELETIONS = frozenset({"message_deleted", "tombstone"})
# Subtypes that people or bots say something with.
CONTENT = frozenset(
    {
        "ai_message",
        "app_message",
        "assistant_app_thread",
        "bot_message",
        "canvas_comment",
        "document_comment_root",
        "document_mention",
        "file_comment",
        "file_mention",
        "file_share",
        "list_record_comment",
        "me_message",
        "reply_broadcast",
        "slackbot_response",
        "thread_broadcast",
    }
)
# Subtypes that Slack writes about the conversation itself.
HOUSEKEEPING = frozenset(
    {
        "added_to_org",
        "app_conversation_join",
        "app_conversation_leave",
        "automatic_ai_huddle_notes_disabled",
        "automatic_ai_huddle_notes_enabled",
        "bot_add",
        "bot_channel_join",
        "bot_channel_leave",
        "bot_disable",
        "bot_enable",
        "bot_profile_updated",
        "bot_remove",
        "canvas_shared_updated",
        "channel_archive",
        "channel_canvas_updated",
        "channel_convert_to_private",
        "channel_convert_to_public",
        "channel_created",
        "channel_join",
        "channel_leave",
        "channel_name",
        "channel_posting_permissions",
        "channel_purpose",
        "channel_retention_changed",
        "channel_shared",
        "channel_tab_added",
        "channel_tab_removed",
        "channel_tab_updated",
        "channel_topic",
        "channel_unarchive",
        "channel_unshared",
        "channel_workspaces_updated",
        "ekm_access_denied",
        "external_channel_archived",
        "external_channel_unarchived",
        "group_archive",
        "group_join",
        "group_leave",
        "group_name",
        "group_purpose",
        "group_topic",
        "group_unarchive",
        "guest_channel_join",
        "guest_channel_leave",
        "huddle_started",
        "huddle_ended",
        "joiner_notification",
        "joiner_notification_for_inviter",
        "message_replied",
        "mpim_join",
        "mpim_leave",
        "mpim_name",
        "mpim_topic",
        "pinned_item",
        "reminder_add",
        "reminder_delete",
        "retention_threshold",
        "sh_room_ended",
        "sh_room_updated",
        "shared_channel_join",
        "shared_channel_leave",
        "tabbed_canvas_updated",
        "thread_locked",
        "thread_unlocked",
        "unfurl_suggestion_warning",
        "unpinned_item",
        "welcome_party",
        "workflow_posting_permissions",
    }
)
CALLS = frozenset({"huddle_thread", "sh_room_created", "sh_room_shared"})  # housekeeping, unless they say something
_KNOWN = CONTENT | CALLS | HOUSEKEEPING | DELETIONS
_TS = re.compile(r"([0-9]{1,11})(?:\.([0-9]{1,6}))?")  # 11 digits of seconds last to the year 5138


def text_of(record: object, key: str) -> str:
    """The value of a field that should be a string, else nothing."""
    value = record.get(key) if isinstance(record, dict) else None
    return value if isinstance(value, str) else ""


def is_ts(value: object) -> bool:
    """Whether this is a time as Slack writes it: seconds and microseconds, as a string."""
    return isinstance(value, str) and _TS.fullmatch(value) is not None


def ts_fault(record: dict[str, object]) -> str:
    """Why a record has no time; nothing where it has one."""
    ts = record.get("ts")
    if ts is None or ts == "":
        return "missing_ts"
    return "" if is_ts(ts) else "bad_ts"


def micros(ts: str) -> int:
    """Microseconds of a checked ts. By digits: a float has too few of them."""
    seconds, _, fraction = ts.partition(".")
    return int(seconds) * 1_000_000 + int(fraction.ljust(6, "0") or "0")


def edit_time(record: dict[str, object]) -> int | None:
    """When a message was edited last (µs); 0 where the time is unknown, None where it never was."""
    edited = record.get("edited")
    if not isinstance(edited, dict):
        return None
    ts = text_of(edited, "ts")
    return micros(ts) if is_ts(ts) else 0


def is_deletion(record: dict[str, object], subtype: str) -> bool:
    """Whether this says that a message was deleted."""
    return subtype in DELETIONS or bool(record.get("hidden") and (record.get("deleted") or "deleted_ts" in record))


def deleted_ts(record: dict[str, object]) -> str:
    """The ts that a deletion takes away: another message's for an event, its own for a tombstone."""
    return text_of(record, "deleted_ts") or text_of(record.get("previous_message"), "ts") or text_of(record, "ts")


def is_housekeeping(record: dict[str, object], subtype: str) -> bool:
    """Whether Slack wrote this about the conversation itself.

    Slack adds subtypes all the time. One that is not known here is a message where a user says something with it:
    Slack's own notices come from its bot, or begin with the name of the one they are about, who is also their user.
    """
    if subtype in HOUSEKEEPING or not subtype or subtype in _KNOWN:
        return subtype in HOUSEKEEPING
    user = text_of(record, "user")
    return user == "USLACKBOT" or bool(user) and text_of(record, "text").startswith((f"<@{user}>", f"<@{user}|"))


def is_known(subtype: str) -> bool:
    """Whether this subtype is in one of the lists, or is none."""
    return not subtype or subtype in _KNOWN
