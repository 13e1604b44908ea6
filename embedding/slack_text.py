"""Turns one Slack message (the dict of an export or of the API) into normalised text and what is known about it.

Owns Slack's markup: mentions, links, entities, emoji, code, formatting marks, block kit, attachments, file titles.
Pure: no I/O, no ids of documents, no idea of where the message came from. What it returns never holds a URL's query
string outside code, nor a Slack token anywhere. A change of output for any input needs a new ``NORMALISER_VERSION``,
which is part of the embedding space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from embedding.text import clean_text

__all__ = ["MAX_LINKS", "NORMALISER_VERSION", "SlackText", "clean_text", "normalise_label", "normalise_message"]

NORMALISER_VERSION = "1"
MAX_LINKS = 20  # a message with more is a digest; its links say nothing about it and bloat every row

# One character of these is the sign that markup may be there; ":" also covers raw URLs.
_MARKUP = re.compile(r"[<&:*_~`]")
_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]*://|mailto:|tel:)"
_RAW_URL = r"[hH][tT][tT][pP][sS]?://(?:(?!&[lg]t;)[^\s<>`|\x00])+"
# What later passes must not look into. Every alternative stops at the next occurrence of its own opening, so that
# hostile text cannot make the scan quadratic.
_PROTECTED = re.compile(
    rf"```(?P<fence>.+?)```|`(?P<code>[^`\n]+)`|<(?P<token>[@#!][^<>]+|{_SCHEME}[^<>]*)>|(?P<url>{_RAW_URL})", re.DOTALL
)
_URL = re.compile(_RAW_URL)
_ENTITY = re.compile(r"&(lt|gt|amp);")
_ENTITIES = {"lt": "<", "gt": ">", "amp": "&"}
# A run of shortcodes, free on both sides: 10:30:45, std::vector and a:b:c are none.
_EMOJI = re.compile(r"(?<![\w:])(?::[\w+'-]{1,80}:)+(?![\w:])")
_NUMBER_EMOJI = {"100", "1234"}
# A mark opens after a non-letter and before a word (quotes and other marks may stand between), and closes after a
# non-blank and before a non-letter, on the same line. So snake_case, 2*3*4, *.py and ~/bin stay.
_OPENED = r"(?=[\"'(\[@#&*_~]{0,3}[\w\x00\u0080-\U0010ffff])"
_BOLD = re.compile(rf"(?<![^\W_])(?<!\*)\*{_OPENED}([^*\n]*)(?<=[^\s*])\*(?![^\W_]|\*)")
_ITALIC = re.compile(rf"(?<!\w)_{_OPENED}(?!_)([^_\n]*)(?<=[^\s_])_(?!\w)")
_STRIKE = re.compile(rf"(?<![\w~])~{_OPENED}([^~\n]*)(?<=[^\s~])~(?![\w~])")
_TOKEN = re.compile(r"xox[A-Za-z0-9]-[\w%+/=-]+")
_WORD = re.compile(r"[^\W_]+")
_NUL = re.compile("\0")
_NO_PREVIEW = "[no preview available]"


@dataclass(frozen=True, slots=True)
class SlackText:
    """A message's text and what was found in it.

    ``links`` are URLs without userinfo, query and fragment; ``files`` are titles; ``refs`` are the user and channel
    ids that were looked up in the names, found or not, because a new name for one of them would change the text.
    """

    text: str
    links: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    refs: frozenset[str] = frozenset()


def normalise_message(message: Mapping[str, object], names: Mapping[str, str]) -> SlackText:
    """Normalise one message; ``names`` gives display names by user and channel id.

    Fields of an unexpected type count as absent.
    """
    text = _string(message.get("text"))
    # Most messages are plain words.
    if not ("blocks" in message or "attachments" in message or "files" in message or "file" in message
            or "comment" in message):  # fmt: skip
        if not _MARKUP.search(text):
            return SlackText(_finish(text))
        reader = _Reader(names)
        return reader.result([reader.mrkdwn(text)], ())
    reader = _Reader(names)
    parts = _Parts()
    parts.add(_finish(reader.mrkdwn(text)))
    _add_blocks(message.get("blocks"), reader, parts)
    comment = message.get("comment")  # of an old export's file_comment
    if isinstance(comment, dict):
        parts.add(_finish(reader.mrkdwn(_string(comment.get("comment")))))
    for attachment in _dicts(message.get("attachments")):
        _add_attachment(attachment, reader, parts)
    titles: dict[str, None] = {}
    for file in (*_dicts(message.get("files")), *_dicts([message.get("file")])):
        title = normalise_label(_string(file.get("title"))) or normalise_label(_string(file.get("name")))
        initial = file.get("initial_comment")
        if isinstance(initial, dict):
            parts.add(_finish(reader.mrkdwn(_string(initial.get("comment")))))
        if title:
            titles[title] = None
            parts.add(title)
    return reader.result(parts.texts, tuple(titles))


def normalise_label(text: str) -> str:
    """One line without markup (a display name, a file's title): entities, URLs and tokens as in a message's text."""
    return " ".join(_finish(_plain(text)).split())


def _finish(text: str) -> str:
    # Most text is one line of printable ASCII, in which there is nothing to clean but its ends.
    text = text.strip() if text.isascii() and text.isprintable() else clean_text(text)
    # After cleaning, which could join the halves of a token.
    return _TOKEN.sub("[token]", text) if "xox" in text else text


def _unescape(text: str) -> str:
    # In one pass, so that "&amp;lt;" becomes "&lt;" and not "<".
    return _ENTITY.sub(lambda m: _ENTITIES[m[1]], text) if "&" in text else text


def _plain(text: str) -> str:
    text = _unescape(text)
    return _URL.sub(lambda m: _strip_url(m[0])[0] + _strip_url(m[0])[1], text) if "://" in text else text


def _strip_url(url: str) -> tuple[str, str]:
    """Return the URL without userinfo, query and fragment, and the punctuation after it that is not part of it."""
    body = url.rstrip(").,;:!?'\"*_~" if "(" not in url else ".,;:!?'\"*_~")
    return _bare_url(body), url[len(body) :]


def _bare_url(url: str) -> str:
    scheme, found, rest = url.partition(":")
    for end in "?#":
        rest = rest.partition(end)[0]
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        rest = f"//{authority.rpartition('@')[2]}{slash}{path}"
    return scheme + found + rest


def _string(value: object) -> str:
    return value if isinstance(value, str) else ""


def _dicts(value: object) -> Iterator[dict[str, object]]:
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, dict))


def _emoji(match: re.Match[str]) -> str:
    words = [name for name in match[0].split(":") if name]
    for name in words:
        if (name.isdigit() and name not in _NUMBER_EMOJI) or name != name.lower() or not _WORD.search(name):
            return match[0]
    return " ".join(name.replace("_", " ") for name in words if not name.startswith("skin-tone-"))


class _Reader:
    """Resolves markup against the names and remembers links and references; one for each message."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.refs: set[str] = set()
        self.links: dict[str, None] = {}
        self.groups: dict[str, str] = {}  # user groups have their name in ``text`` only, not in its block mirror
        self._kept: list[str] = []

    def result(self, texts: list[str], files: tuple[str, ...]) -> SlackText:
        links = tuple(self.links)[:MAX_LINKS]
        # Cleaned as the text is: a lone surrogate is in nobody's id, and could not be stored.
        return SlackText(_finish("\n".join(texts)), links, files, frozenset(map(_finish, self.refs)))

    def mrkdwn(self, text: str) -> str:
        """Resolve Slack's markup. Protected pieces stand as NUL in the text while the other passes run."""
        if not _MARKUP.search(text):
            return text
        self._kept = []
        if "\0" in text:
            text = text.replace("\0", "")
        if "<" in text or "`" in text or "://" in text:
            text = _PROTECTED.sub(self._keep, text)
        if ":" in text:
            text = _EMOJI.sub(_emoji, text)
        if "*" in text:
            text = _BOLD.sub(r"\1", text)
        if "_" in text:
            text = _ITALIC.sub(r"\1", text)
        if "~" in text:
            text = _STRIKE.sub(r"\1", text)
        text = _unescape(text)
        if self._kept:
            kept = iter(self._kept)
            text = _NUL.sub(lambda _: next(kept), text)
        return text

    def _keep(self, match: re.Match[str]) -> str:
        after = ""
        if match.lastgroup == "token":
            piece = self._token(match["token"])
        elif match.lastgroup == "url":
            bare, after = _strip_url(match[0])
            piece = self.link(bare)
        else:
            piece = _unescape(match[0])
        self._kept.append(piece)
        return "\0" + after

    def _token(self, token: str) -> str:
        target, _, label = token.partition("|")
        label = _plain(label)
        if token[0] == "@":
            return self.user(target[1:], label)
        if token[0] == "#":
            return "#" + label.removeprefix("#") if label.strip() else self.channel(target[1:])
        if token[0] == "!":
            command, _, rest = target[1:].partition("^")
            if command == "subteam" and label:
                self.groups[rest] = label
            if label:
                return label if command in ("subteam", "date") else "@" + label.removeprefix("@")
            return "@" + (rest if command == "subteam" else command)
        if target[:7].lower() == "mailto:" or target[:4].lower() == "tel:":
            return label or _bare_url(_unescape(target)).partition(":")[2]
        return self.link(target, label)

    def user(self, user: str, label: str = "") -> str:
        self.refs.add(user)
        return "@" + (self.names.get(user) or label.removeprefix("@") or user)

    def channel(self, channel: str) -> str:
        self.refs.add(channel)
        return "#" + (self.names.get(channel) or channel)

    def link(self, url: str, label: str = "") -> str:
        url = _bare_url(_unescape(url))
        # The same cleaning as the text gets, so that no link holds what the text may not.
        if "://" in url and len(self.links) < MAX_LINKS and (clean := _finish(url)):
            self.links[clean] = None
        return label if label.strip() else url

    def inline(self, elements: object) -> str:
        """Text of a rich_text section. Its text is no markup: nothing is escaped and marks are styles."""
        pieces: list[str] = []
        last = ""
        for element in _dicts(elements):
            kind = _string(element.get("type"))
            text = _string(element.get("text"))
            style = element.get("style")
            if isinstance(style, dict) and style.get("code") and kind == "text":
                piece = f"`{text}`"
            elif kind == "user":
                piece = self.user(_string(element.get("user_id")))
            elif kind == "channel":
                piece = self.channel(_string(element.get("channel_id")))
            elif kind == "usergroup":
                group = _string(element.get("usergroup_id"))
                piece = self.groups.get(group, "@" + group)
            elif kind == "broadcast":
                piece = "@" + _string(element.get("range"))
            elif kind == "emoji":
                piece = " " * (last == "emoji") + _string(element.get("name")).partition("::")[0].replace("_", " ")
            elif kind == "link":
                piece = self.link(_string(element.get("url")).removeprefix("mailto:"), self._raw(text))
            elif kind == "date":
                piece = _string(element.get("fallback"))
            else:
                piece = self._raw(text)
            pieces.append(piece)
            last = kind
        return "".join(pieces)

    def _raw(self, text: str) -> str:
        if "://" not in text:
            return text
        return _URL.sub(lambda m: self.link((parts := _strip_url(m[0]))[0]) + parts[1], text)


class _Parts:
    """The pieces of one message, each said once: a piece whose words were all said in a row before is left out."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._said = " "

    def add(self, text: str, prefix: str = "") -> bool:
        """Add a piece. The prefix (a bullet) does not count as text. Returns whether there was any text."""
        if not text:
            return False
        words = " ".join(_WORD.findall(text.casefold()))
        if f" {words} " in self._said if words else any(text in earlier for earlier in self.texts):
            return True
        self._said += f"{words} "
        self.texts.append(prefix + text)
        return True


def _add_blocks(blocks: object, reader: _Reader, parts: _Parts) -> bool:
    found = False
    for block in _dicts(blocks):
        if block.get("type") == "rich_text":
            found |= _add_rich(block.get("elements"), reader, parts)
            continue
        for value in (block.get("title"), block.get("text"), block.get("description"), block.get("alt_text")):
            found |= _add_text_object(value, reader, parts)
        # fields of a section, elements of a context; an action's buttons are no text anybody wrote
        if block.get("type") != "actions":
            for entry in (*_dicts(block.get("fields")), *_dicts(block.get("elements"))):
                found |= _add_text_object(entry.get("text") or entry.get("alt_text"), reader, parts)
        rows = block.get("rows")  # of a table
        for row in rows if isinstance(rows, list) else ():
            for cell in _dicts(row):
                found |= _add_blocks([cell], reader, parts)
    return found


def _add_text_object(value: object, reader: _Reader, parts: _Parts) -> bool:
    text = value.get("text") if isinstance(value, dict) else value
    return parts.add(_finish(reader.mrkdwn(_string(text))))


def _add_rich(elements: object, reader: _Reader, parts: _Parts) -> bool:
    found = False
    for element in _dicts(elements):
        kind = element.get("type")
        inner = element.get("elements")
        if kind == "rich_text_list":
            for number, item in enumerate(_dicts(inner), 1):
                prefix = f"{number}. " if element.get("style") == "ordered" else "• "
                found |= parts.add(_finish(reader.inline(item.get("elements"))), prefix)
        elif kind == "rich_text_preformatted":
            code = "".join(_string(piece.get("text")) or _string(piece.get("url")) for piece in _dicts(inner))
            found |= parts.add(_finish(f"```\n{code}\n```" if code.strip() else ""))
        else:
            found |= parts.add(_finish(reader.inline(inner)), "> " if kind == "rich_text_quote" else "")
    return found


def _add_attachment(attachment: dict[str, object], reader: _Reader, parts: _Parts) -> None:
    found = False
    for key in ("pretext", "title", "text"):
        found |= _add_text_object(attachment.get(key), reader, parts)
    if found and isinstance(link := attachment.get("title_link"), str):
        reader.link(link)
    for entry in _dicts(attachment.get("fields")):
        title, value = (_finish(reader.mrkdwn(_string(entry.get(key)))) for key in ("title", "value"))
        found |= parts.add(f"{title}: {value}" if title and value else title or value)
    found |= _add_blocks(attachment.get("blocks"), reader, parts)
    for shared in _dicts(attachment.get("message_blocks")):  # a message shared from another channel
        inner = shared.get("message")
        found |= _add_blocks(inner.get("blocks") if isinstance(inner, dict) else None, reader, parts)
    for file in _dicts(attachment.get("files")):
        found |= parts.add(normalise_label(_string(file.get("title")) or _string(file.get("name"))))
    fallback = _string(attachment.get("fallback"))
    if not found and fallback.strip().lower() != _NO_PREVIEW:
        parts.add(_finish(reader.mrkdwn(fallback)))
