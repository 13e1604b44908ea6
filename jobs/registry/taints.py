"""Marks models that have seen what was purged since, and removes them."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from jobs.bodies.models import Taint
from jobs.registry import CHAMPION, Reference, open_registry
from jobs.registry.manifest import purged
from jobs.scope import iso, parse_moment
from jobs.state.purge_rules import PurgeRule

if TYPE_CHECKING:
    from jobs.config import Config
    from jobs.registry.folder import FolderRegistry
    from jobs.state.store import State


def mark(registry: FolderRegistry, name: str, version: int, rules: Sequence[PurgeRule], key: bytes, run_id: str) -> int:
    """Mark a version where the rules cover what it has seen; returns how many of its documents they do."""
    count = purged(registry.manifest(name, version), rules, key) if rules else 0
    if count:
        registry.mark(
            name, version, Taint(run_id=run_id, purged_at=iso(max(r.purged_at for r in rules)), documents=count)
        )
    return count


def mark_models(config: Config, state: State, rules: Sequence[PurgeRule], run_id: str) -> dict[str, int]:
    """Mark every registered model that has seen what a purge covers; returns how many documents, by model."""
    registry, found = open_registry(config), {}
    for name in registry.names():
        for version in registry.versions(name):
            made_at = parse_moment(registry.card(name, version).made_at, "made_at")
            later = [rule for rule in rules if rule.purged_at >= made_at]
            if count := mark(registry, name, version, later, state.hash_key, run_id):
                found[str(Reference(name, version, ""))] = count
    return found


def remove_tainted(config: Config, used: Collection[str], *, dry_run: bool = False) -> list[str]:
    """Remove marked models; returns them.

    The champion, and what made the vectors of one of the ``used`` spaces, once they may not be used any more: until
    then they answer. Others at once.
    """
    registry, gone = open_registry(config), []
    for name in registry.names():
        champion = registry.standing(name, CHAMPION)[-1:]
        for version in registry.versions(name):
            taint = registry.taint(name, version)
            if taint is None:
                continue
            hours = (time.time() * 1e6 - parse_moment(taint.purged_at, "purged_at")) / 3.6e9
            needed = version in champion or registry.card(name, version).space_id in used
            if needed and hours < config.registry.tainted_hours:
                continue
            gone.append(str(Reference(name, version, "")))
            if not dry_run:
                registry.remove(name, version)
    return gone
