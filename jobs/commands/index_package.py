"""The application package for Vespa: which versions it must hold, by what the index says that is in use."""

from __future__ import annotations

from pathlib import Path

from embedding.errors import ConfigError, ResourceError
from jobs.bodies.answers import PackageBody
from jobs.pipeline import Pipeline


def make(pipeline: Pipeline, out: Path, *, versions: int) -> PackageBody:
    """Write the package: the versions in use as they are, and room for ``versions`` more of the configured model.

    Where Vespa does not answer, it is not deployed yet, or away: then the versions that a package in the folder has
    are kept as they are, whatever the model is now.

    Raises ConfigError for an index of another kind.
    """
    if pipeline.config.index.kind != "vespa":
        raise ConfigError('index.kind: only "vespa" has an application package')
    from indexers.vespa.client import RefusedError
    from indexers.vespa.index import VespaIndex
    from indexers.vespa.package import read_dims, read_dot, read_earlier, write_package

    index, name = pipeline.index(), pipeline.config.index.name
    assert isinstance(index, VespaIndex)
    answered = True
    try:
        dims, earlier, dot = index.dims(), index.earlier(), index.dot()
    except RefusedError:  # it answers, and has no such application yet
        dims, earlier, dot = {}, set(), set()
    except ResourceError:
        answered, dims, earlier, dot = False, read_dims(out, name), read_earlier(out, name), read_dot(out, name)
    if answered or not dims:
        newest = max((int(version.rsplit("__v", 1)[1]) for version in dims), default=0)
        more = [f"{name}__v{newest + n}" for n in range(1, versions + 1)]
        dims |= dict.fromkeys(more, pipeline.space.dim)
        dot |= {*more} if pipeline.space.metric == "dot" else set()
    changed = write_package(out, name, dims, earlier=earlier, dot=dot, unused=answered)
    return PackageBody(package=str(out), versions=dims, changed=tuple(changed), answered=answered)
