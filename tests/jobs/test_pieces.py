"""Sorted rows cut into pieces: nothing is lost, no group is in two, and what maps them by processes says the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.state import duckdb_frames
from jobs.state.duckdb_frames import DuckFrames
from jobs.state.pieces import group_starts, pieces_of

ROWS = st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 4)), max_size=60).map(sorted)
COUNTED = pa.schema([("team", pa.string()), ("part", pa.int64()), ("rows", pa.int64())])


def table(rows: list[tuple[str, int]]) -> pa.Table:
    names = [("team", pa.string()), ("part", pa.int64()), ("number", pa.int64())]
    return pa.Table.from_pylist(
        [dict(zip(["team", "part", "number"], (*row, n), strict=True)) for n, row in enumerate(rows)],
        schema=pa.schema(names),
    )


@given(rows=ROWS, of_batch=st.integers(1, 7), at_least=st.integers(1, 9))
def test_pieces_hold_whole_groups_and_every_row(rows: list[tuple[str, int]], of_batch: int, at_least: int) -> None:
    given_rows = table(rows)
    found = [
        pa.Table.from_batches(p) for p in pieces_of(iter(given_rows.to_batches(of_batch)), ("team", "part"), at_least)
    ]
    assert [n for piece in found for n in piece["number"].to_pylist()] == list(range(len(rows)))
    assert all(len(piece) >= at_least for piece in found[:-1]) and all(len(piece) for piece in found)
    groups = [set(zip(piece["team"].to_pylist(), piece["part"].to_pylist(), strict=True)) for piece in found]
    assert sum(map(len, groups)) == len(set(rows)), "a group in two pieces"
    assert len(group_starts(given_rows, ("team", "part"))) == len(set(rows))


def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The rows of each group; one that comes in two parts is counted twice."""
    rows = [row for batch in batches for row in batch.to_pylist()]
    for team, group in dict.fromkeys((row["team"], row["part"]) for row in rows):
        same = sum((row["team"], row["part"]) == (team, group) for row in rows)
        yield pa.RecordBatch.from_pylist([{"team": team, "part": group, "rows": same}], COUNTED)


@pytest.mark.slow
def test_groups_are_mapped_by_processes_as_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given_rows = table(sorted(("ab"[n % 2], n % 23) for n in range(400)))
    answers = []
    for rows in (10_000, 30):
        monkeypatch.setattr(duckdb_frames, "_PIECE_ROWS", rows)
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        frames = DuckFrames(tmp_path / f"{rows}", "512m")
        made = frames.map(frames.local(given_rows.schema, given_rows), count, COUNTED, by=("team", "part"))
        answers.append(sorted(tuple(row.values()) for row in frames.collect(made).to_pylist()))
        frames.close()
    assert answers[0] == answers[1] and sum(rows for *_, rows in answers[0]) == 400
