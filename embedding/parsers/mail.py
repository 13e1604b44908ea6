"""Mail to text: one message (eml) or a mailbox of them (mbox). Every part that a reader would see is kept, in order.

Never opens an attached file, only lists its name; attached mails and invitations are no files and are read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from itertools import islice
from typing import cast

from embedding.errors import RejectedRecord
from embedding.parsers.calendar import calendar_entries
from embedding.parsers.encoding import decode_text
from embedding.parsers.mail_headers import clear_text, clear_words, filename_of, header_text
from embedding.parsers.parsed import Limits, TextBuilder
from embedding.parsers.web import html_to_text

HEADERS = ("Subject", "From", "To", "Cc", "Date")

MAX_MESSAGES = 100_000

# Mails are forwarded in mails; no mail that a person wrote is nested deeper than this.
_MAX_DEPTH = 40

_BORDER_LINE = re.compile(r"From [^\n]*\d{4}[^\n]*\n")
_MBOX_BORDER = re.compile(rb"(?:\A|\n\r?\n)From [^\n]*\d{4}[^\n]*\r?\n(?=[!-9;-~]+:)")
_QUOTED_BORDER = re.compile(rb"(?m)^>(>*From )")
_BOILERPLATE = re.compile(r"\bMIME\b", re.IGNORECASE)

# How much of the other version's text one must hold to stand for both.
_COVERS = 0.8
_FEW = 16
_COMPARED = 200_000


def parse_eml(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write the headers a reader would want, then the body's parts in order, then the attachments' names."""
    message = _parse(data.lstrip())
    subject = header_text(message, "Subject")
    out.title = subject
    for name in ("From", "To", "Date"):
        if value := header_text(message, name):
            out.meta[name.lower()] = value
    attachments = _write(message, out, limits)
    if attachments:
        out.meta["attachments"] = attachments


