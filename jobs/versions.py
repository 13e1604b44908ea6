"""Versions of an index: whose they are, which one to build, which to keep, and how the first one goes live.

A state that knows nothing of another one's rows takes them for ghosts and deletes them. So a version names the state
that writes it, and no other state writes there. A version without an owner was made by an earlier release: its first
writer owns it.
"""

from __future__ import annotations

from indexers.base import version_number
from jobs.pipeline import Pipeline
from jobs.state.state_id import own_id, refuse_other

AGAIN_SECONDS = 24 * 3600.0  # how long a build that gave way waits for its turn


def ensure_live(pipeline: Pipeline) -> str:
    """The live version, made with its alias where there is none, of an index that is this state's."""
    index = pipeline.index()
    own_index(pipeline)
    version = index.live()
    if version is None:
        version = pipeline.first_version
        pipeline.ensure_version(version)
        go_live(pipeline, version)
    pipeline.check_space(version)
    return version


def go_live(pipeline: Pipeline, version: str) -> None:
    """Point the alias at a version, and remember that it was live. Call it only while holding the lease."""
    index, state = pipeline.index(), pipeline.state
    if version not in (state.served() or ()):
        # First: a version that is live without being noted would never be gone back to.
        state.keep_served(dict.fromkeys([*served_versions(pipeline), version]))
    index.point_alias(version)


def served_versions(pipeline: Pipeline) -> list[str]:
    """Versions of the index, oldest first, that were ever live.

    A build that the gate refused, or of a part of the sources, is none of them, also where a later one went live. Of a
    state that no release with this note has written to, they are all up to the live one.
    """
    index = pipeline.index()
    versions, live, noted = index.versions(), index.live(), pipeline.state.served()
    if noted is None:
        return versions[: versions.index(live) + 1] if live else []
    return [version for version in versions if version in noted or version == live]


def version_to_build(pipeline: Pipeline, live: str | None) -> str:
    """A version above the live one that an earlier reindex began in this space, or a new one."""
    index, name = pipeline.index(), pipeline.config.index.name
    own_index(pipeline)
    numbers = {v: version_number(name, v) or 0 for v in index.versions()}
    newer = [v for v, n in numbers.items() if live is None or n > numbers[live]]
    for version in reversed(newer):
        if index.space_of(version) == pipeline.space_id:
            # A call that was killed may have made only a part of it.
            space = pipeline.space
            index.create_version(version, space_id=pipeline.space_id, dim=space.dim, metric=space.metric)
            return version
    version = f"{name}__v{max(numbers.values(), default=0) + 1}"
    pipeline.ensure_version(version)
    return version


def versions_to_keep(versions: list[str], served: list[str], live: str | None, keep: int) -> list[str]:
    """Of ``versions``, oldest first: the last ``keep`` that were ``served`` up to the live one, and the newest build.

    At least one before the live one stays.
    """
    if live is None:
        return list(versions)
    builds = versions[versions.index(live) + 1 :]
    return served[: served.index(live) + 1][-max(2, keep) :] + builds[-1:]


def own_index(pipeline: Pipeline) -> None:
    """Before the first write to an index: all its versions are this state's. Call it only while holding the lease.

    Raises OwnershipError where one is another state's.
    """
    if not pipeline.has_index():
        return
    index, ours = pipeline.index(), own_id(pipeline.state.root)
    owners = {version: index.owner_of(version) for version in index.versions()}
    for version, owner in owners.items():
        refuse_other(pipeline.state.root, version, owner)
    for version, owner in owners.items():
        if not owner:
            index.set_owner(version, ours)
