"""Garbage collection: drop index versions past the configured number, and the state's rows that served them alone.

It also compacts the tables, and the live version where the engine is not left to do so by itself: nothing else writes
meanwhile.
"""

from __future__ import annotations

from embedding.errors import ResourceError
from jobs.bodies.answers import GcBody, TableSize
from jobs.maintenance.compact import compact_all, sizes
from jobs.pipeline import Pipeline
from jobs.registry.taints import remove_tainted
from jobs.run_details import drop_details
from jobs.run_session import open_session
from jobs.scope import Scope
from jobs.versions import own_index, served_versions, versions_to_keep

_PER_CUT = ("sources", "chunks", "removals", "quarantine")
KEPT_RUNS = 500  # whose details stay
VACUUM_HOURS = 1  # a search or a status that began before may still read the files


def gc(
    pipeline: Pipeline, *, keep: int | None = None, vectors: bool = False, dry_run: bool = False, wait: float = 0.0
) -> GcBody:
    """Drop versions; never the live one, the one that was live before it, or the newest that is being built.

    ``vectors`` also drops the stored vectors of spaces that no version is left of: using such a model again would
    encode everything once more. Returns what was kept, what was (or would be) dropped, and what was compacted.
    """
    with open_session(pipeline, "gc", Scope(), wait) as session:
        state = pipeline.state
        report, lease = session.report, session.lease
        models, unasked = _remove_models(pipeline, dry_run=dry_run)
        index = pipeline.index()
        own_index(pipeline)
        live = index.live()
        most = keep or pipeline.config.index.keep_versions
        kept = versions_to_keep(index.versions(), served_versions(pipeline), live, most)
        spaces = {v: index.space_of(v) for v in kept}
        known = state.spaces()
        used = set(spaces.values()) | {pipeline.space_id}
        cuts = {known[s]["cut"] for s in used if s in known}
        gone = [v for v in index.versions() if v not in kept]
        ledgers = [p for p in state.values("published", "index") if p not in kept]
        stale_cuts = [c for c in state.values("chunks", "cut") if c not in cuts] if used <= set(known) else []
        stale_spaces = [s for s in state.values("vectors", "space_id") if s not in used] if vectors else []
        full = [live] if live and not index.capabilities().compacts else []
        if not dry_run:
            lease.check()
            for version in gone:
                index.drop_version(version)
            for version in ledgers:
                state.drop("published", f"`index` = '{version}'")
            for cut in stale_cuts:
                for name in _PER_CUT:
                    state.drop(name, f"`cut` = '{cut}'")
            for space in stale_spaces:
                state.drop("vectors", f"`space_id` = '{space}'")
            runs = state.read("runs", ["run_id", "started_at"]).sort_by([("started_at", "descending")])
            drop_details(state.root, set(runs["run_id"][:KEPT_RUNS].to_pylist()))
            with pipeline.progress.phase("compact the tables"):
                compact_all(state)
            for name in ("published", "vectors", "runs", *_PER_CUT):
                state.vacuum(name, hours=VACUUM_HOURS)
                state.shorten_log(name)
            for version in full:
                with pipeline.progress.phase(f"compact {version}"):
                    index.compact(version)
        tables = {name: TableSize(files=files, bytes=size) for name, (files, size) in sizes(state).items()}
        report.index = live or ""
        report.status = "ok"
    return GcBody(
        run_id=report.run_id,
        live=report.index or None,
        kept=tuple(kept),
        dropped=tuple(gone),
        dropped_spaces=tuple(stale_spaces),
        dropped_models=tuple(models),
        compacted=tuple(full),
        tables=tables,
        dry_run=dry_run,
        models_unasked=unasked,
    )


def _remove_models(pipeline: Pipeline, *, dry_run: bool) -> tuple[list[str], str | None]:
    """Remove marked models; returns them, or why the registry could not be asked: a later call removes them."""
    if pipeline.unasked:  # asked a moment ago
        return [], pipeline.unasked
    try:
        return remove_tainted(pipeline.config, dry_run=dry_run), None
    except ResourceError as error:
        return [], str(error)
