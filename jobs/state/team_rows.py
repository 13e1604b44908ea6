"""Reads tables that grow with the number of chunks: a few teams at a time, so that memory holds the rows of these."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from jobs.state.table_files import Filter

if TYPE_CHECKING:
    from jobs.state.store import State

GROUP_ROWS = 200_000  # about 40 MB of keys and hashes


def count_by_team(state: State, name: str, partition: Mapping[str, str]) -> dict[str, int]:
    """Rows of each team in one partition of a table. Reads the column of teams alone."""
    counts: dict[str, int] = {}
    filters = [(column, "=", value) for column, value in partition.items()]
    for batch in state.dataset(name, filters).to_batches(["team_id"]):
        for found in pc.value_counts(batch["team_id"]).to_pylist():
            counts[found["values"]] = counts.get(found["values"], 0) + found["counts"]
    return counts


def group_teams(counts: Mapping[str, int], most: int = GROUP_ROWS) -> Iterator[list[str]]:
    """Teams in groups of at most ``most`` rows together; a team with more is a group of its own."""
    group: list[str] = []
    rows = 0
    for team, count in sorted(counts.items()):
        if group and rows + count > most:
            yield group
            group, rows = [], 0
        group.append(team)
        rows += count
    if group:
        yield group


def read_teams(
    state: State, name: str, teams: Collection[str], columns: Sequence[str], partition: Mapping[str, str] | None = None
) -> pa.Table:
    """Read some teams' rows of a table of any size, batch by batch: ``columns``, in their order.

    ``partition`` gives values of further partition columns. Of a bucketed table only files of the teams' buckets are
    opened, and of those the parts that may hold a row of them. Memory holds the rows that are returned.
    """
    filters: list[Filter] = [(column, "=", value) for column, value in (partition or {}).items()]
    return state.dataset(name, [*filters, ("team_id", "in", sorted(teams))]).to_table(columns)
