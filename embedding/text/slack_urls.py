"""Bare URLs in Slack's text: where one ends, and what of it is kept (never userinfo, query or fragment)."""

from __future__ import annotations

import re

# Scripts that are written without blanks, or put endings on a foreign word: everything beyond Latin.
_LETTERS = (
    "\u0370-\u1dff\u1f00-\u1fff\u2c00-\u2dff\u2e80-\u2fff\u3005-\u3007\u3021-\u302f\u3031-\uabff\uac00-\ud7ff"
    "\uf900-\ufdff\ufe70-\ufefc\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\uff66-\uffdc\U00010000-\U0001efff"
    "\U00020000-\U0003ffff"
)
# No URL holds these unencoded: quotation marks, dashes and dots of print, full-width punctuation, emoji.
_MARKS = (
    "\u00ab\u00bb\u060c\u061b\u061f\u06d4\u0964\u0965\u2000-\u206f\u3000-\u3004\u3008-\u3020\u3030\ufe10-\ufe6f"
    "\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65\uffe0-\uffef\U0001f000-\U0001faff"
)
_LETTER = rf"(?:(?![{_MARKS}])[{_LETTERS}])"
_STOP = rf"\s<>`|\x00&{_LETTERS}{_MARKS}"
_AND = "&(?![lg]t;)"
# Letters of such a script belong to a path where they begin a part of it ("/wiki/東京"), and are the sentence's where
# they follow other letters ("/aをご覧"), unless a query with a parameter follows; those in a query belong to it only
# where another parameter follows. Nothing comes after the last repetition and what is looked ahead at is bounded, so
# that hostile text cannot make the scan quadratic.
_RUN = rf"(?:{_LETTER}|[0-9A-Za-z_%.+\u00c0-\u024f-]){{1,200}}"
_PATH_RUN = _RUN.replace("_%", "_/%")
_KEY = r"[\w.%-]{1,64}="
_PATH = rf"(?:[^?#{_STOP}]+|{_AND}|(?:(?<=[/_(-])|(?<=[{_LETTERS}])){_LETTER}+|{_PATH_RUN}(?=[?#]{_KEY}))+"
_QUERY = rf"[?#](?:[^{_STOP}]+|{_AND}|{_RUN}(?=&{_KEY}))*"

RAW_URL = rf"[hH][tT][tT][pP][sS]?://{_PATH}(?:{_QUERY})?"  # without groups, for use in a larger pattern
URL = re.compile(RAW_URL)
_WORD = re.compile(r"[a-z]{2,12}")


def strip_url(url: str) -> tuple[str, str]:
    """Return the URL without userinfo, query and fragment, and what stands after it that is not part of it."""
    body = url.rstrip(").,;:!?'\"*_~" if "(" not in url else ".,;:!?'\"*_~")
    # "see https://x.example/a?b=1,then go": a plain word after the only comma is the sentence's, not the query's.
    query = min((at for end in "?#" if (at := body.find(end)) >= 0), default=len(body))
    comma = max(body.rfind(","), body.rfind(";"))
    if comma > query and _WORD.fullmatch(body, comma + 1) and not {",", ";"} & set(body[query:comma]):
        body = body[:comma]
    return bare_url(body), url[len(body) :]


def bare_url(url: str) -> str:
    """The URL without userinfo, query and fragment."""
    scheme, found, rest = url.partition(":")
    for end in "?#":
        rest = rest.partition(end)[0]
    if rest.startswith("//"):
        authority, slash, path = rest[2:].partition("/")
        rest = f"//{authority.rpartition('@')[2]}{slash}{path}"
    return scheme + found + rest
