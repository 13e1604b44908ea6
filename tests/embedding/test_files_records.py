"""Files of records: a broken record costs itself, is counted, and no other record changes."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding.errors import RejectedRecord
from embedding.parsers import ParsedFile, parse_file


def read(text: str, name: str) -> ParsedFile:
    return parse_file(text.encode(), name)


@pytest.mark.parametrize(
    ("name", "text", "kept", "lost"),
    [
        ("a.ndjson", '{"a": "one"}\nno json\n{"a": "three"}', "a: one\n\na: three", 1),
        ("a.ndjson", '{"a": "one"}\n{"a": "two", "b": "cut o', "a: one\n\na: two\nb: cut o", 1),
        ("a.ndjson", '{"a": "one"} {"a": "two"}\r\n\x1e{"a": "three"}\n', "a: one\n\na: two\n\na: three", None),
        ("a.jsonl", '{\n"a": "one"\n}\n{\n"a": "two"\n}', "a: one\n\na: two", None),
        ("a.json", '[{"a": "one"}, {"a": "two"}, {"a": "thr', "a: one\n\na: two\n\na: thr", 1),
        ("a.json", '[{"a": "one"}, {"a": oops}, {"a": "three"}]', "a: one\n\na: three", 1),
        ("a.json", '{"rows": [{"a": "one"}, {"a": "two"', "rows[0].a: one\nrows[1].a: two", 1),
        ("a.json", '{"a": "one"} and more', "a: one", 1),
        ("a.json", '{"a": "one", // why\n "b": ["two", ], }', "a: one\nb: two", None),
        ("a.json", '{"a": "one\ntwo"}', "a: one\ntwo", None),
    ],
)
def test_a_broken_record_costs_itself_alone(name: str, text: str, kept: str, lost: int | None) -> None:
    parsed = read(text, name)
    assert (parsed.text, parsed.meta.get("unreadable_records")) == (kept, lost)


@pytest.mark.parametrize(("name", "text"), [("a.ndjson", "one\ntwo\n"), ("a.json", "{one}"), ("a.json", '{"a": tru')])
def test_a_file_without_a_whole_record_is_refused(name: str, text: str) -> None:
    with pytest.raises(RejectedRecord) as caught:
        read(text, name)
    assert caught.value.reason.startswith("unreadable_")


RECORDS = st.lists(
    st.fixed_dictionaries({"key": st.from_regex(r"w[a-z]{3,8}", fullmatch=True)}), min_size=2, max_size=8
)


@given(RECORDS, st.data())
def test_wherever_a_list_is_cut_the_records_before_the_cut_are_kept(
    records: list[dict[str, str]], data: st.DataObject
) -> None:
    whole = json.dumps(records)
    cut = data.draw(st.integers(len(json.dumps(records[:1])) + 1, len(whole) - 1))
    before = sum(1 for n in range(1, len(records) + 1) if len(json.dumps(records[:n])) - 1 <= cut)
    parsed = read(whole[:cut], "a.json")
    assert parsed.text.split("\n\n")[:before] == [f"key: {record['key']}" for record in records[:before]]
    assert parsed.meta["unreadable_records"] == 1


def test_a_quote_that_never_ends_does_not_swallow_the_rows_below() -> None:
    parsed = read('Crane,Note\nNorth,"oiled\nSouth,dry\nWest,"a ""b"" c"\n', "a.csv")
    assert parsed.text.splitlines()[1:] == ["Crane: South; Note: dry", 'Crane: West; Note: a "b" c']
    assert "oiled" in parsed.text.splitlines()[0] and parsed.meta["odd_rows"] == 1
    assert read('Crane,Note\nNorth,"two\nlines"\n', "a.csv").text == "Crane: North; Note: two lines"


def test_a_notebook_keeps_what_went_wrong() -> None:
    cell = {
        "cell_type": "code",
        "source": "1/0",
        "outputs": [{"output_type": "error", "ename": "E", "evalue": "by zero"}],
    }
    assert read(json.dumps({"nbformat": 4, "cells": [cell]}), "n.ipynb").text == "1/0\n\nE: by zero"
