"""Templates: fields and what belongs to them, over whole columns."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pytest

from embedding.text.template import BARE, NO_CONTEXT, Template, date_words


def rendered(source: str, **columns: Sequence[str | None]) -> list[str]:
    rows = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    found: list[str] = Template.parse(source).render(rows, len(next(iter(columns.values())))).to_pylist()
    return found


def test_fields_are_filled_row_by_row() -> None:
    assert rendered("{author}: {text}", author=["Ada", "Bob"], text=["hello", "good"]) == ["Ada: hello", "Bob: good"]


def test_what_follows_an_empty_field_goes_with_it() -> None:
    assert rendered("{author}: {text}", author=["", None], text=["hello", "good"]) == ["hello", "good"]
    parts = {"author": ["", "Ada"], "channel": ["general", ""], "text": ["a", "b"]}
    assert rendered("{author} in #{channel}: {text}", **parts) == ["general: a", "Ada in #b"]


def test_what_stands_before_all_fields_stays() -> None:
    assert rendered("said: {text}", text=["a", ""]) == ["said: a", "said: "]


def test_braces_that_are_meant_are_written_twice() -> None:
    assert rendered("{{{author}}} {text}", author=["Ada"], text=["a"]) == ["{Ada} a"]


def test_the_context_is_what_stands_before_the_text() -> None:
    context = Template.parse("{author}: {text}").context()
    assert context.fields == {"author"}
    assert context.render({"author": pa.array(["Ada", ""])}, 2).to_pylist() == ["Ada: ", ""]
    assert NO_CONTEXT.render({}, 2).to_pylist() == ["", ""]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("{author}", "once"),
        ("{text} {text}", "once"),
        ("{writer} {text}", "{writer} is none of the fields {author}"),
        ("{text!r}", "is none of the fields"),
        ("{text", "write a brace that is meant as such twice"),
    ],
)
def test_what_is_no_template_is_refused_in_one_line(source: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault.replace("{", r"\{").replace("}", r"\}")) as refusal:
        Template.parse(source)
    assert "\n" not in str(refusal.value)


def test_what_is_encoded_ends_with_the_text() -> None:
    with pytest.raises(ValueError, match="must end with"):
        Template.parse("{text} ({author})").context()
    assert BARE.context() == NO_CONTEXT


def test_a_day_in_words() -> None:
    moments = pa.array([0, 1_683_554_160_000_000, -1, 4_102_444_799_999_999], pa.int64())
    assert date_words(moments).to_pylist() == ["1 January 1970", "8 May 2023", "31 December 1969", "31 December 2099"]
