"""Which format some bytes are. The content decides; a name's ending only tells text formats apart."""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
import zlib

import olefile  # type: ignore[import-untyped]

from embedding.errors import RejectedRecord
from embedding.parsers.encoding import decode_text
from embedding.parsers.kinds import kind_without_text
from embedding.parsers.opc import MAIN_PARTS
from embedding.parsers.parsed import Limits

OLE_MAGIC = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"

# What the main part may be, compared in lower case: templates, files with macros and shows that start at once included.
_OOXML = {
    f"{name}+xml": kind
    for kind, names in {
        "docx": (
            "wordprocessingml.document.main",
            "wordprocessingml.template.main",
            "ms-word.document.macroenabled.main",
            "ms-word.template.macroenabledtemplate.main",
        ),
        "pptx": (
            "presentationml.presentation.main",
            "presentationml.slideshow.main",
            "presentationml.template.main",
            "ms-powerpoint.presentation.macroenabled.main",
            "ms-powerpoint.slideshow.macroenabled.main",
            "ms-powerpoint.template.macroenabled.main",
        ),
        "xlsx": (
            "spreadsheetml.sheet.main",
            "spreadsheetml.template.main",
            "ms-excel.sheet.macroenabled.main",
            "ms-excel.template.macroenabled.main",
            "ms-excel.addin.macroenabled.main",
        ),
    }.items()
    for name in names
}
_OOXML["ms-excel.sheet.binary.macroenabled.main"] = "xlsb"
_OOXML_ENDINGS = {
    "docx": "docx",
    "pptx": "pptx",
    "xlsx": "xlsx",
    "epub": "epub",
    "odt": "odf",
    "ods": "odf",
    "odp": "odf",
}
_BINARY_ENDINGS = {"pdf": "pdf", "xls": "xls", **_OOXML_ENDINGS}
_TEXT_ENDINGS = {"md": "md", "markdown": "md", "csv": "csv", "tsv": "csv", "ndjson": "ndjson", "jsonl": "ndjson"}

_HTML = re.compile(
    r"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL
)
_ENTRY = re.compile(r"BEGIN:(VCALENDAR|VCARD)\s", re.IGNORECASE)
_HEADER = re.compile(r"([A-Za-z][A-Za-z0-9-]*):[ \t]?\S?")
_MAIL_HEADERS = frozenset(
    [
        "from",
        "to",
        "subject",
        "date",
        "received",
        "return-path",
        "message-id",
        "mime-version",
        "delivered-to",
        "content-type",
        "cc",
        "reply-to",
    ]
)


def ending_of(name: str) -> str:
    """Return a name's ending in lower case without the dot."""
    stem, dot, ending = name.replace("\\", "/").rpartition("/")[2].rpartition(".")
    return ending.lower() if dot and stem else ""


def detect(data: bytes, name: str, limits: Limits) -> str:
    """Return the format's name; raises RejectedRecord for what is broken, encrypted or not supported.

    A rejection is ``ignored`` where the content is of a kind that has no text (a picture, a plain archive). A document
    of a format that is not read (an old ``doc``) and bytes of no known kind are not: their text is missing.
    """
    ending = ending_of(name)
    head = data[:1024]
    if head.lstrip().startswith(b"%PDF-") or (b"%PDF-" in head and ending == "pdf"):
        return "pdf"
    if data.startswith(b"PK\x03\x04"):
        return _zip_format(data, ending, limits)
    if data.startswith(OLE_MAGIC):
        return _ole_format(data)
    if head.lstrip().startswith(b"{\\rtf"):
        return "rtf"
    if media_type := kind_without_text(data):
        raise RejectedRecord("unsupported_type", media_type, ignored=True)
    text = decode_text(data, html=ending in ("html", "htm", "xhtml"))
    if text is None:
        if ending in _BINARY_ENDINGS:
            raise RejectedRecord(f"unreadable_{_BINARY_ENDINGS[ending]}", "no signature")
        raise RejectedRecord("unsupported_type", "application/octet-stream")
    return _text_format(text, ending)


def _text_format(text: str, ending: str) -> str:
    start = text.lstrip("\ufeff \t\r\n")
    # Files that say what they are: before content, since a test case or a log may begin with mail headers or tags.
    if ending in _TEXT_ENDINGS and not _HTML.match(start):
        return _TEXT_ENDINGS[ending]
    if entry := _ENTRY.match(start):
        return "ics" if entry[1].upper() == "VCALENDAR" else "vcf"
    if ending in ("eml", "mht", "mhtml") or _is_mail(start):
        return "eml"
    if start.startswith("From ") and "\nFrom: " in start[:20_000]:
        return "mbox"
    if _HTML.match(start[:20_000]):
        return "html"
    return _markup_kind(start, ending) or _data_kind(text, start, ending) or "txt"


def _markup_kind(start: str, ending: str) -> str:
    if start.startswith("<?xml") or (ending in ("xml", "rss", "atom", "svg") and start.startswith("<")):
        return "html" if re.search(r"<html\b", start[:2000]) else "xml"
    return "html" if ending in ("html", "htm", "xhtml") else ""


def _data_kind(text: str, start: str, ending: str) -> str:
    if not start.startswith(("{", "[")):
        return ""
    if ending in ("json", "ipynb"):
        return _json_kind(start)
    return "json" if ending not in ("txt", "log") and _is_json(text) else ""


