"""What a person reads at the end of a command. Takes the bodies of the contract; prints nothing itself."""

from __future__ import annotations

from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from jobs.bodies.answers import (
        ConfigBody,
        GcBody,
        HeldBackBody,
        MigrateBody,
        PackageBody,
        QuarantinedBody,
        RollbackBody,
        SearchBody,
        StateCopyBody,
        StatusBody,
        TakeoverBody,
        VerifyBody,
    )
    from jobs.bodies.purge import PurgeBody
    from jobs.bodies.run import Estimate, PlanBody, ReindexBody, RunReport, StepBody

_WIDE = 1_000_000  # columns: a line is never folded, so that it can be searched


def table(rows: list[tuple[str, str]]) -> str:
    """Names with their values, a line each."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for name, value in rows:
        grid.add_row(Text(f"  {name}", no_wrap=True), Text(value, no_wrap=True))
    drawn = StringIO()
    Console(file=drawn, width=_WIDE, color_system=None).print(grid)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())


def _span(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _documents(body: RunReport) -> str:
    documents, partitions = body.documents, body.partitions
    text = f"{documents.read:,} read from {partitions.opened:,} of {partitions.listed:,} source partitions"
    skipped = ", ".join(f"{count:,} {reason}" for reason, count in documents.skipped.items())
    return text + (f"; dropped {skipped}" if skipped else "")


def plan(body: PlanBody) -> str:
    """The plan, with its estimate."""
    return _plan(body, body.estimate)


def step(body: StepBody) -> str:
    """Of the step "plan" the plan, of others the report so far."""
    return _plan(body, body.estimate) if body.estimate else run(body)


def _plan(body: RunReport, estimate: Estimate) -> str:
    chunks = body.chunks
    cost = f", {estimate.usd:.2f} USD" if estimate.usd else ""
    return f"plan for {body.index} (space {body.space_id})\n" + table(
        [
            ("documents", _documents(body)),
            ("embed", f"{chunks.embedded:,} chunks, {body.tokens.embedded:,} tokens"),
            *([("of these", f"{chunks.renamed:,} only because a name is new")] if chunks.renamed else []),
            ("reuse", f"{chunks.reused:,} chunks have their vector already"),
            ("update", f"{chunks.updated:,} chunks change metadata only"),
            ("delete", f"{chunks.deleted:,} chunks"),
            ("unchanged", f"{chunks.unchanged:,} of {chunks.total:,} chunks"),
            ("quarantine", _count(body.documents.quarantined, "record")),
            ("estimate", f"{_span(estimate.seconds)} of encoding{cost}"),
        ]
    )


def run(body: RunReport) -> str:
    """The run report; its last line says what was left open."""
    return "\n".join([_run(body), *_left_open(body)])


def _run(body: RunReport) -> str:
    chunks, rows, seconds = body.chunks, body.index_rows, body.seconds
    speed = body.tokens_per_second
    rate = f" at {speed:,.0f} tokens/s" if speed else ""
    unknown = body.tokens.unknown_texts
    said = "texts are next to nothing but unknown tokens to the model: they are found by chance, if at all"
    return f"run {body.run_id}: {body.status}, {body.index} (space {body.space_id})\n" + table(
        [
            ("documents", _documents(body)),
            ("embedded", f"{chunks.embedded:,} chunks, {body.tokens.embedded:,} tokens{rate}"),
            *([("unreadable", f"{unknown:,} {said}")] if unknown else []),
            ("reused", f"{chunks.reused:,} chunks"),
            ("updated", f"{chunks.updated:,} chunks"),
            ("deleted", f"{chunks.deleted:,} chunks"),
            ("unchanged", f"{chunks.unchanged:,} of {chunks.total:,} chunks"),
            ("index", f"{rows.upserted:,} rows written, {rows.deleted:,} deleted, {rows.after:,} there now"),
            ("quarantine", _count(body.documents.quarantined, "record")),
            ("time", ", ".join(f"{step} {_span(took)}" for step, took in seconds.model_dump().items())),
        ]
    )


def _left_open(body: RunReport) -> list[str]:
    """The line that says what is not in the index as its source has it, or is there although it may be gone."""
    documents = body.documents
    said = []
    if documents.quarantined:
        said.append(f"{_count(documents.quarantined, 'record')} in quarantine")
    if documents.held_back:
        said.append(f"{_count(documents.held_back, 'document')} held back, gone or not")
    return [f"left open: {', '.join(said)}; `embedmill status` lists them with the reasons"] if said else []


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def reindex(body: ReindexBody) -> str:
    """What was built, what the gate found, and where the alias points."""
    gate = body.gate
    rows = [("ok" if check.passed else "REFUSED", f"{check.name}: {check.detail}") for check in gate.checks]
    if gate.drift:
        drift = gate.drift.model_dump()
        rows.append(("drift", ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in drift.items())))
    was = body.previous or "nothing"
    moved = f"moved from {was} to {body.index}" if body.activated else f"stays at {was}"
    done = _run(body).replace("run ", "reindex ", 1)
    return "\n".join([done, table([*rows, ("alias", moved)]), *_left_open(body)])


def rollback(body: RollbackBody) -> str:
    """Where the alias points now, and what the configuration must say."""
    text = f"alias moved from {body.previous} to {body.index} (space {body.space_id})"
    if body.removed:
        text += f"\n{body.removed:,} rows of documents that were deleted or changed since were removed from it first"
    if not body.configured:
        text += (
            f"\nthe configuration names another space: set [model] back to {body.model} before the next run; where "
            "it says that already, other settings or another release of embedmill made this version"
        )
    return text + "\n`embedmill run` brings it up to date"


def takeover(body: TakeoverBody) -> str:
    """Whose the versions were."""
    rows = []
    for version in body.versions:
        owner = version.owner_before or "without an owner"
        rows.append((version.name, "ours already" if owner == body.state_id else f"ours now, was {owner}"))
    text = f"state {body.state_id} owns the index"
    return "\n".join([text, table(rows), "`embedmill verify` shows what differs"]) if rows else f"{text}; it is empty"


def gc(body: GcBody) -> str:
    """What was kept and dropped."""
    done = "would drop" if body.dry_run else "dropped"
    rows = [("kept", ", ".join(body.kept) or "nothing"), (done, ", ".join(body.dropped) or "nothing")]
    if body.dropped_spaces:
        rows.append(("spaces", ", ".join(body.dropped_spaces)))
    rows += [("model", f"{model}: it had seen what was purged since") for model in body.dropped_models]
    if body.models_unasked:
        rows.append(("models", f"not looked at: {body.models_unasked}"))
    if body.compacted:
        rows.append(("would compact" if body.dry_run else "compacted", ", ".join(body.compacted)))
    rows += [(name, f"{size.files:,} files, {size.bytes / 1e6:,.1f} MB") for name, size in body.tables.items()]
    return f"live: {body.live or 'nothing yet'}\n" + table(rows)


def migrate(body: MigrateBody) -> str:
    """What was rewritten."""
    if not body.tables:
        return f"the state has format {body.format}; no table had to be rewritten"
    return f"the state has format {body.format} now\n" + table([(n, f"{r:,} rows") for n, r in body.tables.items()])


def copy(body: StateCopyBody) -> str:
    """What was moved where, and what to do next."""
    rows = [("from", body.source), ("to", body.target), ("files", f"{body.files:,}, {body.copied:,} copied now")]
    rows.append(("size", f"{body.bytes / 1e6:,.1f} MB"))
    stays = "its index is used on: leave it, or reindex elsewhere" if body.index_inside else "it may be removed"
    told = f'next: set state.uri = "{body.target}"; the former place refuses runs now, and {stays}'
    return f"{table(rows)}\n{told}"


def vespa_package(body: PackageBody) -> str:
    """What the package holds and what to do with it."""
    rows = [(version, f"{dim} dimensions") for version, dim in body.versions.items()]
    lines = [f"wrote {body.package}", table(rows)]
    if not body.answered:
        lines.append("Vespa does not answer: taken as not deployed yet; run this again where it does")
    if body.changed:
        lines.append(f"unused types that change or go: {', '.join(body.changed)}")
    return "\n".join([*lines, f"next: vespa deploy {body.package}"])


def search(body: SearchBody) -> str:
    """Hits, best first, one paragraph each."""
    if not body.hits:
        return "no hits"
    lines = []
    for number, hit in enumerate(body.hits, 1):
        text = " ".join(hit.text.split())
        shown = text if len(text) <= 200 else text[:199] + "…"
        where = f"#{hit.channel_name}" if hit.channel_name else hit.channel_id or hit.title or hit.kind
        said = "  ".join(part for part in (where, hit.author, hit.created_at, hit.chunk_id) if part)
        lines.append(f"{number:>2}. {hit.score:.3f}  {said}\n    {shown}")
        if "://" in hit.permalink:
            lines.append(f"    {hit.permalink}")
    if not body.words:
        lines.append("by vectors alone: this index has no index of words")
    if body.reranked is False:
        lines.append(f"not reranked: {body.rerank_reason}")
    return "\n".join(lines)


def verify(body: VerifyBody) -> str:
    """What was compared and what differs."""
    rows = [
        (
            "compared",
            f"{body.checked:,} keys, {body.sampled_vectors:,} vectors, "
            f"{body.sampled_source_partitions:,} source partitions read anew",
        ),
        ("index", f"{body.index_rows:,} rows"),
    ]
    rows += [(kind, f"{count:,} rows") for kind, count in body.differences.items() if count]
    if body.examples:
        rows.append(("for example", ", ".join(body.examples[:3])))
    if body.rebuilt:
        rows.append(("rebuilt", ", ".join(f"table {name}" for name in body.rebuilt)))
    if body.repaired:
        rows.append(("repaired", f"{body.repaired:,} rows"))
    if body.source_partitions_marked:
        rows.append(("sources", f"{body.source_partitions_marked:,} partitions will be read anew by the next run"))
    if body.source_partitions_changed:
        rows.append(("sources", f"{body.source_partitions_changed:,} partitions changed since they were read"))
    rows += [("held back", held_back(one)) for one in body.held_back]
    verdict = {
        "ok": "index, ledger and desired state and sources agree",
        "repaired": "what was damaged or differed was mended",
    }
    return f"{body.index}: {verdict.get(body.status, 'DIFFERENCES; see --repair')}\n" + table(rows)


def status(body: StatusBody) -> str:
    """State of everything on one screen."""
    index, quarantine = body.index, body.quarantine
    lag = _span(body.lag_seconds) + " since the last good run" if body.lag_seconds is not None else "never run"
    rows = [("tables", ", ".join(f"{name} {count:,}" for name, count in body.tables.items()))]
    rows.append(("alias", f"{index.alias} -> {index.live or 'nothing yet'}"))
    rows += [("version", f"{v.name}: {v.rows:,} rows, space {v.space_id}") for v in index.versions]
    rows.append(("lag", lag))
    rows += [("run", f"{r.started_at}  {r.command:<6} {r.status:<7} {r.run_id}") for r in body.last_runs]
    rows += [("quarantine", f"{count:,} {reason}") for reason, count in quarantine.reasons.items()]
    rows += [("", _quarantined(one)) for one in quarantine.newest]
    rows += [("ignored", f"{count:,} {reason}") for reason, count in quarantine.ignored.items()]
    rows += [("held back", held_back(one)) for one in body.held_back]
    for one in body.levels:
        now = "unknown" if one.value is None else f"{one.value:,.3g}"
        runs = f", and at the end of the last {one.missed_runs} runs" if one.missed_runs > 1 else ""
        rows.append(("promised", f"{one.name} {one.target:,.3g}: {'met' if one.met else 'MISSED'}, now {now}{runs}"))
    return f"space {body.space_id}\n" + table(rows)


def _quarantined(one: QuarantinedBody) -> str:
    where = f"{one.source_id} {one.partition}" + (f", {one.key}" if one.key else "")
    return f"{where}: {one.reason}" + (f", {one.detail}" if one.detail else "")


def held_back(one: HeldBackBody) -> str:
    """Which deletions wait, and for what."""
    count, where = one.documents, " ".join(part for part in (one.source_id, one.partition) if part)
    return f"{count:,} documents of {where} since {one.since}: gone or not, {one.reason} hides it"


def purge(body: PurgeBody) -> str:
    """The receipt."""
    documents, storage = body.documents, body.storage
    rows = [("documents", f"{documents.count:,}")]
    if body.ids:
        rows.append(("ids", f"{body.matched:,} of {body.ids:,} matched"))
    rows += [(name, f"{count:,} rows removed") for name, count in body.removed.model_dump().items()]
    rows.append(("files", f"{storage.tables.files:,} old files of tables removed"))
    rows += [(version, f"old files {said}") for version, said in storage.index.items()]
    rows.append(("scratch", storage.scratch.state))
    rows += [(model, f"marked: it has seen {count:,} of the documents") for model, count in body.models.items()]
    return f"purge {body.run_id}: done\n" + table(rows)


def config(body: ConfigBody) -> str:
    """One line a setting."""
    settings = [(one.key, f"{one.value!r}  ({one.origin})") for one in body.settings]
    return f"{body.file}\n" + table(settings)
