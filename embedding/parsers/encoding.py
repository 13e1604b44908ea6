"""Bytes to characters: byte order mark, UTF-8, a declared label, a guess. Returns None for bytes that are no text.

Labels are the WHATWG's, so that a text labelled gb2312, ks_c_5601-1987 or iso-8859-1 is read by the larger encoding
that its writer really used.
"""

from __future__ import annotations

import codecs
import re

import webencodings

from embedding.parsers.guess import guess_codec

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)

_SAMPLE = 32 * 1024

_META_CHARSET = re.compile(
    rb"""<(?:meta[^>]{0,200}?charset|\?xml[^>]{0,100}?encoding)\s*=\s*["']?\s*([A-Za-z0-9_:.-]{2,40})""", re.IGNORECASE
)
_HEAD = 16 * 1024
# Among them what switches the character set, and the record mark of JSON sequences.
_TEXT_CONTROLS = frozenset(b"\t\n\x0b\x0c\r\x0e\x0f\x1b\x1e")
_C1 = re.compile(rb"[\x80-\x9f]")
# Encodings of seven bits that switch by an escape sequence; as UTF-8 they read as valid rubbish.
_ESCAPED = ((b"\x1b$B", "iso2022_jp"), (b"\x1b$@", "iso2022_jp"), (b"\x1b(I", "iso2022_jp"), (b"\x1b$)C", "iso2022_kr"))
_MULTI_BYTE = frozenset(["gbk", "gb18030", "big5hkscs", "cp949", "cp932", "euc_jp"])
# Labels that say nothing about the bytes above ASCII.
_NO_LABELS = frozenset(["us-ascii", "ascii", "ansi_x3.4-1968", "iso646-us", "unknown-8bit", "x-unknown", "default"])
_NOT_OF_FILES = frozenset(
    ["idna", "punycode", "unicode_escape", "raw_unicode_escape", "undefined", "mbcs", "oem", "palmos", "x_user_defined"]
)


def decode_text(data: bytes, *, html: bool = False, declared: str | None = None) -> str | None:
    """Decode by byte order mark, valid UTF-8, declaration and a guess, in this order.

    ``declared`` is a label from outside (a mail's charset); with ``html`` the page's or XML's own is looked for. A
    declaration that most bytes above ASCII contradict is not believed.
    """
    for bom, codec in _BOMS:
        if data.startswith(bom):
            return data.decode(codec, "replace")
    label = _codec_of(declared, mail=True) if declared else None
    if wide := _wide_codec(data, label):
        return data.decode(wide, "replace")
    if looks_binary(data):
        return None
    if label is None and html and (own := _META_CHARSET.search(data[:_HEAD])):
        label = _codec_of(own.group(1).decode("ascii"))
    if data.isascii():
        return _seven_bits(data, label)
    if (text := _utf_8(data, label)) is not None:
        return text
    if label and (text := _believable(data, label)) is not None:
        return text
    return _guess(data)


def looks_binary(data: bytes) -> bool:
    """Whether the bytes hold what no text encoding of one byte or UTF-8 would."""
    sample = data[:_SAMPLE]
    if not sample:
        return False
    controls = sum(sample.count(byte) for byte in range(32) if byte not in _TEXT_CONTROLS)
    # A stray NUL or backspace occurs in logs; a binary file is full of them.
    return controls > len(sample) * 0.02 and (controls > 3 or controls > len(sample) * 0.1)


def _codec_of(label: str, *, mail: bool = False) -> str | None:
    """Return the Python codec of a label, or None where it names none or says nothing."""
    name = label.strip().strip("\"'").lower()
    if name in _NO_LABELS:
        return None
    known = webencodings.lookup(name)
    if known is not None and known.name != "replacement":
        codec = known.codec_info.name.replace("-", "_")
        if codec.startswith("utf_16") and not mail:
            return None  # the label could be read, so the page is not in UTF-16
        return None if codec in _NOT_OF_FILES else {"gbk": "gb18030"}.get(codec, codec)
    try:
        codec = codecs.lookup(name).name.replace("-", "_")
        b"".decode(codec)
    except (LookupError, ValueError, UnicodeError):
        return None
    return None if codec in _NOT_OF_FILES or (codec == "utf_7" and not mail) else codec


def _seven_bits(data: bytes, label: str | None) -> str:
    for escape, codec in _ESCAPED if b"\x1b" in data else ():
        if escape in data:
            return _decode(data, codec)
    # UTF-7 and HZ are ASCII to look at; nothing else of a label matters here.
    return _decode(data, label) if label in ("utf_7", "hz") else data.decode("ascii")


def _utf_8(data: bytes, label: str | None) -> str | None:
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return None
    if label in _MULTI_BYTE and all(character < "\u0800" for character in text):
        # Two-byte sequences alone: a few Chinese characters can look like that. The label decides where it can.
        try:
            return data.decode(label)
        except UnicodeDecodeError:
            pass
    return text


def _believable(data: bytes, codec: str) -> str | None:
    text = _decode(data, codec)
    bad = text.count("\ufffd")
    return None if bad and bad * 4 > sum(1 for character in text if character > "\x7f") else text


def _decode(data: bytes, codec: str) -> str:
    if codec == "iso8859_8" and _C1.search(data):
        codec = "cp1255"  # the same letters, and curly quotes where the other has nothing
    errors = "embedmill-jis" if codec in ("euc_jp", "iso2022_jp") else "replace"
    return data.decode(codec, errors)


def _jis_extension(error: UnicodeError) -> tuple[str, int]:
    """Decode a pair of row 13 or above (circled digits, units) that Python's JIS codecs lack and Windows writes."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    pair = error.object[error.start : error.start + 2]
    if len(pair) == 2:
        row, cell = (byte & 0x7F for byte in pair)
        if 0x21 <= row <= 0x7E and 0x21 <= cell <= 0x7E and pair[0] & 0x80 == pair[1] & 0x80:
            lead = (row + 1) // 2 + (0x70 if row < 0x5F else 0xB0)
            trail = cell + (0x7E if row % 2 == 0 else 0x1F if cell < 0x60 else 0x20)
            try:
                return bytes((lead, trail)).decode("cp932"), error.start + 2
            except UnicodeDecodeError:
                pass
    return "\ufffd", error.end


codecs.register_error("embedmill-jis", _jis_extension)


def _wide_codec(data: bytes, label: str | None) -> str | None:
    if label is not None and label.startswith("utf_32"):
        return label
    sample = data[:4096]
    if len(sample) >= 4:
        even, odd = sample[::2].count(0), sample[1::2].count(0)
        half = len(sample) // 2
        if odd > half * 0.6 and even < half * 0.05:
            return "utf-16-le"
        if even > half * 0.6 and odd < half * 0.05:
            return "utf-16-be"
    return label if label is not None and label.startswith("utf_16") else None


def _guess(data: bytes) -> str | None:
    repaired = data.decode("utf-8", "replace")
    bad = repaired.count("\ufffd")
    good = sum(1 for character in repaired[: 4 * _SAMPLE] if character > "\x7f") - bad
    if good > 10 * bad:
        # UTF-8 with a torn byte or two, as a log that was cut has.
        return repaired
    text = _decode(data, guess_codec(data))
    # Random bytes decode as something too; text has few replacement characters and few C1 controls.
    odd = text.count("\ufffd") + sum(1 for character in text[:_SAMPLE] if "\x80" <= character < "\xa0")
    return None if odd > len(text) * 0.05 else text
