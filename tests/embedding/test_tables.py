"""A table's rows stand alone, with true names; no word of any row is dropped."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from embedding.parsers.tables import MERGED, table_lines


def test_each_row_carries_the_names_of_its_columns() -> None:
    assert table_lines([["Crane", "Load"], ["North", "3 t"], ["South", ""]]) == [
        "Crane: North; Load: 3 t",
        "Crane: South",
    ]


def test_a_name_without_a_value_below_is_kept() -> None:
    rows = [["Crane", "Load", "Inspector"], ["North", "3 t", ""], ["South", "4 t", ""]]
    lines = ["Crane\tLoad\tInspector", "Crane: North; Load: 3 t", "Crane: South; Load: 4 t"]
    assert table_lines(rows) == lines


def test_a_row_with_values_under_one_name_only_is_no_header() -> None:
    rows = [["Checked by Ida", "Signed by Per"], ["", "The hoist is locked."], ["", "Ask for the key."]]
    assert table_lines(rows) == ["Checked by Ida\tSigned by Per", "The hoist is locked.", "Ask for the key."]


def test_lines_beside_a_table_do_not_name_its_columns() -> None:
    rows = [
        ["Owner: Ida", "State: open", "", ""],
        ["", "Step", "Hours", ""],
        ["", "Sand", "3", ""],
        ["", "Oil", "2", ""],
    ]
    assert table_lines(rows) == ["Owner: Ida\tState: open", "Step: Sand; Hours: 3", "Step: Oil; Hours: 2"]


def test_a_second_table_below_a_blank_row_has_names_of_its_own() -> None:
    rows = [["Crane", "Load"], ["North", "3"], [], ["Tool", "Price"], ["Saw", "40"], ["Axe", "25"]]
    assert table_lines(rows) == ["Crane: North; Load: 3", "Tool: Saw; Price: 40", "Tool: Axe; Price: 25"]


def test_a_blank_row_inside_a_table_changes_nothing() -> None:
    rows = [["Crane", "Town"], ["North", "Oslo"], [], ["South", "Rome"], ["West", "Bonn"]]
    assert table_lines(rows) == ["Crane: North; Town: Oslo", "Crane: South; Town: Rome", "Crane: West; Town: Bonn"]


def test_merged_names_go_on_and_merged_values_have_all_their_names() -> None:
    rows = [["Crane", "Shift", MERGED], ["North", "early", "late"], ["South", "closed", MERGED]]
    assert table_lines(rows) == ["Crane: North; Shift: early; Shift: late", "Crane: South; Shift: closed"]
    rows = [
        ["Crane", "Mon", "Tue"],
        ["North", "closed", MERGED],
        ["Harbour cranes", MERGED, MERGED],
        ["South", "1", "2"],
    ]
    assert table_lines(rows) == [
        "Crane: North; Mon / Tue: closed",
        "Harbour cranes",
        "Crane: South; Mon: 1; Tue: 2",
    ]


def test_what_the_format_knows_beats_the_guess() -> None:
    rows = [["2023", "2024"], ["Ida", "Per"]]
    assert table_lines(rows, header=True) == ["2023: Ida; 2024: Per"]
    assert table_lines([["Ida", "Per"], ["Kim", "Bo"]], header=False) == ["Ida\tPer", "Kim\tBo"]


CELL = st.sampled_from(["", "", "alpha", "beta one", "7", "Gamma", "3.5", "a: b"]) | st.text(max_size=6)


@given(st.lists(st.lists(CELL, max_size=5), max_size=8), st.sampled_from([None, True, False]))
def test_no_word_is_lost_in_any_table(rows: list[list[str]], header: bool | None) -> None:
    written = " ".join(table_lines(rows, header=header))
    words = {word for row in rows for cell in row for word in re.findall(r"\w+", cell)}
    assert words <= set(re.findall(r"\w+", written))
