"""Guard: refuses what would delete much of an index, of a team's rows in it, or of what a source gave.

A share of the whole says little where one team or one source has lost all it had: so both limits hold for every one of
them. Conversations do not count: they come and go with their messages. Asked on every way that deletes: a run, its
steps, a cutover, a repair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedding.errors import MassDeleteError
from embedding.ids import CONVERSATION
from jobs.state.staging import staged
from jobs.state.tables import CHUNK_KEY

if TYPE_CHECKING:
    from jobs.config_sections import Limits
    from jobs.state.frames import Frame, Frames
    from jobs.state.run_target import RunTarget
    from jobs.state.store import State


_MADE = f"regexp_like(chunk_id, '{CONVERSATION}')"  # a conversation, which comes and goes with its messages


@dataclass(frozen=True, slots=True)
class Loss:
    """Of the rows that an index holds of a team and a source: how many, and how many of them would be deleted.

    ``source_id`` is empty where it is not known: in a ledger of an earlier version, or of a row in no table.
    """

    team_id: str
    source_id: str
    held: int
    deleted: int


def check_deletes(losses: Iterable[Loss], limits: Limits, *, what: str = "rows") -> None:
    """Raise MassDeleteError where more goes than both limits allow, of all, of a team, or of a source."""
    groups: dict[str, list[int]] = {}
    for loss in losses:
        names = ["the index", f"team {loss.team_id}"] + [f"source {loss.source_id}"] * bool(loss.source_id)
        for name in names:
            group = groups.setdefault(name, [0, 0])
            group[0] += loss.held
            group[1] += loss.deleted
    # Of the index first, as that says most; the worst of the others after it.
    for name, (held, deleted) in sorted(
        groups.items(), key=lambda item: (item[0] != "the index", -item[1][1], item[0])
    ):
        if deleted > limits.max_delete_rows and deleted > limits.max_delete_fraction * held:
            raise MassDeleteError(
                f"{deleted:,} of {held:,} {what} of {name} would be deleted, more than limits.max_delete_rows "
                f"({limits.max_delete_rows:,}) and limits.max_delete_fraction ({limits.max_delete_fraction:g}); "
                "check the source, or give --allow-mass-delete"
            )


def planned_losses(frames: Frames, target: RunTarget) -> list[Loss]:
    """What the deletes in a run's work folder (team_id, chunk_id) take from each team and source of an index."""
    counted = frames.sql(
        f"""
        WITH deletes AS (SELECT DISTINCT team_id, chunk_id FROM {{deletes}} WHERE NOT {_MADE}),
        joined AS (SELECT coalesce(h.team_id, d.team_id) AS team_id, coalesce(h.source, '') AS source,
            d.chunk_id IS NOT NULL AS goes
            FROM {{held}} h FULL OUTER JOIN deletes d ON h.team_id = d.team_id AND h.chunk_id = d.chunk_id)
        SELECT team_id, source, CAST(count(*) AS BIGINT) AS held, CAST(count_if(goes) AS BIGINT) AS deleted
        FROM joined GROUP BY team_id, source
        """,  # a ghost is in no ledger
        deletes=frames.files(CHUNK_KEY, staged(target.work / "deletes")),
        held=_held(frames, target.state, target.version),
    )
    return [Loss(r["team_id"], r["source"], r["held"], r["deleted"]) for r in frames.collect(counted).to_pylist()]


def cutover_losses(frames: Frames, state: State, *, live: str, version: str) -> list[Loss]:
    """How many documents fewer than ``live`` a version has, by team and source."""

    def documents(index: str) -> Mapping[tuple[str, str], int]:
        counted = frames.sql(
            "SELECT team_id, coalesce(source, '') AS source, CAST(count(*) AS BIGINT) AS documents "
            "FROM {held} WHERE chunk_id LIKE '%#0' GROUP BY team_id, coalesce(source, '')",
            held=_held(frames, state, index),
        )
        return {(r["team_id"], r["source"]): r["documents"] for r in frames.collect(counted).to_pylist()}

    before, after = documents(live), documents(version)
    # What a source has more than before stands against what it lost to: signed, so that moves between them cancel out.
    return [
        Loss(team, source, before.get((team, source), 0), before.get((team, source), 0) - after.get((team, source), 0))
        for team, source in sorted(before.keys() | after.keys())
    ]


def guard_deletes(frames: Frames, target: RunTarget, deletes: int, limits: Limits) -> None:
    """Raise MassDeleteError where the ``deletes`` in a run's work folder are too many. Asks the tables if it may be."""
    if deletes > limits.max_delete_rows:
        check_deletes(planned_losses(frames, target), limits)


def _held(frames: Frames, state: State, index: str) -> Frame:
    """The ledger's rows of an index: team_id, chunk_id, source (of its text now, else of when it was written)."""
    return frames.sql(
        f"""
        SELECT p.team_id, p.chunk_id, coalesce(c.source_id, p.source_id) AS source
        FROM (SELECT * FROM {{ledger}} WHERE NOT {_MADE}) p
        LEFT JOIN {{chunks}} c ON p.team_id = c.team_id AND p.chunk_id = c.chunk_id
        """,
        ledger=frames.table(state, "published", {"index": index}),
        chunks=frames.table(state, "chunks"),
    )
