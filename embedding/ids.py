"""Document and chunk ids, and the two hashes that decide what a run does with a chunk."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc

MAX_META = 65_535  # bytes; the most that an index holds in a row's metadata
_META_CHARACTERS = 200
_META_ENTRIES = 20
MAX_DOC_ID = 480  # bytes; leaves room for "#" and a chunk number below the index's 512-byte key
_SAFE = "/.-_~"
_CHUNK_NUMBER = re.compile("#[0-9]+$")


def bounded_id(doc_id: str) -> str:
    """A percent-encoded id as the index takes it: a longer one than MAX_DOC_ID gets a hashed tail."""
    if len(doc_id) <= MAX_DOC_ID:  # percent-encoded, so characters are bytes
        return doc_id
    tail = hashlib.blake2b(doc_id.encode(), digest_size=16).hexdigest()
    return f"{doc_id[: MAX_DOC_ID - 33]}~{tail}"


def is_cut(doc_id: str) -> bool:
    """Whether ``bounded_id`` put a hash in place of the id's end."""
    return len(doc_id) == MAX_DOC_ID and re.fullmatch("~[0-9a-f]{32}", doc_id[-33:]) is not None


def message_id(team_id: str, channel_id: str, ts: str) -> str:
    """``{team}/m/{channel}/{ts}``, each part percent-encoded."""
    return bounded_id(f"{quote(team_id, '')}/m/{quote(channel_id, '')}/{quote(ts, '')}")


def file_id(team_id: str, relative_path: str, qualifier: str = "") -> str:
    """``{team}/f/{relative path}``. Bytes that are not UTF-8 (surrogate escapes) are encoded as they are.

    With the ``qualifier`` of a source ``{team}/f/@{qualifier}/{relative path}``, so that a path below two roots of one
    team is two documents. No path looks like that: its own "@" is encoded.
    """
    path = quote(relative_path.encode("utf-8", "surrogateescape"), _SAFE)
    return bounded_id(f"{quote(team_id, '')}/f/{_prefix(qualifier)}{path}")


def row_id(team_id: str, key: str, qualifier: str = "") -> str:
    """``{team}/t/{id}`` for a row of a table source; with the source's ``qualifier`` ``{team}/t/@{qualifier}/{id}``."""
    return bounded_id(f"{quote(team_id, '')}/t/{_prefix(qualifier)}{quote(key, '')}")


def conversation_id(team_id: str, channel_id: str, group: str, first: str) -> str:
    """``{team}/c/{channel}/{hash}`` for the conversation of a ``group`` that begins with the document ``first``."""
    tail = hashlib.blake2b(f"{group}\0{first}".encode(), digest_size=12).hexdigest()
    return f"{quote(team_id, '')}/c/{quote(channel_id, '')[: MAX_DOC_ID - 100]}/{tail}"


CONVERSATION = "^[^/]+/c/"  # what ids of conversations, and of their chunks, begin with


def border_hash(doc_id: str) -> int:
    """64 bits of a document's id that say nothing of it; where conversations begin is decided by them."""
    return int.from_bytes(hashlib.blake2b(doc_id.encode(), digest_size=8).digest(), "little")


def _prefix(qualifier: str) -> str:
    return f"@{quote(qualifier, '')}/" if qualifier else ""


def chunk_id(doc_id: str, number: int) -> str:
    """``{doc_id}#{n}``, n from 0."""
    return f"{doc_id}#{number}"


def document_id(chunk_id: str) -> str:
    """The document of a chunk; a document's id as it is."""
    return _CHUNK_NUMBER.sub("", chunk_id)


def document_ids(chunk_ids: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """The same of a column."""
    return pc.replace_substring_regex(chunk_ids, _CHUNK_NUMBER.pattern, "")


def content_hash(key: bytes, team_id: str, text: str) -> str:
    """Keyed hash of the exact string that is encoded; the team is in it, so that equal texts of two teams differ."""
    digest = hashlib.blake2b(key=key, digest_size=20)
    digest.update(team_id.encode())
    digest.update(b"\0")
    digest.update(text.encode())
    return digest.hexdigest()


def hashed_id(key: bytes, doc_id: str) -> str:
    """Keyed hash of a document's id: it is found in a receipt with the key and the id, and by no other means."""
    return hashlib.blake2b(doc_id.encode("utf-8", "surrogateescape"), key=key, digest_size=16).hexdigest()


def meta_hash(values: Sequence[object]) -> str:
    """Hash of what the index holds beside text and vector. ``values`` must be JSON-able and in a fixed order."""
    return hashlib.blake2b(json.dumps(values, ensure_ascii=False).encode(), digest_size=12).hexdigest()


def dump_meta(meta: Mapping[str, object]) -> str:
    """Canonical JSON of a document's or chunk's metadata, with long values cut short where it would be too large.

    It is shown beside a text and never searched, so a link of many thousand characters must not cost its message.
    """
    text = json.dumps(meta, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    if len(text.encode()) <= MAX_META:
        return text
    return json.dumps(_shortened(meta), ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def _shortened(value: object) -> object:
    if isinstance(value, str):
        return value[:_META_CHARACTERS]
    if isinstance(value, list | tuple):
        return [_shortened(entry) for entry in value[:_META_ENTRIES]]
    if isinstance(value, Mapping):
        return {key: _shortened(entry) for key, entry in value.items()}
    return value
