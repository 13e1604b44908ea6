"""Slack's markup: mentions, links, entities, emoji, code, formatting marks. One ``Reader`` for each message.

What comes out never holds a URL's query string outside code, nor a Slack token anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from embedding.text.clean import clean_text
from embedding.text.slack_urls import RAW_URL, URL, bare_url, strip_url

MAX_LINKS = 20  # a message with more is a digest; its links say nothing about it and bloat every row

# One character of these is the sign that markup may be there; ":" also covers raw URLs.
MARKUP = re.compile(r"[<&:*_~`]")
_SCHEME = r"(?:[A-Za-z][A-Za-z0-9+.-]*://|mailto:|tel:)"
# What later passes must not look into. Every alternative stops at the next occurrence of its own opening, so that
# hostile text cannot make the scan quadratic.
_PROTECTED = re.compile(
    rf"```(?P<fence>.+?)```|`(?P<code>[^`\n]+)`|<(?P<token>[@#!][^<>]+|{_SCHEME}[^<>]*)>|(?P<url>{RAW_URL})", re.DOTALL
)
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
_MENTIONS = frozenset(["user", "channel", "usergroup", "broadcast"])  # types of rich_text elements
_TOKEN = re.compile(r"xox[A-Za-z0-9]-[\w%+/=-]+")
_WORD = re.compile(r"[^\W_]+")
_NUL = re.compile("\0")
_PERSON = re.compile("[A-Za-z0-9]{1,64}")


def normalise_label(text: str) -> str:
    """One line without markup (a display name, a file's title): entities, URLs and tokens as in a message's text."""
    return " ".join(finish(_plain(text)).split())


def finish(text: str) -> str:
    """Clean text (``clean_text``) in which no Slack token stands."""
    # Most text is one line of printable ASCII, in which there is nothing to clean but its ends.
    text = text.strip() if text.isascii() and text.isprintable() else clean_text(text)
    # After cleaning, which could join the halves of a token.
    return _TOKEN.sub("[token]", text) if "xox" in text else text


def _unescape(text: str) -> str:
    # In one pass, so that "&amp;lt;" becomes "&lt;" and not "<".
    return _ENTITY.sub(lambda m: _ENTITIES[m[1]], text) if "&" in text else text


def _plain(text: str) -> str:
    text = _unescape(text)
    return URL.sub(lambda m: strip_url(m[0])[0] + strip_url(m[0])[1], text) if "://" in text else text


def _label(label: str, url: str, whole: str) -> str:
    """A link's label; one that is the address itself without its scheme loses what the address loses."""
    shown = url.partition("://")[2]
    if label == whole.partition("://")[2]:
        return shown
    for start in (shown, shown.rstrip("/")):
        if start and label.startswith(start) and label[len(start) :][:1] in ("?", "#"):
            return start + "".join(label[len(start) :].partition(" ")[1:])
    return label


def string(value: object) -> str:
    """The value of a field that should be a string, else nothing."""
    return value if isinstance(value, str) else ""


def dicts(value: object) -> Iterator[dict[str, object]]:
    """The objects of a field that should be a list of objects."""
    if isinstance(value, list):
        yield from (entry for entry in value if isinstance(entry, dict))


def _emoji(match: re.Match[str]) -> str:
    words = [name for name in match[0].split(":") if name]
    for name in words:
        if (name.isdigit() and name not in _NUMBER_EMOJI) or name != name.lower() or not _WORD.search(name):
            return match[0]
    return " ".join(name.replace("_", " ") for name in words if not name.startswith("skin-tone-"))


class Reader:
    """Resolves markup against the names and remembers links and references; one for each message."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = names
        self.refs: set[str] = set()
        self.people: set[str] = set()
        self.links: dict[str, None] = {}
        self.groups: dict[str, str] = {}  # user groups have their name in ``text`` only, not in its block mirror
        self._kept: list[str] = []

    def mrkdwn(self, text: str) -> str:
        """Resolve Slack's markup. Protected pieces stand as NUL in the text while the other passes run."""
        if not MARKUP.search(text):
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
            bare, after = strip_url(match[0])
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
            return label or bare_url(_unescape(target)).partition(":")[2]
        return self.link(target, label)

    def user(self, user: str, label: str = "") -> str:
        """``@`` and a person's name."""
        self.refs.add(user)
        if _PERSON.fullmatch(user):
            self.people.add(user)
        return "@" + (self.names.get(user) or label.removeprefix("@") or user)

    def channel(self, channel: str) -> str:
        """``#`` and a channel's name."""
        self.refs.add(channel)
        return "#" + (self.names.get(channel) or channel)

    def link(self, url: str, label: str = "") -> str:
        """Remember a link; its label, else its bare URL."""
        whole = _unescape(url)
        url = bare_url(whole)
        # The same cleaning as the text gets, so that no link holds what the text may not.
        if "://" in url and len(self.links) < MAX_LINKS and (clean := finish(url)):
            self.links[clean] = None
        return _label(label, url, whole) if label.strip() else url

    def inline(self, elements: object) -> str:
        """Text of a rich_text section. Its text is no markup: nothing is escaped and marks are styles."""
        pieces: list[str] = []
        last = ""
        for element in dicts(elements):
            kind = string(element.get("type"))
            text = string(element.get("text"))
            style = element.get("style")
            if isinstance(style, dict) and style.get("code") and kind == "text":
                piece = f"`{text}`"
            elif kind in _MENTIONS:
                piece = self._mention(kind, element)
            elif kind == "emoji":
                piece = " " * (last == "emoji") + string(element.get("name")).partition("::")[0].replace("_", " ")
            elif kind == "link":
                piece = self.link(string(element.get("url")).removeprefix("mailto:"), self.raw(text))
            elif kind == "date":
                piece = string(element.get("fallback"))
            elif kind == "color":
                piece = string(element.get("value"))
            else:
                piece = self.raw(text)
            pieces.append(piece)
            last = kind
        return "".join(pieces)

    def _mention(self, kind: str, element: Mapping[str, object]) -> str:
        """The names of a rich_text element that mentions somebody; ``kind`` is one of _MENTIONS."""
        if kind == "user":
            return self.user(string(element.get("user_id")))
        if kind == "channel":
            return self.channel(string(element.get("channel_id")))
        if kind == "usergroup":
            group = string(element.get("usergroup_id"))
            return self.groups.get(group, "@" + group)
        return "@" + string(element.get("range"))

    def raw(self, text: str) -> str:
        """Text that is no markup: its URLs lose their queries, and are links."""
        if "://" not in text:
            return text
        return URL.sub(lambda m: self.link((parts := strip_url(m[0]))[0]) + parts[1], text)
