"""Reads tables that grow with the number of chunks: a few teams at a time, so that memory holds the rows of these."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from jobs.state.tables import TABLES

if TYPE_CHECKING:
    from jobs.state.store import State

GROUP_ROWS = 200_000  # about 40 MB of keys and hashes


def count_by_team(state: State, name: str, partition: Mapping[str, str]) -> dict[str, int]:
    """Rows of each team in one partition of a table that is partitioned by team. Opens the table's log alone."""
    actions = pa.table(state.table(name).get_add_actions(flatten=True))
    counts: dict[str, int] = {}
    columns = [f"partition.{column}" for column in ("team_id", *partition)]
    for row in actions.select(["num_records", *columns]).to_pylist():
        if all(row[f"partition.{column}"] == value for column, value in partition.items()):
            team = row["partition.team_id"]
            counts[team] = counts.get(team, 0) + (row["num_records"] or 0)
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

    ``partition`` gives values of further partition columns. Only files of what is asked for are opened, of a table that
    is partitioned by team. Memory holds the rows that are returned.
    """
    values = pa.array(sorted(teams), pa.string())
    filters: list[tuple[str, str, str | list[str]]] = [(key, "=", value) for key, value in (partition or {}).items()]
    if "team_id" in TABLES[name].partition_by:
        filters.append(("team_id", "in", values.to_pylist()))
    wanted = list(dict.fromkeys([*columns, "team_id"]))
    batches = (
        batch.filter(pc.is_in(batch["team_id"], values))
        for batch in state.dataset(name, filters).to_batches(columns=wanted)
    )
    schema = pa.schema([TABLES[name].stored.field(column) for column in wanted])
    return pa.Table.from_batches(batches, schema=schema).select(list(columns))
