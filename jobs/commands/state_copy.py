"""The command ``state copy``: move a state to another place. Needs no engine, no model and no index."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from embedding.errors import ConfigError
from jobs.bodies.answers import StateCopyBody
from jobs.config import Config
from jobs.report import new_run_id
from jobs.state.copying import copy, files_to_copy, is_finished, sizes_below_state
from jobs.state.lease import Lease
from jobs.state.state_folder import make_place, state_root
from jobs.state.storage import StatePath
from jobs.state.work_folder import check_disk
from jobs.state.writable_tables import newest_fence
from jobs.telemetry.progress import Progress


def copy_state(config: Config, source: str, target: str, progress: Progress, *, wait: float = 0.0) -> StateCopyBody:
    """Copy a state, check the copy, and mark the place that it came from as left; can be repeated wherever it died.

    Raises ConfigError for a place that is none or holds something else, LeaseHeldError where a run holds either.
    """
    places = _place(config, "FROM", source), _place(config, "TO", target)
    moved: dict[str, Any] = {
        "from": str(places[0]),
        "to": str(places[1]),
        "index_inside": _holds_index(config, places[0]),
    }
    for place in places:
        place.is_dir()  # a listing says what is wrong with a bucket; a look at one object does not
    if is_finished(*places):
        files = sizes_below_state(places[1])
        return StateCopyBody(**moved, files=len(files), copied=0, bytes=sum(files.values()))
    files_to_copy(*places)
    for place in places:
        make_place(place)
    check_disk(places[1], config.limits.min_free_mb)
    seconds, run_id = config.state.lease_seconds, new_run_id()
    first, second = (
        Lease(place, run_id=run_id, seconds=seconds, wait=wait, newest=partial(newest_fence, place)) for place in places
    )
    with first, second:
        files = files_to_copy(*places)
        with progress.bar("copy", sum(files.values()), "bytes") as advance:
            copied = copy(*places, (first, second), advance)
    return StateCopyBody(**moved, files=len(files), copied=copied, bytes=sum(files.values()))


def _holds_index(config: Config, place: StatePath) -> bool:
    """Whether the index is a file below a place, as Milvus Lite is below the state's folder by default."""
    return isinstance(place, Path) and "://" not in config.index_uri and Path(config.index_uri).is_relative_to(place)


def _place(config: Config, name: str, uri: str) -> StatePath:
    try:
        return state_root(config, uri)
    except ValidationError as error:
        raise ConfigError(f"{name}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
