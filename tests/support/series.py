"""Every series that an alert or a panel may name, with its labels: those of runs and those of the query service."""

from __future__ import annotations

from jobs.metrics.series import PREFIX, SERIES
from jobs.serve.metrics import PREFIX as SERVE_PREFIX
from jobs.serve.metrics import SERIES as SERVE_SERIES


def labels() -> dict[str, set[str]]:
    """The labels by the whole name; a histogram is named by its parts."""
    found = {PREFIX + one.name: {"index", *one.labels} for one in SERIES}
    for one in SERVE_SERIES:
        own = {"index", "replica", *one.labels}
        if one.buckets:
            parts = {"bucket": own | {"le"}, "sum": own, "count": own}
            found |= {f"{SERVE_PREFIX}{one.name}_{part}": has for part, has in parts.items()}
        else:
            found[SERVE_PREFIX + one.name] = own
    return found
