"""The command ``purge``: remove documents everywhere, keep them away, and return the receipt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

import pyarrow.compute as pc

from embedding.errors import ConfigError
from embedding.ids import document_id
from jobs.bodies.purge import PurgeBody
from jobs.embed.batch_files import remove_all
from jobs.known_names import known_teams
from jobs.maintenance import erase
from jobs.registry import open_registry
from jobs.run_session import open_session
from jobs.scope import Scope
from jobs.state.team_rows import read_teams
from jobs.versions import own_index

if TYPE_CHECKING:
    from jobs.pipeline import Pipeline


def purge(
    pipeline: Pipeline, *, team: str, channel: str, ids: Sequence[str], before: int | None, wait: float = 0.0
) -> PurgeBody:
    """Remove what the arguments name and return the receipt, which is in ``runs`` too.

    ``ids`` of chunks stand for their documents. Raises ConfigError for a team that is not known here, and for ids of
    another team; an id of the team that nothing is known of is kept away all the same, and is in ``unmatched``.
    """
    documents = _documents(team, ids)
    scope = Scope(teams=(team,), channels=(channel,) if channel else (), until=before)
    with open_session(pipeline, "purge", scope, wait) as session:
        report, lease = session.report, session.lease
        own_index(pipeline)
        _check_team(pipeline, team)
        open_registry(pipeline.config).names()  # a server that is away is an error before anything goes
        if (batch := pipeline.batches()) is not None:  # a killed run may have left texts where its jobs read them
            remove_all(batch)
        rule = {
            "team_id": team,
            "channel_id": channel,
            "ids": documents,
            "before": before,
            "purged_at": int(time.time() * 1_000_000),
            "run_id": report.run_id,
            "_delete": False,
        }
        rules = [rule, *_ahead(pipeline, rule)]
        pipeline.state.change("purges", rules)
        report.index = pipeline.live()
        report.receipt = receipt = erase.carry_out(pipeline, rules, lease, report.scratch_cleared)
        report.status = "ok"
    return PurgeBody(run_id=report.run_id, index=report.index, scope=report.scope, ids=len(documents), **dict(receipt))


def _documents(team: str, ids: Sequence[str]) -> list[str]:
    """The documents that ids name, of themselves or of their chunks."""
    documents = sorted({document_id(given) for given in ids})
    strange = [given for given in documents if not given.startswith(f"{quote(team, '')}/")]
    if strange:
        raise ConfigError(
            f"--ids: {len(strange)} of {len(documents)} are no ids of team {team}, for example {strange[0]!r}; "
            f"they begin with {quote(team, '')}/; nothing was purged"
        )
    return documents


def _check_team(pipeline: Pipeline, team: str) -> None:
    """Raise ConfigError for a team that neither the configuration nor anything stored knows."""
    state = pipeline.state
    known = known_teams(pipeline)
    known |= {
        found
        for name in ("vectors", "quarantine", "purges")
        for (found,) in state.every_cut().distinct(name, ["team_id"])
    }
    known.discard("")  # of records that name no team
    if team in known:
        return
    for version in pipeline.index().versions() if pipeline.has_index() else ():
        for batch in pipeline.index().scan(version):
            if pc.any(pc.equal(batch["team_id"], team)).as_py():
                return
    shown = ", ".join(sorted(known)[:10]) or "none"
    raise ConfigError(f"--team: nothing is known of team {team!r}; known are {shown}; nothing was purged")


def _ahead(pipeline: Pipeline, rule: erase.Rule) -> list[erase.Rule]:
    """Rules for documents that a purge takes and that are dated after it: each version of them stays away."""
    needed = [*erase.NEEDED, "version"]
    rows = read_teams(pipeline.state.every_cut(), "chunks", [rule["team_id"]], needed)
    rows = erase.target_of(rule).of(rows.filter(pc.greater(rows["version"], rule["purged_at"])))
    newest: dict[str, int] = {}
    for chunk, version in zip(rows["chunk_id"].to_pylist(), rows["version"].to_pylist(), strict=True):
        document = document_id(chunk)
        newest[document] = max(version, newest.get(document, version))
    by_version: dict[int, list[str]] = {}
    for document, version in newest.items():
        by_version.setdefault(version, []).append(document)
    return [{**rule, "ids": sorted(held), "purged_at": version} for version, held in sorted(by_version.items())]
