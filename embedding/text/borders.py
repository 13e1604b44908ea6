"""Where a text may be cut, and how good each place is: the ends of headings, paragraphs, lines, sentences and words.

A place's priority is its class, then a hash of the characters around it: content only, never where it lies.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_HASH_BLOCK = 1 << 20  # characters whose hashes are worked out at once
_HALF_WINDOW_BITS = 4
_HALF_WINDOW = 1 << _HALF_WINDOW_BITS  # characters hashed on either side of a candidate

_HEADING, _LINE, _SENTENCE, WORD, _ANY = range(5)
CLASS_SHIFT = 60

_HEADING_LINE = re.compile(r"^#{1,6}[ \t]", re.MULTILINE)
_BLANK = re.compile(r"\n(?:[^\S\n]*\n)+|[\f\u2029]")
_NEWLINE = re.compile(r"\n|\r(?!\n)|[\x85\u2028]")
# Each run is matched from its last character (look-behind), never from its first: a megabyte of dots stays linear.
_SENTENCE_END = re.compile(r"""(?<=[.!?…])["'”’»)\]]*\s+|(?<=[。！？｡])(?![。！？｡])[”’」』）]*""")
_WORD_END = re.compile(r"\s+|[，、；：]")

Ints = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Borders:
    """Candidate cuts in order of position: where, how good (small is better), how many tokens begin before it."""

    position: Ints
    priority: Hashes
    token: Ints


def find_borders(text: str, starts: Ints) -> Borders:
    """Candidates of every class but any-character, which is only looked for where it is needed.

    ``starts`` (int64, rising) are the positions at which the text's tokens begin.
    """
    headings = [match.start() for match in _HEADING_LINE.finditer(text)]
    # A heading's own blank line counts as a mere line end: a heading should stay with what it heads.
    after_heading = {end if (end := text.find("\n", at)) >= 0 else len(text) for at in headings}
    blanks = [match.end() for match in _BLANK.finditer(text) if match.start() not in after_heading]
    classes = [
        headings + blanks,
        [match.end() for match in _NEWLINE.finditer(text)],
        [match.end() for match in _SENTENCE_END.finditer(text)],
        [match.end() for match in _WORD_END.finditer(text)],
    ]
    position = np.concatenate([np.asarray(found, np.int64) for found in classes])
    rank = np.repeat(np.arange(len(classes), dtype=np.uint64), [len(found) for found in classes])
    order = np.lexsort((rank, position))
    position, rank = position[order], rank[order]
    keep = (position > 0) & (position < len(text))
    keep[1:] &= position[1:] != position[:-1]  # the lowest class of a place comes first
    position, rank = position[keep], rank[keep]
    return Borders(position, _priorities(text, position, rank), np.searchsorted(starts, position))


def every_border(text: str, starts: Ints, borders: Borders, start: int, end: int) -> Borders:
    """Candidates within ``start:end``, with those between any two graphemes added."""
    inside = slice(*np.searchsorted(borders.position, (start, end)))
    known = borders.position[inside]
    position = np.setdiff1d(start + _grapheme_starts(text[start:end]), known, assume_unique=True)
    priority = _priorities(text, position, np.full(len(position), _ANY, np.uint64))
    position, priority = np.concatenate([known, position]), np.concatenate([borders.priority[inside], priority])
    order = np.argsort(position, kind="stable")
    position = position[order]
    return Borders(position, priority[order], np.searchsorted(starts, position))


def _codepoints(text: str) -> npt.NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")


def _grapheme_starts(text: str) -> Ints:
    """Places, 0 left out, that are not inside a character as a reader sees it: the common cases of UAX 29."""
    code = _codepoints(text)
    before, after = code[:-1], code[1:]
    unusual = np.unique(code[code >= 0x300])
    marks = np.array([c for c in unusual.tolist() if unicodedata.category(chr(c)) in ("Mn", "Me", "Mc")], np.uint32)
    joined = np.isin(after, marks) | (before == 0x200D) | (after == 0x200D)
    joined |= ((after >= 0x1F3FB) & (after <= 0x1F3FF)) | ((after >= 0xE0020) & (after <= 0xE007F))  # skin tones, tags
    joined |= (before >= 0xD800) & (before < 0xDC00) & (after >= 0xDC00) & (after < 0xE000)
    joined |= (before == 0x0D) & (after == 0x0A)
    flag = (code >= 0x1F1E6) & (code <= 0x1F1FF)
    if flag.any():  # flags are pairs: no cut before the second, fourth, … of a run
        index = np.arange(len(code))
        nth = index - np.maximum.accumulate(np.where(flag, -1, index))
        joined |= flag[1:] & (nth[1:] % 2 == 0)
    return np.flatnonzero(~joined) + 1


def _priorities(text: str, position: Ints, rank: Hashes) -> Hashes:
    """Class in the high bits, below it a hash of the characters on both sides. Content only, never the position."""
    hashes = np.empty(len(position), np.uint64)
    done = 0
    while done < len(position):
        begin = int(position[done])
        stop = int(np.searchsorted(position, begin + _HASH_BLOCK))
        window = _window_hashes(text, begin, int(position[stop - 1]) + 1)
        hashes[done:stop] = window[position[done:stop] - begin]
        done = stop
    return (rank << np.uint64(CLASS_SHIFT)) | (hashes >> np.uint64(64 - CLASS_SHIFT))


def _window_hashes(text: str, begin: int, stop: int) -> Hashes:
    """Hash of the window around each place of ``begin:stop``: a polynomial by doubling, mixed by splitmix64."""
    low, high = begin - _HALF_WINDOW, stop + _HALF_WINDOW
    code = _codepoints(text[max(low, 0) : high]).astype(np.uint64) + np.uint64(1)
    value = np.pad(code, (max(-low, 0), max(high - len(text), 0)))  # past the text's edge: zeros
    base = 0x9E3779B97F4A7C15
    for step in range(_HALF_WINDOW_BITS + 1):
        width = 1 << step
        value = value[:-width] * np.uint64(base) + value[width:]
        base = base * base & 0xFFFFFFFFFFFFFFFF
    value = value[: stop - begin]
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(value ^ (value >> np.uint64(31)), np.uint64)
