"""Bytes become the characters their writer meant: by mark, label, UTF-8 or guess."""

from __future__ import annotations

import random

import pytest

from embedding.parsers import parse_file
from embedding.parsers.encoding import decode_text
from tests.support.languages import _WORDS
from tests.support.legacy_texts import LEGACY

CASES = [(encoding, text) for encodings, texts in LEGACY.values() for encoding in encodings for text in texts]


@pytest.mark.parametrize(("encoding", "text"), CASES)
def test_a_note_without_a_declaration_is_read_as_it_was_written(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding)) == text


@pytest.mark.parametrize(
    "text",
    [
        "Keep at 25 °C ±2",
        "A hair is 70 µm wide",
        "Fee: 100 £",
        "£20 each",
        "Toll 300 ¥",
        "5½ hours",
        "½ litre ± 5 %",
        "12 m² and 3 m³, see § 4",
        "The sign says «Closed»",
        "3 × 4 = 12",
        "The naïve plan won’t do for the new harbour.",
    ],
)
def test_signs_and_one_foreign_word_are_those_of_an_english_note(text: str) -> None:
    assert decode_text(text.encode("cp1252")) == text


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1250", "Łódź"),
        ("cp1250", "żona"),
        ("iso8859-2", "śruba, dwa kąty"),
        ("iso8859-2", "ľudia"),
        ("gb18030", "合同１２３。"),
        ("cp1257", "Ačiū už žinią"),
        ("cp1257", "Paldies, tikšanās pārcelta"),
        ("cp1251", "Москва"),
        ("cp1253", "Αθήνα"),
    ],
)
def test_letters_are_not_taken_for_signs(encoding: str, text: str) -> None:
    assert decode_text(text.encode(encoding)) == text


WESTERN = ("de", "fr", "es", "pt", "fi")
OTHERS = {
    "pl": "cp1250",
    "cs": "cp1250",
    "hu": "cp1250",
    "tr": "cp1254",
    "ru": "cp1251",
    "uk": "cp1251",
    "el": "cp1253",
}
OTHERS |= {"he": "cp1255", "ar": "cp1256", "th": "cp874", "ja": "cp932", "zh": "gb18030", "ko": "cp949"}


def drawn(language: str, count: int, words: int) -> list[str]:
    draw = random.Random(f"{language} {words}")
    return [" ".join(draw.choices(_WORDS[language].split(), k=words)) for _ in range(count)]


@pytest.mark.parametrize("words", [3, 12])
def test_words_drawn_at_random_are_read_right(words: int) -> None:
    western = [text for language in WESTERN for text in drawn(language, 30, words)]
    assert [text for text in western if decode_text(text.encode("cp1252")) != text] == []
    others = [(text, encoding) for language, encoding in OTHERS.items() for text in drawn(language, 30, words)]
    wrong = [text for text, encoding in others if decode_text(text.encode(encoding)) != text]
    # Three words do not always tell one language from another.
    assert len(wrong) <= len(others) * (0.06 if words == 3 else 0.02), wrong


@pytest.mark.parametrize(
    ("label", "encoding", "text"),
    [
        ("gb2312", "gbk", "镕基先生的钥匙"),  # the first is not in GB 2312
        ("GB_2312-80", "gb18030", "㐂 朱镕基"),
        ("ks_c_5601-1987", "cp949", "똠방각하 펲시콜라"),  # not in KS C 5601
        ("euc-kr", "cp949", "찦차를 타고 온 펲시맨"),
        ("shift_jis", "cp932", "①番の髙橋さん"),
        ("x-sjis", "cp932", "㈱山田 №3"),
        ("euc-jp", "euc_jp", "会議は三時です"),
        ("iso-2022-jp", "iso2022_jp", "会議は三時です"),
        ("iso-2022-kr", "iso2022_kr", "회의는 내일"),
        ("hz-gb-2312", "hz", "会议改到明天"),
        ("big5", "big5hkscs", "會議改到明天㗎"),
        ("iso-8859-8-i", "iso8859_8", "שלום לכולם"),
        ("iso-8859-8", "cp1255", "הוא אמר “שלום”"),
        ("windows-874", "cp874", "การประชุม"),
        ("tis-620", "cp874", "การประชุม"),
        ("latin1", "cp1252", "l’œuvre à 5 €"),
        ("iso-8859-9", "cp1254", "ışık “açık”"),
        ("koi8-u", "koi8_u", "її звіт"),
        ("cp866", "cp866", "Привет"),
        ("x-mac-cyrillic", "mac_cyrillic", "Встреча завтра"),
        ("unicode-1-1-utf-8", "utf-8", "Grüße"),
    ],
)
def test_a_label_means_the_larger_encoding_that_people_write_under_it(label: str, encoding: str, text: str) -> None:
    data = text.encode(encoding)
    assert decode_text(data, declared=label) == text
    page = f'<html><head><meta charset="{label}"></head><body><p>'.encode() + data
    assert parse_file(page, "page.html").text == text or label in ("iso-2022-kr", "hz-gb-2312")


def test_jis_rows_that_windows_adds_are_read_in_every_form_of_jis() -> None:
    euc = "会議は".encode("euc_jp") + b"\xad\xa1" + "番".encode("euc_jp")
    assert decode_text(euc, declared="euc-jp") == "会議は①番"
    jis = b"\x1b$B\x2d\x21\x48\x56\x1b(B ok"
    assert decode_text(jis, declared="iso-2022-jp") == "①番 ok"


def test_what_the_bytes_prove_beats_a_declaration() -> None:
    text = "Příští týden, 来週"
    assert decode_text(b"\xef\xbb\xbf" + text.encode(), declared="iso-8859-1") == text
    assert decode_text(text.encode(), declared="windows-1251") == text
    assert decode_text("你好，明天见".encode(), declared="gb2312") == "你好，明天见"
    mislabelled = decode_text("Le procès est terminé, à côté.".encode("cp1252"), declared="utf-8")
    assert mislabelled is not None and mislabelled.startswith("Le procès")
    assert decode_text("Привет, встреча завтра".encode("koi8_r"), declared="us-ascii") == "Привет, встреча завтра"
    assert decode_text("Grüße".encode("cp1252"), declared="no-such-label") == "Grüße"
    # Two Chinese characters can be valid UTF-8; the label decides.
    pair = bytes.fromhex("c4a3c4a3")
    assert decode_text(pair, declared="gbk") == pair.decode("gbk")


def test_a_page_declares_its_encoding_as_xml_too() -> None:
    page = '<?xml version="1.0" encoding="gb2312"?><html><body><p>朱镕基</p></body></html>'.encode("gbk")
    assert parse_file(page, "p.xhtml").text == "朱镕基"
    feed = '<?xml version="1.0" encoding="ks_c_5601-1987"?><news><line>똠방각하</line></news>'.encode("cp949")
    assert parse_file(feed, "n.xml").text == "line: 똠방각하"


def test_a_stray_control_character_makes_no_binary_file_of_a_note() -> None:
    assert decode_text(b"The key is in the box.\x00 Ask Ida.") is not None
    assert decode_text(b"\x00\x01 a") is None and decode_text(bytes(range(64)) * 3) is None
