"""What an export holds of the files of a message: their titles, and the text that stands in the message itself.

An export has no file, only an object that describes it. For some kinds that object has the content or its beginning:
snippets and posts (``preview``), mails (``plain_text``), recordings (``transcription``). Its URLs carry a token and are
never looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from embedding.text.slack_markup import Reader, dicts, finish, normalise_label, string

# What a file is when it was deleted, or lies behind the limit of the plan: whatever else stands there is no content.
GONE = frozenset({"tombstone", "hidden_by_limit"})
NAMES_A_FILE = frozenset({"file_comment", "file_mention"})  # a message about a file that another message shared
_HTML = re.compile(r"\s*<(?:!doctype|html|head|body|document|div|p|h[1-6]|ul|ol|table|span|br|b|i)\b", re.IGNORECASE)
_BLOCK = frozenset(
    {
        "blockquote",
        "br",
        "div",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "li",
        "ol",
        "p",
        "pre",
        "table",
        "tr",
        "ul",
    }
)
_PEOPLE = (("From", "from"), ("To", "to"), ("Cc", "cc"))
# Fields of the whole content before those of its beginning.
_BODIES = ("content", "plain_text", "preview_plain_text", "preview")
_RICH = ("simplified_html", "content_html")  # used where no field has the same as plain text
_NOTES = ("alt_txt", "alt_text", "description", "summary")


def has_file(message: Mapping[str, object]) -> bool:
    """Whether a file came with a message and is still there."""
    files = (*dicts(message.get("files")), *dicts([message.get("file")]))
    return message.get("subtype") not in NAMES_A_FILE and any(file.get("mode") not in GONE for file in files)


def file_title(file: dict[str, object]) -> str:
    """A file's title, else its name, as one line."""
    return normalise_label(string(file.get("title"))) or normalise_label(string(file.get("name")))


def file_texts(file: dict[str, object], reader: Reader) -> list[str]:
    """The text that a file object carries beside its title, each content once."""
    snippet = file.get("mode") == "snippet"
    texts: list[str] = []
    if (subject := normalise_label(string(file.get("subject")))) and subject != file_title(file):
        texts.append(subject)
    for word, key in _PEOPLE:
        if people := ", ".join(filter(None, map(_person, dicts(file.get(key))))):
            texts.append(f"{word}: {people}")
    bodies: list[str] = []
    for text in _bodies(file, reader, snippet):
        # A preview is the beginning of what stands elsewhere, cut anywhere.
        start = " ".join(text.split()).rstrip("\u2026. ")
        if start and not any(start in " ".join(body.split()) for body in bodies):
            bodies.append(text)
    texts += bodies
    texts += [text for key in _NOTES if (text := finish(reader.raw(string(file.get(key)))))]
    about = file.get("list_metadata")  # of a Slack list
    if isinstance(about, dict) and (text := finish(reader.raw(string(about.get("description"))))):
        texts.append(text)
    texts += [
        name for entry in dicts(file.get("attachments")) if (name := normalise_label(string(entry.get("filename"))))
    ]
    texts += [
        text for entry in dicts(file.get("comments")) if (text := finish(reader.mrkdwn(string(entry.get("comment")))))
    ]
    return texts


def _bodies(file: dict[str, object], reader: Reader, snippet: bool) -> Iterator[str]:
    found = False
    for key in (*_BODIES, *_RICH):
        text = string(file.get(key))
        if not text.strip() or (found and key in _RICH):
            continue
        if not snippet and _HTML.match(text):
            text = _words(text)
        found = True
        yield finish(text if snippet else reader.raw(text))  # a snippet is code, and stays as it is
    spoken = file.get("transcription")
    if isinstance(spoken, dict):
        preview = spoken.get("preview")
        for value in (spoken.get("content"), spoken.get("text"), preview):
            text = string(value.get("content") if isinstance(value, dict) else value)
            if text.strip():
                yield finish(reader.raw(text))


def _person(entry: dict[str, object]) -> str:
    name, address = (normalise_label(string(entry.get(key))) for key in ("name", "address"))
    return normalise_label(string(entry.get("original"))) or (
        f"{name} <{address}>" if name and address else name or address
    )


def _words(html: str) -> str:
    """The words of a fragment of HTML, a line for each block."""
    import lxml.html

    pieces: list[str] = []
    try:
        root = lxml.html.fragment_fromstring(html, create_parent=True)
    except (ValueError, lxml.etree.LxmlError):
        return html
    for event, node in lxml.etree.iterwalk(root, events=("start", "end", "comment", "pi")):
        if event in ("comment", "pi") or node.tag in ("script", "style"):
            if event in ("comment", "pi", "end"):
                pieces.append(node.tail or "")
            continue
        if event == "start":
            pieces.append(("\n" if node.tag in _BLOCK else "") + (node.text or ""))
        else:
            pieces.append(("\n" if node.tag in _BLOCK else "") + (node.tail or ""))
    lines = (" ".join(line.split()) for line in "".join(pieces).split("\n"))
    return "\n".join(line for line in lines if line)
