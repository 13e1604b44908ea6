"""Marks models that have seen what was purged since, and removes them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from embedding.errors import ResourceError
from jobs.bodies.models import Taint
from jobs.registry import Reference, open_registry
from jobs.registry.manifest import purged
from jobs.scope import iso, parse_moment
from jobs.state.purge_rules import PurgeRule

if TYPE_CHECKING:
    from jobs.config import Config
    from jobs.registry.base import Registry
    from jobs.state.store import State


_HOUR = 3_600_000_000  # µs


def hours_since(taint: Taint) -> float:
    """How long ago the purge was that a model is marked for."""
    return (time.time() * 1_000_000 - parse_moment(taint.purged_at, "purged_at")) / _HOUR


def taint_of(manifest: pa.Table, rules: Sequence[PurgeRule], key: bytes, run_id: str) -> Taint | None:
    """The mark of a model that has seen what rules cover; None where they cover nothing of it."""
    count = purged(manifest, rules, key) if rules else 0
    return _taint(rules, run_id, count) if count else None


def mark_models(
    config: Config, state: State, rules: Sequence[PurgeRule], run_id: str, documents: Collection[str] = ()
) -> dict[str, int]:
    """Mark every registered model that has seen what a purge covers, or removed; returns how many documents, by model.

    A model whose card or list cannot be read is marked too: nothing says that it has seen none of it.
    """
    registry, found = open_registry(config), {}
    for name in registry.names():
        for version in registry.versions(name):
            later = [rule for rule in rules if rule.purged_at >= _made_at(registry, name, version)]
            try:
                count = purged(registry.manifest(name, version), later, state.hash_key, documents) if later else 0
                seen = count > 0
            except (OSError, pa.ArrowException):
                count, seen = 0, True
            if seen:
                registry.mark(name, version, _taint(later, run_id, count))
                found[str(Reference(name, version, ""))] = count
    return found


def remove_tainted(config: Config, *, dry_run: bool = False) -> list[str]:
    """Remove marked models that may not be used any more, but for the one that is configured; returns them.

    Until then they answer for the indexes that have their vectors, of this state or of another with the same registry.
    """
    registry, gone = open_registry(config), []
    for name in registry.names():
        for version in registry.versions(name):
            taint, model = registry.taint(name, version), str(Reference(name, version, ""))
            if taint is None or model == config.model.name:
                continue
            if hours_since(taint) >= config.registry.tainted_hours:
                gone.append(model)
                if not dry_run:
                    registry.remove(name, version)
    return gone


def _made_at(registry: Registry, name: str, version: int) -> int:
    try:
        return parse_moment(registry.card(name, version).made_at, "made_at")
    except ResourceError:
        return 0


def _taint(rules: Sequence[PurgeRule], run_id: str, count: int) -> Taint:
    """Of the first rule, which has the time of the purge: those of documents that are dated ahead have theirs."""
    at = min([int(time.time() * 1e6), *(rule.purged_at for rule in rules)])
    return Taint(run_id=run_id, purged_at=iso(at), documents=count)
