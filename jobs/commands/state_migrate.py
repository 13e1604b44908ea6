"""The command ``state migrate``: rewrite a state of the former format. Needs no engine, no model and no index."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from embedding.errors import ConfigError
from jobs.bodies.answers import MigrateBody
from jobs.config import Config
from jobs.report import new_run_id
from jobs.state.lease import Lease
from jobs.state.migration import migrate as rewrite
from jobs.state.migration import rows_to_migrate
from jobs.state.state_folder import FORMAT, format_of, state_root
from jobs.state.work_folder import check_disk
from jobs.state.writable_tables import newest_fence
from jobs.telemetry.progress import Progress


def migrate(config: Config, progress: Progress, *, wait: float = 0.0) -> MigrateBody:
    """Rewrite the tables that have a folder for each team; can be repeated wherever it died.

    Raises ConfigError for what is no state of the former or of this format, LeaseHeldError where a run holds it.
    """
    root = state_root(config)
    if not isinstance(root, Path):
        raise ConfigError(f"state.uri: {root}: the former format was of folders alone; nothing is to be done")
    rows_to_migrate(root)
    check_disk(root, config.limits.min_free_mb)

    seconds = config.state.lease_seconds
    newest = partial(newest_fence, root)
    with Lease(root, run_id=new_run_id(), seconds=seconds, wait=wait, newest=newest) as lease:
        rows, done = rows_to_migrate(root), format_of(root) == FORMAT
        with ExitStack() as bars:

            def bar(name: str, total: int) -> Callable[[int], None]:
                bars.close()
                return bars.enter_context(progress.bar(f"migrate {name}", total, "rows"))

            if not done:
                rewrite(root, lease, bar)
    return MigrateBody(format=FORMAT, tables=rows)
