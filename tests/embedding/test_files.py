"""Every format and every rejection of embedding.parsers, on documents that are made here."""

from __future__ import annotations

import io
import json
import time
import zipfile
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Protocol

import docx
import openpyxl
import pptx
import pytest
from fpdf import FPDF
from fpdf.enums import EncryptionMethod
from hypothesis import given
from hypothesis import strategies as st
from pptx.util import Inches

from embedding.errors import RejectedRecord
from embedding.parsers import REASONS, Limits, ParsedFile, parse_file
from embedding.records import Mark
from embedding.text.clean import clean_text
from tests.support.paths import ROOT

SHARED = ROOT / "../shared/data/files"
SAMPLES = ROOT / "docs/sample/files"


def at_marks(parsed: ParsedFile) -> list[tuple[dict[str, str | int], str]]:
    """Each mark with the first line of text at its offset."""
    return [(mark.meta, parsed.text[mark.start :].split("\n", 1)[0]) for mark in parsed.marks]


def reason_of(data: bytes, name: str, limits: Limits | None = None) -> str:
    with pytest.raises(RejectedRecord) as caught:
        parse_file(data, name, limits or Limits())
    assert caught.value.reason in REASONS
    return caught.value.reason


def pdf(*pages: str, user: str | None = None) -> bytes:
    document = FPDF()
    document.set_font("Helvetica", size=12)
    if user is not None:
        document.set_encryption(owner_password="owner", user_password=user, encryption_method=EncryptionMethod.RC4)
    for text in pages:
        document.add_page()
        if text:
            document.multi_cell(0, 6, text)
    return bytes(document.output())


class Savable(Protocol):
    def save(self, stream: Any, /) -> object: ...


def saved(document: Savable) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)
    return buffer.getvalue()


def word(text: str = "Some words.") -> bytes:
    document = docx.Document()
    document.add_paragraph(text)
    return saved(document)


