"""What is said twice in a message: in two fields that mirror each other once, in one field as often as it is said."""

from __future__ import annotations

import time
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.text.slack import normalise_message

Json = dict[str, object]


def section(text: str) -> Json:
    return {"type": "rich_text_section", "elements": [{"type": "text", "text": text}]}


def bullets(*items: str) -> Json:
    elements = [{"type": "rich_text_list", "style": "bullet", "elements": [section(item) for item in items]}]
    return {"type": "rich_text", "elements": elements}


def cells(*rows: list[str]) -> Json:
    return {"type": "table", "rows": [[{"type": "raw_text", "text": cell} for cell in row] for row in rows]}


def text_of(text: str, **more: object) -> str:
    return normalise_message({"text": text, **more}, {}).text


LANGUAGES = ("C", "C++", "C#")
VOTES = ("no", "yes", "no", "no!")


@pytest.mark.parametrize(
    "items", [LANGUAGES, VOTES, ("5", "-5", "5%", "5"), ("👍", "👍"), ("-", "-"), ("a b", "b", "a")]
)
def test_every_item_of_a_list_stays(items: tuple[str, ...]) -> None:
    listed = "\n".join(f"• {item}" for item in items)
    assert text_of("", blocks=[bullets(*items)]) == listed
    assert text_of(listed, blocks=[bullets(*items)]) == listed, "the text is the list's mirror"
    assert text_of("the list", blocks=[bullets(*items)]) == f"the list\n{listed}"


def test_every_cell_and_every_field_stays() -> None:
    assert text_of("", blocks=[cells(["a", "yes"], ["b", "no"], ["c", "no"])]) == "a\nyes\nb\nno\nc\nno"
    fields = [{"title": "A", "value": "no"}, {"value": "no"}, {"value": "no"}]
    assert text_of("", attachments=[{"fields": fields}]) == "A: no\nno\nno"
    fields = [{"type": "mrkdwn", "text": "no"}, {"type": "mrkdwn", "text": "no"}]
    assert text_of("", blocks=[{"type": "section", "fields": fields}]) == "no\nno"


def test_an_attachment_that_repeats_itself_in_blocks_is_said_once() -> None:
    shared = {"text": "the door is open", "message_blocks": [{"message": {"blocks": [bullets("the door is open")]}}]}
    assert text_of("see", attachments=[shared]) == "see\nthe door is open"
    assert text_of("see", attachments=[shared, shared]) == "see\nthe door is open\nthe door is open"
    assert text_of("", attachments=[{"title": "no", "text": "no", "fallback": "no: no"}]) == "no\nno"
    both = {"blocks": [bullets("shut")], "message_blocks": [{"message": {"blocks": [bullets("shut")]}}]}
    assert text_of("", attachments=[both]) == "• shut"


def test_a_sign_makes_another_word() -> None:
    assert text_of("C", blocks=[bullets(*LANGUAGES)]) == "C\n• C++\n• C#"
    assert text_of("It is 5", blocks=[bullets("-5", "5")]) == "It is 5\n• -5"


@given(st.lists(st.sampled_from(["no", "yes", "no yes", "C", "C++", "5"]), max_size=8), st.booleans())
def test_words_are_kept_as_often_as_any_field_says_them(items: list[str], mirrored: bool) -> None:
    listed = "\n".join(f"• {item}" for item in items)
    found = text_of(listed if mirrored else "", blocks=[bullets(*items)])
    assert Counter(found.replace("•", "").split()) == Counter(" ".join(items).split())


def test_many_pieces_are_compared_in_time() -> None:
    items = [f"word {n}" for n in range(5_000)]
    start = time.perf_counter()
    text_of("\n".join(items), blocks=[bullets(*items)])
    text_of("\n".join(items), blocks=[bullets(*reversed(items))])
    text_of("word " * 20_000, blocks=[bullets(*items)])
    assert time.perf_counter() - start < 10
