"""Mail to text: one message (eml) or a mailbox of them (mbox). Never opens an attachment, only lists its name."""

from __future__ import annotations

import re
from email import policy
from email.message import EmailMessage
from email.parser import BytesParser
from typing import cast

from embedding.files.encoding import decode_text, decode_with
from embedding.files.parsed import Limits, TextBuilder
from embedding.files.web import html_to_text

HEADERS = ("Subject", "From", "To", "Cc", "Date")

# The parser keeps headers lazily; a mailbox of a million messages would still be a million blocks.
MAX_MESSAGES = 10_000

_MBOX_BORDER = re.compile(rb"(?:\A|\n\r?\n)From [^\n]*\d{4}[^\n]*\r?\n(?=[!-9;-~]+:)")


def parse_eml(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write the headers a reader would want, then the best body, then the attachments' names."""
    message = _parse(data.lstrip())
    subject = _header(message, "Subject")
    out.title = subject
    for name in ("From", "To", "Date"):
        if value := _header(message, name):
            out.meta[name.lower()] = value
    attachments = _write(message, out, limits)
    if attachments:
        out.meta["attachments"] = attachments


def parse_mbox(data: bytes, out: TextBuilder, limits: Limits) -> None:
    """Write each message of a mailbox; its subject is the heading."""
    borders = list(_MBOX_BORDER.finditer(data))[:MAX_MESSAGES]
    ends = [border.start() for border in borders[1:]] + [len(data)]
    for border, end in zip(borders, ends, strict=True):
        message = _parse(data[border.end() : end])
        out.mark({"heading": _header(message, "Subject") or "(no subject)"})
        _write(message, out, limits)
    out.meta["messages"] = len(borders)


def _parse(data: bytes) -> EmailMessage:
    return BytesParser(policy=policy.default).parsebytes(data)


def _header(message: EmailMessage, name: str) -> str:
    try:
        return " ".join(str(message[name] or "").split())
    except Exception:
        # The stdlib's header parser raises half a dozen types on malformed headers; the raw value still reads.
        for key, value in message.raw_items():
            if key.lower() == name.lower():
                return " ".join(str(value).split())
        return ""


def _write(message: EmailMessage, out: TextBuilder, limits: Limits) -> list[str]:
    body = _body(message, limits)
    attachments = _attachment_names(message)
    head = [f"{name}: {value}" for name in HEADERS if (value := _header(message, name))]
    out.lines(head)
    out.add(body)
    if attachments:
        out.add("Attachments: " + ", ".join(attachments))
    return attachments


def _body(message: EmailMessage, limits: Limits) -> str:
    """Plain text before HTML, since it is what the sender's program made for readers without layout."""
    found: dict[str, str] = {}
    for part in message.walk():
        kind = part.get_content_type()
        if kind not in ("text/plain", "text/html") or part.is_multipart() or _filename(part):
            continue
        if part.get_content_disposition() == "attachment":
            continue
        text = _content(part)
        if kind == "text/html":
            text = html_to_text(text, limits)
        if text.strip():
            # Several parts of one kind are one body, cut by an attachment in between.
            found[kind] = f"{found[kind]}\n\n{text}" if kind in found else text
    return found.get("text/plain") or found.get("text/html") or ""


def _content(part: object) -> str:
    message = cast(EmailMessage, part)
    payload = message.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    declared = message.get_content_charset()
    text = decode_with(payload, declared) if declared else None
    return text if text is not None else (decode_text(payload) or payload.decode("latin-1"))


def _attachment_names(message: EmailMessage) -> list[str]:
    names = []
    for part in message.walk():
        if part.is_multipart() and part.get_content_type() != "message/rfc822":
            continue
        if name := _filename(part):
            names.append(name)
    return names


def _filename(part: object) -> str:
    try:
        return " ".join((cast(EmailMessage, part).get_filename() or "").split())
    except Exception:
        # Malformed RFC 2231 parameters; the attachment exists, its name does not.
        return "unnamed"
