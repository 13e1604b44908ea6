"""Turns one Slack message (the dict of an export or of the API) into normalised text and what is known about it.

Owns which of a message's fields are text: text, block kit, attachments, files. Markup is ``slack_markup``'s, what the
export holds of a file's content ``slack_files``', and what is said twice ``slack_parts``'. Pure: no I/O, no ids of
documents, no idea of where the message came from. What it returns never holds a URL's query string outside code, nor
a Slack token anywhere. A change of output for any input needs a new ``NORMALISER_VERSION``, which is part of the
embedding space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from embedding.text.clean import clean_text
from embedding.text.slack_files import GONE, NAMES_A_FILE, file_texts, file_title
from embedding.text.slack_markup import MARKUP, MAX_LINKS, Reader, dicts, finish, normalise_label, string
from embedding.text.slack_parts import Parts

__all__ = ["MAX_LINKS", "NORMALISER_VERSION", "SlackText", "clean_text", "normalise_label", "normalise_message"]

NORMALISER_VERSION = "2"
_NO_PREVIEW = "[no preview available]"


@dataclass(frozen=True, slots=True)
class SlackText:
    """A message's text and what was found in it.

    ``links`` are URLs without userinfo, query and fragment; ``files`` are titles; ``refs`` are the user and channel
    ids that were looked up in the names, found or not, because a new name for one of them would change the text.
    ``mentions`` are ids of people whom it names, sorted.
    """

    text: str
    links: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    refs: frozenset[str] = frozenset()
    mentions: tuple[str, ...] = ()


def normalise_message(message: Mapping[str, object], names: Mapping[str, str]) -> SlackText:
    """Normalise one message; ``names`` gives display names by user and channel id.

    Fields of an unexpected type count as absent.
    """
    text = string(message.get("text"))
    # Most messages are plain words.
    if not (
        "blocks" in message
        or "attachments" in message
        or "files" in message
        or "file" in message
        or "comment" in message
    ):
        if not MARKUP.search(text):
            return SlackText(finish(text))
        reader = Reader(names)
        return _result(reader, [reader.mrkdwn(text)], ())
    reader = Reader(names)
    parts = Parts()
    said = finish(reader.mrkdwn(text))
    parts.add(said)
    with parts.mirror([said]):
        _add_blocks(message.get("blocks"), reader, parts)
        comment = message.get("comment")  # of an old export's file_comment
        if isinstance(comment, dict):
            parts.add(finish(reader.mrkdwn(string(comment.get("comment")))))
        for attachment in dicts(message.get("attachments")):
            _add_attachment(attachment, reader, parts)
        titles = _add_files(message, reader, parts)
    return _result(reader, parts.texts, titles)


def _result(reader: Reader, texts: list[str], files: tuple[str, ...]) -> SlackText:
    links = tuple(reader.links)[:MAX_LINKS]
    # Cleaned as the text is: a lone surrogate is in no user's id, and could not be stored.
    refs = frozenset(map(finish, reader.refs))
    return SlackText(finish("\n".join(texts)), links, files, refs, tuple(sorted(reader.people)))


def _add_files(message: Mapping[str, object], reader: Reader, parts: Parts) -> tuple[str, ...]:
    """Add what is said with and in the files; their titles."""
    titles: dict[str, None] = {}
    seen: set[str] = set()
    comments: set[str] = set()  # Slack wrote one comment into each file that it came with
    for file in (*dicts(message.get("files")), *dicts([message.get("file")])):
        name = string(file.get("id"))
        if file.get("mode") in GONE or (name and name in seen):
            continue
        seen.add(name)
        initial = file.get("initial_comment")
        if isinstance(initial, dict) and (comment := finish(reader.mrkdwn(string(initial.get("comment"))))):
            if comment not in comments:
                parts.add(comment)
            comments.add(comment)
        if title := file_title(file):
            titles[title] = None
            parts.add(title)
        if message.get("subtype") not in NAMES_A_FILE:
            texts = file_texts(file, reader)
            for text in texts:
                parts.add(text)
            with parts.mirror([title, *texts]):
                for key in ("title_blocks", "blocks"):
                    _add_blocks(file.get(key), reader, parts)
    return tuple(titles)


def _add_blocks(blocks: object, reader: Reader, parts: Parts) -> bool:
    found = False
    for block in dicts(blocks):
        if block.get("type") == "rich_text":
            found |= _add_rich(block.get("elements"), reader, parts)
            continue
        for value in (block.get("title"), block.get("text"), block.get("description"), block.get("alt_text")):
            found |= _add_text_object(value, reader, parts)
        # fields of a section, elements of a context; an action's buttons are no text of a person
        if block.get("type") != "actions":
            for entry in (*dicts(block.get("fields")), *dicts(block.get("elements"))):
                found |= _add_text_object(entry.get("text") or entry.get("alt_text"), reader, parts)
        rows = block.get("rows")  # of a table
        for row in rows if isinstance(rows, list) else ():
            for cell in dicts(row):
                found |= _add_blocks([cell], reader, parts)
    return found


def _add_text_object(value: object, reader: Reader, parts: Parts) -> bool:
    return parts.add(finish(reader.mrkdwn(_text_of(value))))


def _text_of(value: object) -> str:
    return string(value.get("text") if isinstance(value, dict) else value)


def _add_rich(elements: object, reader: Reader, parts: Parts) -> bool:
    found = False
    for element in dicts(elements):
        kind = element.get("type")
        inner = element.get("elements")
        if kind == "rich_text_list":
            for number, item in enumerate(dicts(inner), 1):
                prefix = f"{number}. " if element.get("style") == "ordered" else "• "
                found |= parts.add(finish(reader.inline(item.get("elements"))), prefix)
        elif kind == "rich_text_preformatted":
            code = "".join(string(piece.get("text")) or string(piece.get("url")) for piece in dicts(inner))
            found |= parts.add(finish(f"```\n{code}\n```" if code.strip() else ""))
        else:
            found |= parts.add(finish(reader.inline(inner)), "> " if kind == "rich_text_quote" else "")
    return found


def _add_attachment(attachment: dict[str, object], reader: Reader, parts: Parts) -> None:
    said = [finish(reader.mrkdwn(_text_of(attachment.get(key)))) for key in ("pretext", "title", "text")]
    found = any([parts.add(text) for text in said])
    if found and isinstance(link := attachment.get("title_link"), str):
        reader.link(link)
    for entry in dicts(attachment.get("fields")):
        title, value = (finish(reader.mrkdwn(string(entry.get(key)))) for key in ("title", "value"))
        found |= parts.add(f"{title}: {value}" if title and value else title or value)
    before = len(parts.texts)
    with parts.mirror(said):
        found |= _add_blocks(attachment.get("blocks"), reader, parts)
        with parts.mirror(parts.texts[before:]):
            for shared in dicts(attachment.get("message_blocks")):  # a message shared from another channel
                inner = shared.get("message")
                found |= _add_blocks(inner.get("blocks") if isinstance(inner, dict) else None, reader, parts)
    found |= bool(_add_files({"files": attachment.get("files")}, reader, parts))
    fallback = string(attachment.get("fallback"))
    if not found and fallback.strip().lower() != _NO_PREVIEW:
        parts.add(finish(reader.mrkdwn(fallback)))
