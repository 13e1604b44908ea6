"""The pieces of one message, and what of them is the same content twice.

Slack says one thing in several fields: ``text`` mirrors ``blocks``, an attachment's ``text`` its blocks. A piece of a
mirror is dropped once for each time that its words stand in what it mirrors, in a row; whatever is said more often than
that stays, so that no second "no" of a list is lost.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

# A word as two fields of Slack agree on it. Punctuation, blanks and marks differ between them; a sign that makes it
# another word ("C++", "C#", "-5", "5%") counts.
_WORD = re.compile(
    r"[-+$\u20ac\u00a3\u00a5]?[^\s!-/:-@\[-`{-~\u2000-\u206f\u20ac\u00a3\u00a5\u00b0\u3000-\u3003\u3008-\u3011\uff01-\uff0f]+[+#%\u00b0]*"
)
_TRIES = 100  # a text that is one word a thousand times must not make the search quadratic


class Said:
    """Words that were said, to be taken away one by one by a field that repeats them."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(texts)
        self._words: list[str] = []
        self._places: dict[str, list[int]] = {}
        self._at = 0  # behind what was taken last: a mirror repeats the words in their order
        for text in self._texts:
            for word in (*_words(text), ""):  # no word, so that nothing is found across two texts
                self._places.setdefault(word, []).append(len(self._words))
                self._words.append(word)
        self._taken = bytearray(len(self._words))

    def take(self, text: str) -> bool:
        """Whether these words stand in a row in what was said, and were not taken before."""
        words = _words(text)
        if not words:
            return any(text in said for said in self._texts)
        places = self._places.get(words[0], [])
        first = bisect.bisect_left(places, self._at)
        for number in range(min(len(places), _TRIES)):
            start = places[(first + number) % len(places)]
            end = start + len(words)
            if self._words[start:end] == words and not any(self._taken[start:end]):
                self._taken[start:end] = b"\1" * len(words)
                self._at = end
                return True
        return False


class Parts:
    """What a message says, piece by piece: ``texts``."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._mirrored: list[Said] = []

    def add(self, text: str, prefix: str = "") -> bool:
        """Add a piece, unless it repeats what is mirrored. The prefix (a bullet) is no part of what is compared.

        Returns whether there was any text.
        """
        if not text:
            return False
        if not any(said.take(text) for said in self._mirrored):
            self.texts.append(prefix + text)
        return True

    @contextmanager
    def mirror(self, texts: Iterable[str]) -> Iterator[None]:
        """What is added in here may be a repetition of these texts."""
        self._mirrored.append(Said(texts))
        try:
            yield
        finally:
            self._mirrored.pop()


def _words(text: str) -> list[str]:
    return _WORD.findall(text.casefold())
