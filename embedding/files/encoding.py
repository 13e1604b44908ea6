"""Bytes to characters. Owns every guess about an encoding; returns None for bytes that are no text."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

# Guessing among all of Python's codecs finds EBCDIC in short notes; these are what people's files are in.
_CANDIDATES = [
    "cp1252", "cp1250", "cp1251", "koi8_r", "cp1253", "cp1254", "cp1255", "cp1256",
    "cp932", "euc_jp", "iso2022_jp", "gb18030", "big5", "cp949",
]  # fmt: skip

# Enough to tell languages apart; the guess's cost grows with its input.
_SAMPLE = 32 * 1024

_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE)
_TEXT_CONTROLS = frozenset(b"\t\n\x0b\x0c\r\x1b")


def decode_text(data: bytes, *, html: bool = False) -> str | None:
    """Decode by byte order mark, declaration (HTML only), UTF-8, and a guess, in this order."""
    for bom, codec in _BOMS:
        if data.startswith(bom):
            return data.decode(codec, "replace")
    if wide := _wide_codec(data):
        return data.decode(wide, "replace")
    if looks_binary(data):
        return None
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        pass
    if html and (declared := _META_CHARSET.search(data[:4096])):
        text = decode_with(data, declared.group(1).decode("ascii"))
        if text is not None:
            return text
    return _guess(data)


def decode_with(data: bytes, codec: str) -> str | None:
    """Decode with a declared codec, or None where it does not exist or is no text encoding of files."""
    name = codec.strip().lower()
    if name in ("iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii"):
        # As browsers do: who declares these writes UTF-8 or cp1252 as soon as a curly quote comes up.
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            name = "cp1252"
    try:
        known = codecs.lookup(name)
        if known.name in ("utf-7", "idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined"):
            return None
        return data.decode(known.name, "replace")
    except (LookupError, ValueError):
        return None


def looks_binary(data: bytes) -> bool:
    """Whether the bytes hold what no text encoding of one byte or UTF-8 would."""
    sample = data[:_SAMPLE]
    if not sample:
        return False
    controls = sum(sample.count(byte) for byte in range(32) if byte not in _TEXT_CONTROLS)
    # A stray NUL or backspace occurs in logs; a binary file is full of them.
    return controls > len(sample) * 0.02


def _wide_codec(data: bytes) -> str | None:
    sample = data[:4096]
    if len(sample) < 4:
        return None
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    half = len(sample) // 2
    if odd > half * 0.6 and even < half * 0.05:
        return "utf-16-le"
    if even > half * 0.6 and odd < half * 0.05:
        return "utf-16-be"
    return None


def _guess(data: bytes) -> str | None:
    repaired = data.decode("utf-8", "replace")
    bad = repaired.count("\ufffd")
    good = sum(1 for character in repaired[: 4 * _SAMPLE] if character > "\x7f") - bad
    if good > 10 * bad:
        # UTF-8 with a torn byte or two, as a log that was cut has.
        return repaired
    # A long plain-ASCII beginning says nothing: start where the first byte above it is.
    first = next((i for i, byte in enumerate(data) if byte > 0x7F), 0)
    begin = max(0, first - 200)
    best = from_bytes(data[begin : begin + _SAMPLE], cp_isolation=_CANDIDATES).best()
    codec = best.encoding if best is not None else "cp1252"
    text = data.decode(codec, "replace")
    # Random bytes decode as something too; text has few replacement characters and few C1 controls.
    odd = text.count("\ufffd") + sum(1 for character in text[:_SAMPLE] if "\x80" <= character < "\xa0")
    return None if odd > len(text) * 0.05 else text
