"""Plan: the difference between the desired chunks and what the index holds, written down as work for embed and publish.

Leaves below the run's work folder: ``texts/shard=N`` (distinct texts to encode), ``rows/shard=N`` (chunks to write that
wait for those texts), ``rows/shard=ready`` (chunks to write whose vectors are stored) and ``deletes`` (chunk ids).
Decides nothing about how they are carried out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from embedding.errors import BudgetError
from embedding.records import CHUNK
from jobs.plan import actions
from jobs.plan.dealing import NOTHING, Deal, deal
from jobs.plan.renames import keep_names
from jobs.scope import Scope
from jobs.state.among import Among, stored_vectors
from jobs.state.frames import Frame, Frames, columns, equal
from jobs.state.row_counts import expect
from jobs.state.run_target import RunTarget
from jobs.state.staging import rows_in
from jobs.state.tables import CHUNK_KEY, PUBLISHED

if TYPE_CHECKING:
    from jobs.state.storage import StatePath

READY = "ready"  # in place of the number of a shard
_SPREAD = 64


@dataclass(frozen=True, slots=True)
class Plan:
    """Counts of a plan. ``tokens`` and ``texts`` are what goes to the encoder, in ``shards`` pieces.

    ``renamed`` are rows to embed of which only a name before the text is new.
    """

    total: int = 0
    embed: int = 0
    reuse: int = 0
    update: int = 0
    delete: int = 0
    unchanged: int = 0
    tokens: int = 0
    shards: int = 0
    published: int = 0
    renamed: int = 0

    @property
    def writes(self) -> int:
        """Rows the index must take."""
        return self.embed + self.reuse + self.update

    def to_json(self) -> dict[str, int]:
        """All counts."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Budget:
    """What a run may spend on encoding: tokens, and USD by the estimate. None is no limit."""

    tokens: int | None = None
    usd: float | None = None

    def check(self, plan: Plan, estimate_of: Callable[[], Mapping[str, float]]) -> None:
        """Raise BudgetError where the plan costs more. An estimate (seconds, usd) is made only for a limit."""
        if self == NO_LIMIT:
            return
        estimate, over = estimate_of(), []
        if self.tokens is not None and plan.tokens > self.tokens:
            over.append(f"--max-tokens {self.tokens:,}")
        if self.usd is not None and estimate["usd"] > self.usd:
            over.append(f"--max-usd {self.usd:g}")
        if over:
            raise BudgetError(
                f"the plan embeds {plan.embed:,} texts of {plan.tokens:,} tokens (about {estimate['seconds']:,.0f} s "
                f"and {estimate['usd']:.2f} USD), over {' and '.join(over)}; nothing was embedded: raise the limit, or "
                "narrow the scope"
            )


NO_LIMIT = Budget()


def make_plan(frames: Frames, target: RunTarget, scope: Scope, *, shard_tokens: int) -> Plan:
    """Compute the plan of a scope against an index version, and write it to the run's work folder."""
    state, teams = target.state, scope.teams
    held = frames.table(state, "published", {"index": target.version}, teams=teams)
    chunks, published = actions.in_scope(frames, frames.table(state, "chunks", teams=teams), held, scope)
    plan = _planned(frames, target, chunks, published, shard_tokens, Among(teams))
    if scope == Scope():
        expect("plan", "chunks", state.count("chunks"), plan.total)
    return replace(plan, published=state.count("published", pc.field("index") == target.version))


def plan_changes(frames: Frames, target: RunTarget, changed: pa.Table, before: int, *, shard_tokens: int) -> Plan:
    """The plan of everything, where ``before`` chunks were as the index holds them, and these have ``changed`` since.

    ``changed`` are CHUNK and ``_delete``. What did not change is neither read nor compared; the ledger is read for the
    keys that did.
    """
    keys = frames.local(CHUNK_KEY, changed.select(CHUNK_KEY.names))
    ledger, texts = Among.rows(changed, "chunk_id"), Among.rows(changed, "content_hash")
    held = frames.table(target.state, "published", {"index": target.version}, teams=ledger.teams, wanted=ledger.wanted)
    published = frames.sql(
        f"SELECT {columns(PUBLISHED.names, 'p')} FROM {{published}} p "
        f"SEMI JOIN {{keys}} k ON {equal(CHUNK_KEY.names, 'p', 'k')}",
        published=held,
        keys=keys,
    )
    there = changed.filter(pc.invert(changed["_delete"])).select(CHUNK.names)
    with frames.keep(published) as kept:
        plan = _planned(frames, target, frames.local(there.schema, there), kept, shard_tokens, texts)
        known = frames.collect(frames.sql("SELECT count(*) AS rows FROM {kept}", kept=kept))["rows"][0].as_py()
    total = before - known + plan.total
    return replace(plan, total=total, unchanged=total - plan.total + plan.unchanged, published=before)


