"""Redaction: what may be shown of a configuration. A secret is recognised by its type, its key's name, or its form."""

from __future__ import annotations

import re

MASK = "***"
_WORDS = "password|passwd|pwd|secret|token|credential|signature|(?:api|access|account|shared)[_.-]?key"
SECRET_NAMES = f"(?i){_WORDS}"  # as a regular expression; Java reads it too
_NAMED = r"(?<=\bmodel)s:/[\w.-]+@[\w.-]+(?![\w/]|:\S)"  # models:/NAME@ALIAS, which is no user at a host
_USERINFO = re.compile(rf"(?!{_NAMED})(\w:/{{1,2}})[^/?#\s]*@")
_ASSIGNED = re.compile(rf"(?i)((?:[\w.-]*(?:{_WORDS})[\w.-]*|\bsig)\s*[=:]\s*)(\"[^\"]*\"|'[^']*'|[^&;,\s]+)")
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[\w+/=.~-]{8,}")


def is_secret(name: str) -> bool:
    """Whether a setting of that name holds a secret."""
    return re.search(SECRET_NAMES, name) is not None


def without_userinfo(text: str) -> str:
    """A line without the user and password of any URI in it, also of one that was taken for a path."""
    return _USERINFO.sub(rf"\1{MASK}@", text)


def masked(text: str) -> str:
    """A value without its secrets: a URI's user and password, ``password=...`` and the like, authorization headers."""
    return _BEARER.sub(rf"\1 {MASK}", _ASSIGNED.sub(rf"\1{MASK}", without_userinfo(text)))