def parse_mbox(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write each message of a mailbox; its subject is the heading. One that cannot be read is counted.

    Raises RejectedRecord past MAX_MESSAGES messages.
    """
    borders = list(islice(_MBOX_BORDER.finditer(data), MAX_MESSAGES + 1))
    if len(borders) > MAX_MESSAGES:
        raise RejectedRecord("too_much_text", f"more than {MAX_MESSAGES} messages")
    ends = [border.start() for border in borders[1:]] + [len(data)]
    for border, end in zip(borders, ends, strict=True):
        try:
            message = _parse(_QUOTED_BORDER.sub(rb"\1", data[border.end() : end]))
            out.mark({"heading": header_text(message, "Subject") or "(no subject)"})
            _write(message, out, limits)
        except (RejectedRecord, MemoryError):
            raise
        except Exception:
            out.lose("messages")
    out.meta["messages"] = len(borders)


def _parse(data: bytes) -> EmailMessage:
    return BytesParser(policy=policy.default).parsebytes(data)


def _write(message: EmailMessage, out: TextBuilder, limits: Limits) -> list[str]:
    blocks = _Blocks(limits)
    blocks.message(message, 0)
    for lines in blocks.texts:
        out.lines(lines)
    for _ in range(blocks.lost):
        out.lose("parts")
    return blocks.attachments


class _Blocks:
    """Collects a message's text: groups of lines, each a paragraph or a head."""

    def __init__(self, limits: Limits, compare: bool = True) -> None:
        self.texts: list[list[str]] = []
        self.attachments: list[str] = []
        self.lost = 0
        self._limits = limits
        self._compare = compare  # False while comparing: versions within versions would double with each
        self._invitations: set[str] = set()
        self._listed: set[str] = set()  # a forwarded mail lists its own

    def message(self, message: EmailMessage, depth: int) -> None:
        before = len(self.attachments)
        self.texts.append([f"{name}: {value}" for name in HEADERS if (value := header_text(message, name))])
        self._part(message, depth, top=True)
        if names := [name for name in self.attachments[before:] if name not in self._listed]:
            self._listed.update(names)
            self.texts.append(["Attachments: " + ", ".join(names)])

    def _part(self, part: EmailMessage, depth: int, *, top: bool = False) -> None:
        """Write one part; one that the stdlib or a parser cannot read is counted, its neighbours are kept."""
        try:
            self._read(part, depth, top)
        except MemoryError:
            raise
        except RejectedRecord as rejected:
            if rejected.reason == "too_much_text":
                raise
            self.lost += 1
        except Exception:
            self.lost += 1

    def _read(self, part: EmailMessage, depth: int, top: bool) -> None:
        kind = part.get_content_type()
        if depth > _MAX_DEPTH:
            self.lost += 1
        elif kind == "message/delivery-status":
            for block in _children(part):
                self.texts.append([f"{name}: {clear_words(str(value))}" for name, value in block.raw_items()])
        elif kind == "message/rfc822":
            self._named(part)
            for inner in _inner_messages(part):
                self.message(inner, depth + 1)
        elif part.is_multipart():
            self._several(part, kind, depth)
        elif kind in ("text/calendar", "application/ics"):
            self._named(part)
            self._invitation(_content(part))
        elif part.get_content_disposition() == "attachment" and not top:
            self._named(part, unnamed=kind)
        else:
            self._named(part)
            if kind.startswith(("text/", "multipart/")) or kind == "message/partial":
                self.texts.append([_readable(part, self._limits)])

    def _several(self, part: EmailMessage, kind: str, depth: int) -> None:
        children = _children(part)
        if (preamble := clear_text(part.preamble)) and not _BOILERPLATE.search(preamble):
            self.texts.append([preamble])
        unsaid: list[str] = []
        if kind == "multipart/alternative":
            children, unsaid = self._alternatives(children)
        for child in children:
            self._part(child, depth + 1)
        if unsaid:
            self.texts.append(unsaid)
        # List programs write their footer below the last border.
        epilogue = clear_text(part.epilogue)
        if border := _BORDER_LINE.match(epilogue):
            # The next mail of a mailbox that this one was cut from.
            self.message(_parse(epilogue[border.end() :].encode("utf-8", "replace")), depth + 1)
        elif epilogue:
            self.texts.append([epilogue])

    def _alternatives(self, children: list[EmailMessage]) -> tuple[list[EmailMessage], list[str]]:
        """Return what of several versions of one text is to be written: the plain one where it says what the others do.

        It is what the sender's program made for readers without layout; but some write "please use another reader".
        Lines that only the version left out has are returned too.
        """
        plain = [child for child in children if child.get_content_type() == "text/plain"]
        rich = [child for child in children if _is_rich(child)]
        others = [child for child in children if child.get_content_type() in ("text/calendar", "message/rfc822")]
        others += [child for child in children if child.is_multipart() and child not in rich + others]
        if not plain or not rich or not self._compare:
            known = plain + rich + others
            return known or children, []
        plain_lines, rich_lines = self._lines(plain), self._lines(rich)
        short, long = _shingles(_letters(plain_lines)), _shingles(_letters(rich_lines))
        if len(long - short) <= max(_FEW, (1 - _COVERS) * len(long)):
            # What hangs on the richer version (files beside its pictures) is named all the same.
            for child in rich:
                for leaf in child.walk():
                    if not leaf.is_multipart():
                        self._named(leaf)
            return plain + others, _unsaid(rich_lines, plain_lines)
        if len(short - long) <= (1 - _COVERS) * len(short):
            return rich + others, _unsaid(plain_lines, rich_lines)
        return plain + rich + others, []

    def _lines(self, parts: list[EmailMessage]) -> list[str]:
        apart = _Blocks(self._limits, compare=False)
        for part in parts:
            apart._part(part, _MAX_DEPTH // 2)
        return [line for lines in apart.texts for text in lines for line in text.splitlines()]

    def _invitation(self, text: str) -> None:
        for lines in calendar_entries(text):
            key = "\n".join(lines)
            if key not in self._invitations:  # often there twice: beside the text, and as a file
                self._invitations.add(key)
                self.texts.append(lines)

    def _named(self, part: EmailMessage, unnamed: str = "") -> None:
        name = filename_of(part) or (f"unnamed ({unnamed})" if unnamed else "")
        if name and name not in self.attachments:
            self.attachments.append(name)


def _letters(lines: Iterable[str]) -> str:
    """Letters and digits alone: the same for any layout and script."""
    text = "".join(lines)[:_COMPARED]
    return "".join(character for character in text.casefold() if character.isalnum())


def _shingles(letters: str) -> set[str]:
    """Return every run of five letters."""
    return {letters[at : at + 5] for at in range(max(1, len(letters) - 4))} if letters else set()


def _unsaid(lines: list[str], written: list[str]) -> list[str]:
    """Return the lines of which a good part stands nowhere in what is written."""
    if sum(map(len, written)) > _COMPARED or len(_letters(lines)) <= _FEW:
        return []
    said = _letters(written)
    known = _shingles(said)
    found = []
    for line in lines:
        letters = _letters([line])
        missing = len(_shingles(letters) - known) if letters not in said else 0
        if missing and (missing * 2 > len(letters) - 4 or missing > max(_FEW // 2, len(letters) // 4)):
            found.append(line)
    return found


def _is_rich(part: EmailMessage) -> bool:
    """Whether a part is the version with layout: HTML, alone or with its pictures, or enriched text."""
    kind = part.get_content_type()
    if kind in ("multipart/related", "multipart/mixed"):
        return any(_is_rich(child) for child in _children(part))
    return kind in ("text/html", "text/enriched", "text/richtext")


def _children(part: EmailMessage) -> list[EmailMessage]:
    payload = part.get_payload()
    return [cast(EmailMessage, child) for child in payload] if isinstance(payload, list) else []


def _inner_messages(part: EmailMessage) -> Iterable[EmailMessage]:
    """Yield an attached mail; some programs encode it, which the standard forbids and the stdlib does not undo."""
    for inner in _children(part):
        coding = str(part.get("content-transfer-encoding", "")).strip().lower()
        if coding in ("base64", "quoted-printable") and not inner.keys():
            inner["Content-Transfer-Encoding"] = coding
            data = inner.get_payload(decode=True)
            yield _parse(data) if isinstance(data, bytes) else inner
        else:
            yield inner


def _readable(part: EmailMessage, limits: Limits) -> str:
    kind = part.get_content_type()
    text = _content(part)
    if kind in ("text/enriched", "text/richtext"):
        return html_to_text(re.sub(r"\n\n+", "<br><br>", text), limits)
    if kind in ("text/html", "text/x-amp-html", "text/watch-html"):
        return html_to_text(text, limits)
    return "" if kind in ("text/css", "text/javascript") else text


def _content(part: EmailMessage) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        declared = part.get_content_charset()
    except Exception:
        declared = None  # malformed parameters
    html = part.get_content_type() == "text/html"
    return decode_text(payload, html=html, declared=declared) or payload.decode("latin-1")