def _planned(
    frames: Frames,
    target: RunTarget,
    chunks: Frame,
    published: Frame,
    shard_tokens: int,
    texts: Among,
) -> Plan:
    """The plan of these chunks (CHUNK) against these rows of the ledger, written down; all of its counts but one."""
    work = target.work
    chunks = keep_names(frames, chunks, published, target.rename_tokens)
    vectors = stored_vectors(frames, target, texts)
    with frames.keep(actions.actions(frames, chunks, published, vectors)) as acted:
        found = frames.collect(frames.sql(_COUNTS, acted=acted)).to_pylist()
        counts = {r["action"]: r["rows"] for r in found}
        embeds = counts.get("embed", 0)
        dealt = _write_texts(frames, acted, work / "texts", shard_tokens) if embeds else NOTHING
        if writes := sum(counts.get(action, 0) for action in ("embed", "reuse", "update")):
            _write_rows(frames, acted, work / "rows", dealt)
            expect("plan", "rows to write", writes, rows_in(work / "rows"))
        if counts.get("delete"):
            deletes = frames.sql("SELECT team_id, chunk_id FROM {acted} WHERE action = 'delete'", acted=acted)
            frames.write(deletes, work / "deletes")
            expect("plan", "rows to delete", counts["delete"], rows_in(work / "deletes"))
    return Plan(
        total=sum(n for action, n in counts.items() if action != "delete"),
        embed=dealt.texts,
        reuse=counts.get("reuse", 0) + embeds - dealt.texts,
        update=counts.get("update", 0),
        delete=counts.get("delete", 0),
        unchanged=counts.get("unchanged", 0),
        tokens=dealt.tokens,
        shards=dealt.shards,
        renamed=sum(r["renamed"] for r in found if r["action"] == "embed"),
    )


_COUNTS = """
SELECT action, CAST(count(*) AS BIGINT) AS rows, CAST(count_if(renamed) AS BIGINT) AS renamed
FROM {acted} GROUP BY action
"""


def _write_texts(frames: Frames, acted: Frame, folder: StatePath, shard_tokens: int) -> Deal:
    """Write the texts to encode, in shards of about ``shard_tokens``; returns how they were dealt."""
    distinct = frames.sql(
        """
        SELECT team_id, content_hash, first(coalesce(context, '') || text) AS text, first(tokens) AS tokens
        FROM {acted} WHERE action = 'embed' GROUP BY team_id, content_hash
        """,
        acted=acted,
    )
    with frames.keep(distinct) as texts:
        dealt = deal(frames, texts, shard_tokens)
        frames.write(dealt.shard_of(frames, texts), folder, by="shard")
    expect("plan", "texts to encode", dealt.texts, rows_in(folder))
    return dealt


def _write_rows(frames: Frames, acted: Frame, folder: StatePath, dealt: Deal) -> None:
    """Write the rows, those that wait for a text in its shard; those that wait for none are ``ready``."""
    # Of those that are ready there may be as many as there are chunks: they are spread over the workers.
    spread = f"pmod(xxhash64(chunk_id), {_SPREAD})"
    rows = frames.sql(
        f"SELECT *, '{READY}' AS shard, {spread} AS spread FROM {{acted}} WHERE action IN ('reuse', 'update')",
        acted=acted,
    )
    if dealt.texts:
        waiting = frames.sql("SELECT * FROM {acted} WHERE action = 'embed'", acted=acted)
        rows = frames.sql(
            "SELECT *, CAST(NULL AS BIGINT) AS spread FROM {waiting} UNION ALL SELECT * FROM {ready}",
            waiting=dealt.shard_of(frames, waiting),
            ready=rows,
        )
    frames.write(rows, folder, by="shard", spread="spread")
