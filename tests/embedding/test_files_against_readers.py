"""Every word that another reader finds in a real file is found by us too, or is listed with the reason why it is not."""

from __future__ import annotations

import html
import re
import tomllib
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

import pytest

from embedding.errors import RejectedRecord
from embedding.parsers import parse_file
from tests.support import other_readers
from tests.support.paths import ROOT

ALLOWED = tomllib.loads((ROOT / "tests/support/other_readers.toml").read_text())["allowed"]

_WORD = re.compile(r"[^\W\d_]{2,}|\d{2,}")
# Marks of the readers' own output: links' targets, tags, addresses.
_MARKUP = re.compile(r"(?<=\])\([^)]*\)|<[^>]{1,300}>|https?://\S+")


def words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(unicodedata.normalize("NFKC", text))}


def ours(path: Path) -> str:
    """A file's text with what its marks say, such as the names of sheets."""
    try:
        parsed = parse_file(path.read_bytes(), path.name)
    except RejectedRecord:
        return ""
    return "\n".join(
        [
            parsed.text,
            parsed.title,
            *(str(value) for mark in parsed.marks for value in mark.meta.values()),
            str(parsed.meta),
        ]
    )


def lost_words(path: Path, theirs: str) -> list[str]:
    """The words of another reading that ours has neither as words nor as parts of others (``na-ïve`` is ``naïve``)."""
    mine = ours(path)
    flat = re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", mine)).casefold()
    found = words(html.unescape(_MARKUP.sub(" ", theirs))) - words(mine)
    allowed = {word for entry in ALLOWED if fnmatch(path.name, entry["file"]) for word in entry["words"].split()}
    return [] if "*" in allowed else sorted(word for word in found - allowed if word not in flat)


@pytest.mark.slow
def test_no_word_that_another_reader_finds_is_lost(shared_data: Path, tmp_path: Path) -> None:
    absent = other_readers.missing()
    if len(absent) == 3:
        pytest.skip(f"no other reader is installed: {', '.join(absent)}")
    files = sorted(path for path in (shared_data / "files").rglob("*") if path.is_file())
    marked = [path for path in files if other_readers.ending(path) in other_readers.MARKITDOWN_KINDS]
    process = other_readers.start_markitdown(marked, tmp_path) if other_readers.MARKITDOWN.exists() else None
    read = [path for path in files if other_readers.command_line(path)]
    lost: dict[str, list[str]] = {}
    with ThreadPoolExecutor(2) as threads:
        for path, text in zip(read, threads.map(other_readers.read_by_program, read), strict=True):
            if missed := lost_words(path, text):
                lost[f"{path.name} (system's reader)"] = missed
    if process is not None:
        assert process.wait(timeout=300) == 0
        for number, path in enumerate(marked):
            if missed := lost_words(path, (tmp_path / f"{number}.txt").read_text()):
                lost[f"{path.name} (markitdown)"] = missed
    assert not lost, "\n".join(f"{name}: {' '.join(missed)}" for name, missed in lost.items())


def test_every_word_that_may_be_missed_has_its_reason() -> None:
    assert all(entry.keys() == {"file", "words", "reason"} and entry["reason"] for entry in ALLOWED)
