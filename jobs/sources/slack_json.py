"""Decodes the JSON of a Slack export, which is not always what a strict parser takes."""

from __future__ import annotations

import hashlib
import json
import marshal
import re
from collections.abc import Iterator

import orjson

from embedding.errors import RejectedRecord

_BRACKETS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{},]', re.DOTALL)


class TooDeep:
    """Stands for a record that is nested deeper than JSON can be read; ``digest`` is of its characters."""

    def __init__(self, text: str) -> None:
        self.digest = _hash(text.strip())


def load(data: bytes) -> object:
    """The value of a JSON file. Raises ValueError, or RecursionError for what is no array and too deep."""
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
        return TooDeep(text)


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


def entries(data: bytes) -> Iterator[dict[str, object]]:
    """The objects of an array. Raises RejectedRecord for what is none."""
    try:
        values = load(data)
        if not isinstance(values, list):
            raise ValueError
    except (ValueError, RecursionError):
        raise RejectedRecord("bad_json", "not a JSON array in UTF-8") from None
    return (entry for entry in values if isinstance(entry, dict))


def digest(record: object) -> str:
    """What tells a record from others: a hash of its canonical JSON, the same in whatever order its fields stand."""
    if isinstance(record, TooDeep):
        return record.digest
    try:  # in ASCII, so that lone surrogates are escaped and not in the way
        return _hash(json.dumps(record, sort_keys=True, separators=(",", ":")))
    except RecursionError:  # what was just not too deep to be read
        return hashlib.blake2b(marshal.dumps(record, 2), digest_size=16).hexdigest()  # type: ignore[arg-type]


def _hash(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