def zipped(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


@given(st.text())
def test_clean_text_is_idempotent_and_encodable(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    once.encode("utf-8")


def test_clean_text() -> None:
    assert clean_text(" a\x00b \r\n\r\n\n\nc\td\r\ud800e\u0301 ") == "ab\n\nc\td\n\ufffd\u00e9"


@pytest.mark.parametrize(
    "data",
    [
        "Grüße aus Köln, schöne Straße".encode(c)
        for c in ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252")
    ],
)
def test_txt_in_several_encodings(data: bytes) -> None:
    parsed = parse_file(data, "dir/notes.txt")
    assert parsed == ParsedFile("Grüße aus Köln, schöne Straße", (), "text/plain", "notes", {})


def test_markdown_headings_but_not_in_code() -> None:
    parsed = parse_file(b"intro\n\n# A\ntext\n```\n# no\n```\n## B ##\nmore\n\nC\n=\nend", "x.md")
    assert at_marks(parsed) == [({"heading": "A"}, "# A"), ({"heading": "A > B"}, "## B ##"), ({"heading": "C"}, "C")]
    assert "# no" in parsed.text and parsed.title == "A"


def test_html() -> None:
    page = """<html><head><title>T</title><script>evil()</script></head><body><h1>One</h1><p>a <b>b</b><br>c</p>
    <style>x</style><h2>Two</h2><ul><li>p<li>q</ul>
    <table><tr><th>Name<th>Price</tr><tr><td>Box<td>3</tr></table></body></html>"""
    parsed = parse_file(page.encode(), "page.html")
    assert parsed.text == "One\n\na b\nc\n\nTwo\n\n- p\n- q\n\nName: Box; Price: 3"
    assert at_marks(parsed) == [({"heading": "One"}, "One"), ({"heading": "One > Two"}, "Two")]
    assert parsed.title == "T"


def test_html_by_declared_charset_and_deep_nesting() -> None:
    assert "Ж" in parse_file('<html><meta charset="windows-1251"><p>Ж и Ш'.encode("cp1251"), "a.html").text
    assert "deep" in parse_file(b"<html>" + b"<div>" * 1500 + b"deep", "a.html").text
    assert reason_of(b"<html>" + b"<div>" * 5000 + b"deep", "a.html") == "unreadable_html"


def test_html_called_pdf_is_html() -> None:
    assert parse_file(b"<!doctype html><p>Sign in", "invoice.pdf").media_type == "text/html"


def test_pdf_pages() -> None:
    parsed = parse_file(pdf("First page", "", "Third page"), "x.pdf")
    assert at_marks(parsed) == [({"page": 1}, "First page"), ({"page": 3}, "Third page")]
    assert parsed.meta == {"pages": 3}


def test_pdf_rejections() -> None:
    assert parse_file(pdf("open", user=""), "x.pdf").text == "open"
    assert reason_of(pdf("secret", user="pw"), "x.pdf") == "encrypted_pdf"
    assert reason_of(pdf(""), "scan.pdf") == "no_text"
    assert reason_of(b"%PDF-1.7 torn", "x.pdf") == "unreadable_pdf"
    assert reason_of(pdf("a", "b"), "x.pdf", Limits(pdf_pages=1)) == "too_many_pages"


def test_docx() -> None:
    document = docx.Document()
    document.add_heading("Guide", 1)
    document.add_paragraph("Intro.")
    document.add_heading("Levels", 2)
    table = document.add_table(rows=2, cols=2)
    for cell, text in zip(table._cells, ["Level", "Who", "S1", "director"], strict=True):
        cell.text = text
    document.sections[0].header.paragraphs[0].text = "Internal"
    parsed = parse_file(saved(document), "g.docx")
    assert parsed.text == "Guide\n\nIntro.\n\nLevels\n\nLevel: S1; Who: director\n\nInternal"
    assert at_marks(parsed)[1:] == [({"heading": "Guide > Levels"}, "Levels"), ({"part": "header"}, "Internal")]


def test_pptx() -> None:
    deck = pptx.Presentation()
    for title in ("One", "Two"):
        slide = deck.slides.add_slide(deck.slide_layouts[5])
        slide.shapes.title.text = title
        slide.notes_slide.notes_text_frame.text = f"say {title}"
    table = slide.shapes.add_table(2, 2, Inches(1), Inches(1), Inches(4), Inches(1)).table
    for place, text in zip([(0, 0), (0, 1), (1, 0), (1, 1)], ["Goal", "Value", "Doors", "46"], strict=True):
        table.cell(*place).text = text
    parsed = parse_file(saved(deck), "d.pptx")
    assert parsed.text == "One\n\nNotes: say One\n\nTwo\n\nGoal: Doors; Value: 46\n\nNotes: say Two"
    assert at_marks(parsed) == [({"slide": 1, "heading": "One"}, "One"), ({"slide": 2, "heading": "Two"}, "Two")]


def test_xlsx() -> None:
    book = openpyxl.Workbook()
    book.active.title = "Q3"
    book.active.append(["Item", "Price"])
    book.active.append(["Box", 3.0])
    book.create_sheet("Empty")
    book.create_sheet("Numbers").append([1, 2.5])
    parsed = parse_file(saved(book), "p.xlsx")
    assert parsed.text == "Item: Box; Price: 3\n\n1\t2.5"
    assert at_marks(parsed) == [({"sheet": "Q3"}, "Item: Box; Price: 3"), ({"sheet": "Numbers"}, "1\t2.5")]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(delimiter: str) -> None:
    text = delimiter.join(["name", "note"]) + "\n" + delimiter.join(["Ada", '"x\ny"'])
    assert parse_file(text.encode(), "a.csv").text == "name: Ada; note: x y"


def test_json_ndjson_notebook() -> None:
    assert parse_file(b'{"a": {"b": [1, 2]}, "c": [{"d": true}]}', "a.json").text == "a.b: 1, 2\nc[0].d: true"
    assert parse_file(b'{"a": 1}\n{"a": 2}\n', "a.ndjson").text == "a: 1\n\na: 2"
    assert parse_file(b'{\n"a": 1}\n{\n"a": 2}', "a.json").text == "a: 1\n\na: 2"
    cells = [{"cell_type": "markdown", "source": ["# H\n", "t"]}, {"cell_type": "code", "source": "1+1"}]
    parsed = parse_file(json.dumps({"nbformat": 4, "cells": cells}).encode(), "n.ipynb")
    assert parsed.text == "# H\n\nt\n\n1+1"
    assert parsed.marks == (Mark(0, {"heading": "H"}),)
    assert reason_of(b"[" * 200_000, "deep.json") == "unreadable_json"


def test_eml() -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "Ann <a@x.example>", "b@x.example", "Grüße"
    message["Date"] = "Fri, 19 Apr 2024 09:12:00 +0200"
    message.set_content("Plain body")
    message.add_alternative("<p>Html body", subtype="html")
    message.add_attachment(b"secret,words", maintype="text", subtype="csv", filename="doors.csv")
    parsed = parse_file(message.as_bytes(), "m.eml")
    assert parsed.title == "Grüße" and parsed.meta["attachments"] == ["doors.csv"]
    assert parsed.text.startswith("Subject: Grüße\nFrom: Ann <a@x.example>\nTo: b@x.example\nDate: ")
    assert parsed.text.endswith("\n\nPlain body\n\nAttachments: doors.csv")


def test_xml_never_reads_an_entity(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("hunter2")
    data = f'<?xml version="1.0"?><!DOCTYPE r [<!ENTITY e SYSTEM "{secret.as_uri()}">]><r><a>&e;</a><b>kept</b></r>'
    assert parse_file(data.encode(), "x.xml").text == "b: kept"


def test_other_rejections() -> None:
    assert reason_of(b"", "a.docx") == "empty_file"
    assert reason_of(b" \n ", "a.txt") == "no_text"
    assert reason_of(bytes(range(256)) * 20, "a.txt") == "unsupported_type"
    assert reason_of(zipped({"a.txt": b"a"}), "a.zip") == "unsupported_type"
    assert reason_of(word()[:900], "a.docx") == "unreadable_docx"
    assert reason_of(b"x" * 101, "a.txt", Limits(text_characters=100)) == "too_much_text"


@pytest.mark.parametrize("limits", [Limits(unpacked_bytes=1_000_000), Limits(unpacked_ratio_from=1_000_000)])
def test_zip_bomb(limits: Limits) -> None:
    types = b"wordprocessingml.document.main+xml"
    bomb = zipped({"[Content_Types].xml": types, "word/document.xml": b"\0" * 3_000_000})
    assert reason_of(bomb, "a.docx", limits) == "too_large_unpacked"
    # The same with a directory that claims a small size.
    at = bomb.rindex(b"PK\x01\x02")
    lying = bomb[: at + 24] + (10).to_bytes(4, "little") + bomb[at + 28 :]
    assert reason_of(lying, "a.docx", limits) == "too_large_unpacked"


def test_memory_error_is_a_rejection() -> None:
    class Exhausted(bytes):
        def startswith(self, *_: object) -> bool:
            raise MemoryError

    assert reason_of(Exhausted(b"PK"), "a.docx") == "out_of_memory"


def test_samples_have_text_and_differ_in_type() -> None:
    parsed = [parse_file(path.read_bytes(), path.name) for path in sorted(SAMPLES.iterdir())]
    assert len({one.media_type for one in parsed}) == 10
    assert all(len(one.text.split()) >= 150 for one in parsed)


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data/files beside the repository")
def test_every_real_file_is_parsed_or_rejected_by_a_known_reason() -> None:
    started = time.monotonic()
    reasons = set()
    for path in sorted(SHARED.rglob("*")):
        if not path.is_file():
            continue
        try:
            parsed = parse_file(path.read_bytes(), path.name)
        except RejectedRecord as rejected:
            assert rejected.reason in REASONS, path.name
            reasons.add(rejected.reason)
            continue
        assert parsed.text and clean_text(parsed.text) == parsed.text, path.name
        assert all(0 <= mark.start < len(parsed.text) for mark in parsed.marks), path.name
        json.dumps(parsed.meta)
    assert {"encrypted_pdf", "encrypted_office", "no_text", "unsupported_type"} <= reasons
    assert time.monotonic() - started < 180
