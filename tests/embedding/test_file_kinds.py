"""Which files hold nothing to read by their kind, and which ones are damaged or of a format that is not read."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fpdf import FPDF

from embedding.errors import RejectedRecord
from embedding.parsers import REASONS, parse_file
from tests.support.paths import ROOT


def rejection(data: bytes, name: str) -> RejectedRecord:
    with pytest.raises(RejectedRecord) as caught:
        parse_file(data, name)
    assert caught.value.reason in REASONS
    return caught.value


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("notes.txt"))
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    return buffer.getvalue()


PNG = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
BMP = b"BM" + struct.pack("<IIIIiiHHIIIIII", 70, 0, 54, 40, 2, 2, 1, 24, 0, 16, 0, 0, 0, 0) + bytes(16)
MP3 = (b"\xff\xfb\x90\x00" + bytes(413)) * 2  # 128 kbit/s at 44.1 kHz: a frame of 417 bytes
EXE = b"MZ" + bytes(58) + struct.pack("<I", 64) + b"PE\0\0" + bytes(20)
TTF = b"\0\1\0\0" + struct.pack(">HHHH", 9, 128, 3, 16) + b"OS/2" + bytes(60)

KINDS = {
    "image/png": PNG,
    "image/jpeg": b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(20),
    "image/gif": b"GIF89a\x01\0\x01\0" + bytes(20),
    "image/webp": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8 " + bytes(22),
    "image/bmp": BMP,
    "image/tiff": b"II*\0" + bytes(60),
    "image/heif": struct.pack(">I", 24) + b"ftypheic" + bytes(40),
    "audio/wav": b"RIFF" + struct.pack("<I", 36) + b"WAVEfmt " + bytes(28),
    "audio/mpeg": MP3,
    "audio/mp4": struct.pack(">I", 24) + b"ftypM4A " + bytes(40),
    "video/mp4": struct.pack(">I", 24) + b"ftypisom" + bytes(40),
    "video/x-matroska": b"\x1a\x45\xdf\xa3" + bytes(30),
    "font/ttf": TTF,
    "font/woff2": b"wOF2\0\1\0\0" + bytes(40),
    "application/zip": zipped(a=b"text"),
    "application/x-tar": tarred(),
    "application/gzip": b"\x1f\x8b\x08" + bytes(20),
    "application/x-elf": b"\x7fELF\x02\x01" + bytes(60),
    "application/vnd.microsoft.portable-executable": EXE,
    "application/vnd.sqlite3": b"SQLite format 3\0" + bytes(100),
    "application/vnd.apache.parquet": parquet(),
    "application/x-ds-store": b"\0\0\0\1Bud1" + bytes(40),
}


@pytest.mark.parametrize("media_type", KINDS)
@pytest.mark.parametrize("name", ["what.bin", "invoice.pdf", "notes.txt", "page.html"])
def test_a_kind_without_text_is_known_by_its_content_whatever_its_name(media_type: str, name: str) -> None:
    found = rejection(KINDS[media_type], name)
    assert (found.reason, found.detail, found.ignored) == ("unsupported_type", media_type, True)


@pytest.mark.parametrize(
    "start",
    [
        "BM means below market",
        "MZ is a country code",
        "ID3 tags",
        "GIF89a, a format",
        "PAR1 of the plan",
        "RIFF raff",
        "Obj 1",
    ],
)
def test_a_note_that_begins_with_the_letters_of_a_signature_is_text(start: str) -> None:
    assert parse_file(
        f"{start}, and more words follow here so that there is enough to look at.".encode(), "n"
    ).text.startswith(start)


def test_what_is_not_known_is_not_ignored() -> None:
    assert not rejection(bytes(range(256)) * 20, "picture.png").ignored
    assert not rejection(b"PK\x03\x04" + bytes(50), "broken.zip").ignored
    assert not rejection(b"%PDF-1.7 torn", "x.pdf").ignored


def test_a_document_of_a_format_that_is_not_read_is_not_ignored(shared_files: Path | None) -> None:
    if shared_files is None:
        pytest.skip("no ../shared/data/files beside the repository")
    for ending in ("doc", "ppt", "msg"):
        found = rejection(next(shared_files.rglob(f"*.{ending}")).read_bytes(), "x")
        assert found.reason in ("unsupported_type", "encrypted_office") and not found.ignored


@pytest.fixture
def shared_files() -> Path | None:
    path = ROOT / "../shared/data/files"
    return path if path.is_dir() else None


def test_a_scan_has_no_text_by_its_kind_and_a_blank_note_is_merely_empty() -> None:
    scan = FPDF()
    scan.add_page()
    found = rejection(bytes(scan.output()), "scan.pdf")
    assert (found.reason, found.ignored) == ("no_text", True)
    found = rejection(b" \n\t ", "blank.txt")
    assert (found.reason, found.ignored) == ("no_text", False)
    assert not rejection(b"", "empty.txt").ignored
