"""Strings as Vespa takes them: it refuses some characters, and an empty term means nothing to it."""

from __future__ import annotations

import re

# Vespa takes no other characters in ids and strings (com.yahoo.text.Text.isTextCharacter).
_REFUSED = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\ufdd0-\ufddf\uf8ff"
    + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(1, 17))
    + "]"
)
_STORED = re.compile("\uf8ff([0-9a-f]*)\uf8ff")


def storable(text: str) -> str:
    """A string as Vespa takes it: what it refuses becomes its number between two U+F8FF, and so does U+F8FF itself."""
    return _REFUSED.sub(lambda found: f"\uf8ff{ord(found[0]):x}\uf8ff", text)


def searchable(text: str) -> str:
    """``storable`` for what is searched by its whole value: an empty term means nothing to Vespa, two U+F8FF do."""
    return storable(text) or "\uf8ff\uf8ff"


def restored(text: str) -> str:
    """The string that ``storable`` or ``searchable`` was given."""
    return _STORED.sub(lambda found: chr(int(found[1], 16)) if found[1] else "", text)