def _json_kind(text: str) -> str:
    """Tell one JSON value from one per line, which exports call .json too."""
    first, newline, rest = text.partition("\n")
    return "ndjson" if newline and rest.lstrip()[:1] == "{" and first.startswith("{") and _is_json(first) else "json"


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _is_mail(text: str) -> bool:
    """Whether a text begins with at least three of the headers that every mail has."""
    found = set()
    for line in text[:8000].splitlines():
        if not line.strip():
            break
        if line[0] in " \t":
            continue
        match = _HEADER.match(line)
        if not match:
            return False
        found.add(match.group(1).lower())
    return len(found & _MAIL_HEADERS) >= 3


def _ole_format(data: bytes) -> str:
    try:
        with olefile.OleFileIO(io.BytesIO(data)) as container:
            names = {entry[0].lower() for entry in container.listdir() if entry}
    except Exception as error:
        raise RejectedRecord("unreadable_ole", type(error).__name__) from None
    if "encryptedpackage" in names:
        raise RejectedRecord("encrypted_office", "needs a password")
    if names & {"workbook", "book"}:
        return "xls"
    media_type = "application/x-ole-storage"
    if "worddocument" in names:
        media_type = "application/msword"
    elif "powerpoint document" in names:
        media_type = "application/vnd.ms-powerpoint"
    elif "__properties_version1.0" in names:
        media_type = "application/vnd.ms-outlook"
    raise RejectedRecord("unsupported_type", media_type)


def _zip_format(data: bytes, ending: str, limits: Limits) -> str:
    expected = _OOXML_ENDINGS.get(ending, "zip")
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            kind = _zip_kind(archive, {member.filename for member in members}, limits)
            _check_size(data, members, limits)
    except RejectedRecord:
        raise
    except MemoryError:
        raise
    except Exception as error:
        raise RejectedRecord(f"unreadable_{expected}", type(error).__name__) from None
    return kind


def _zip_kind(archive: zipfile.ZipFile, names: set[str], limits: Limits) -> str:
    if kind := _office_kind(archive, names):
        return _supported(kind)
    if "[Content_Types].xml" in names:
        raise RejectedRecord("unsupported_type", "application/x-ooxml")
    if kind := _declared_kind(archive, names) or _likely_kind(names):
        return kind
    if any(name.endswith(".iwa") or name in ("index.apxl", "index.xml.gz", "Index.zip") for name in names):
        raise RejectedRecord("unsupported_type", "application/vnd.apple.iwork")
    raise RejectedRecord("unsupported_type", "application/zip", ignored=True)


def _office_kind(archive: zipfile.ZipFile, names: set[str]) -> str:
    """By the types that the package lists, else by its main part; "" for neither."""
    if "[Content_Types].xml" in names:
        with archive.open("[Content_Types].xml") as member:
            types = member.read(4 * 1024 * 1024).decode("utf-8", "replace").lower()
        for key, kind in _OOXML.items():
            if key in types:
                return kind
    return next((kind for kind, main in MAIN_PARTS.items() if main in names), "")


def _declared_kind(archive: zipfile.ZipFile, names: set[str]) -> str:
    """By the member ``mimetype``; "" for none, or one of another kind."""
    if "mimetype" not in names:
        return ""
    with archive.open("mimetype") as member:
        declared = member.read(200).decode("ascii", "replace").strip()
    if declared == "application/epub+zip":
        return "epub"
    return "odf" if declared.startswith(("application/vnd.oasis.opendocument.", "application/vnd.sun.xml.")) else ""


def _likely_kind(names: set[str]) -> str:
    """By the members that such an archive has, where ``mimetype`` is missing; "" for none."""
    if "META-INF/container.xml" in names:
        return "epub"
    return "odf" if "content.xml" in names and names & {"styles.xml", "meta.xml", "META-INF/manifest.xml"} else ""


def _supported(kind: str) -> str:
    if kind == "xlsb":
        raise RejectedRecord("unsupported_type", "application/vnd.ms-excel.sheet.binary.macroEnabled.12")
    return kind


def _check_size(data: bytes, members: list[zipfile.ZipInfo], limits: Limits) -> None:
    """Unpack everything into nothing and count, since a bomb's own directory lies about its sizes."""
    total = 0
    for member in members:
        if member.compress_type == zipfile.ZIP_STORED:
            total += min(member.compress_size, len(data))
        elif member.compress_type == zipfile.ZIP_DEFLATED:
            try:
                total = _deflated_size(data, member, total, limits)
            except (zlib.error, struct.error):
                continue  # it cannot be unpacked: reading it fails, and the others can be read
        else:
            raise zipfile.BadZipFile
        # Declared sizes too: libraries reserve by them.
        if max(total, member.file_size) > limits.unpacked_bytes:
            raise RejectedRecord("too_large_unpacked", f"more than {limits.unpacked_bytes} bytes")
        if total > limits.unpacked_ratio_from and total > limits.unpacked_ratio * len(data):
            raise RejectedRecord("too_large_unpacked", f"ratio above {limits.unpacked_ratio}")


def _deflated_size(data: bytes, member: zipfile.ZipInfo, total: int, limits: Limits) -> int:
    name_length, extra_length = struct.unpack_from("<HH", data, member.header_offset + 26)
    begin = member.header_offset + 30 + name_length + extra_length
    packed = data[begin : begin + member.compress_size]
    inflate = zlib.decompressobj(-15)
    while packed and not inflate.eof:
        total += len(inflate.decompress(packed, 1 << 20))
        if total > limits.unpacked_bytes:
            break
        packed = inflate.unconsumed_tail
    return total
