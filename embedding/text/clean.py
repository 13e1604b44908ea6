"""The one definition of clean text: every parser passes its text through here before offsets are recorded."""

import itertools
import re
import unicodedata

# C0 controls (and DEL) carry no meaning for an embedding and NUL breaks most stores; tab and newline stay.
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATES = re.compile(r"[\ud800-\udfff]")
_MANY_NEWLINES = re.compile(r"\n{3,}")
_MARKS = re.compile(r"[^\w\s\x00-\x7f]{64,}")  # a run of combining marks, or of symbols


def clean_text(text: str) -> str:
    """Return ``text`` in NFC, without control characters and without needless blank space.

    The function is idempotent, so a text that was cleaned twice keeps its offsets.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROLS.sub("", text)
    # A lone surrogate cannot be encoded as UTF-8, so it would fail much later, at the store or the model.
    text = _SURROGATES.sub("\ufffd", text)
    text = unicodedata.normalize("NFC", text if text.isascii() else _MARKS.sub(_ordered, text))
    # Not a regex: "blanks before a line end" backtracks over every long run of blanks, in quadratic time.
    text = "\n".join(line.rstrip() for line in text.split("\n"))
    text = _MANY_NEWLINES.sub("\n\n", text)
    return text.strip()


def _ordered(run: re.Match[str]) -> str:
    """The same in NFD: normalize() orders marks by insertion, which takes minutes for a megabyte out of order."""
    if not any(map(unicodedata.combining, run[0])):
        return run[0]
    text = run[0].translate({ord(letter): unicodedata.normalize("NFD", letter) for letter in set(run[0])})
    classes = list(map(unicodedata.combining, text))
    letter_of = itertools.accumulate(kind == 0 for kind in classes)  # marks move only behind their own letter
    order = sorted(zip(letter_of, classes, range(len(text)), strict=True))
    return "".join(text[place] for _, _, place in order)
