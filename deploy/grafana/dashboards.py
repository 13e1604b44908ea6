"""Writes the dashboards, one JSON file each, for Grafana 11 and later.

    python deploy/grafana/dashboards.py        # into this folder

Of each panel: what a person reads off it, the expression, the unit. ``$index`` is one index or several.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from grafana_foundation_sdk.builders import dashboard, prometheus, stat, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import BigValueColorMode, BigValueGraphMode
from grafana_foundation_sdk.models.dashboard import (
    DataSourceRef,
    Threshold,
    ThresholdsMode,
    VariableHide,
    VariableRefresh,
)

SOURCE = DataSourceRef(type_val="prometheus", uid="${datasource}")


class Drawn(NamedTuple):
    """A panel. ``number`` shows the newest value alone, red from ``bad`` on (below it where ``low_is_bad``)."""

    title: str
    about: str
    expression: str
    unit: str = "short"
    legend: str = "{{index}}"
    number: bool = False
    bad: float | None = None
    low_is_bad: bool = False


def of(name: str, *matchers: str) -> str:
    """A series of the chosen instances."""
    chosen = ",".join(('index=~"$index"', *matchers))
    return f"embedmill_{name}{{{chosen}}}"


OVERVIEW = (
    Drawn(
        "Index is of",
        "Age of what can be found: when the newest whole run began.",
        f"time() - {of('indexed_through_timestamp_seconds')}",
        "s",
        number=True,
        bad=2 * 86400,
    ),
    Drawn(
        "Coverage",
        "Share of the desired chunks that the index has.",
        of("coverage_ratio"),
        "percentunit",
        number=True,
        bad=0.999,
        low_is_bad=True,
    ),
    Drawn(
        "In quarantine",
        "Records that cannot be read.",
        of("quarantined"),
        number=True,
        bad=1000,
    ),
    Drawn(
        "Deletions held back",
        "Documents that may be gone and wait for a decision.",
        of("held_deletions"),
        number=True,
        bad=1,
    ),
    Drawn(
        "Rows",
        "Chunks that searches can find, and those that the sources hold.",
        " or ".join(
            f'label_replace({of(f"{what}_chunks")}, "what", "{what}", "", "")' for what in ("published", "desired")
        ),
        legend="{{what}}",
    ),
    Drawn(
        "Differences",
        "What the newest verify found, by kind; none of it should stay.",
        of("verify_differences"),
        legend="{{kind}}",
    ),
    Drawn(
        "Quarantine by reason",
        "A reason that jumps is a producer that changed.",
        of("quarantine_records"),
        legend="{{reason}}",
    ),
    Drawn(
        "Tokens encoded",
        "By the newest run of each command: what was new in the sources.",
        of("last_run_tokens"),
        legend="{{command}}",
    ),
)
RUN = (
    Drawn("Last run", "1: ended well.", of("last_run_ok", 'command="run"'), number=True, bad=1, low_is_bad=True),
    Drawn(
        "Seconds",
        "Of the newest run, waits between steps included.",
        of("run_duration_seconds", 'command="run"', 'step="total"'),
        "s",
        number=True,
    ),
    Drawn(
        "Waited for the lease",
        "How long the newest run waited for another one.",
        of("lease_wait_seconds", 'command="run"'),
        "s",
        number=True,
        bad=3600,
    ),
    Drawn(
        "Refused now", "1: a command was refused, as another one is writing.", of("lease_refused"), number=True, bad=1
    ),
    Drawn(
        "Seconds by step",
        "Which step takes the time.",
        of("run_duration_seconds", 'command="run"', 'step!="total"'),
        "s",
        legend="{{step}}",
    ),
    Drawn(
        "Chunks by outcome",
        "Many embedded without new text: a renamed channel, another template.",
        of("last_run_chunks", 'command="run"', 'outcome!="unchanged"'),
        legend="{{outcome}}",
    ),
    Drawn(
        "Documents by outcome",
        "Read, rejected, in quarantine.",
        of("last_run_documents", 'command="run"'),
        legend="{{outcome}}",
    ),
    Drawn("Rows written and deleted", "In the index.", of("last_run_index_rows", 'command="run"'), legend="{{change}}"),
    Drawn("Killed runs", "In 30 days, by command.", of("killed_runs"), legend="{{command}}"),
)
CAPACITY = (
    Drawn(
        "Files of tables",
        "Growth without end: `embedmill gc` is not in the schedule.",
        of("state_files"),
        legend="{{table}}",
    ),
    Drawn(
        "Bytes of tables",
        "Of the newest version of each table of the state.",
        of("state_bytes"),
        "bytes",
        legend="{{table}}",
    ),
    Drawn("Chunks", "What the sources hold.", of("desired_chunks")),
    Drawn(
        "Encoding speed",
        "Tokens a second of the newest run that encoded enough to tell.",
        of("encoder_tokens_per_second"),
    ),
    Drawn(
        "Speed by the median",
        "Below one half an alert tells of it.",
        of("encoder_share_of_median_ratio"),
        "percentunit",
    ),
    Drawn(
        "Cost of the newest run",
        "Estimated, by model.usd_per_hour or a service's price.",
        of("last_run_cost_usd"),
        "currencyUSD",
        legend="{{command}}",
    ),
)
_REQUESTS = f"rate({of('serve_requests_total')}[5m])"


def _share(code: str) -> str:
    """Share of the requests that got this status, an expression: 0, not nothing, where none did."""
    matcher = f'code=~"{code}"'
    some = f"rate({of('serve_requests_total', matcher)}[5m])"
    return f"(sum by (index) ({some}) or 0 * sum by (index) ({_REQUESTS})) / sum by (index) ({_REQUESTS})"


def _seconds(quantile: float) -> str:
    """A quantile of the time of requests, by route."""
    buckets = f"rate({of('serve_request_duration_seconds_bucket')}[5m])"
    return f"histogram_quantile({quantile}, sum by (index, route, le) ({buckets}))"


_CACHED = f"sum by (index) (rate({of('serve_cached_queries_total')}[5m]))"
_ENCODED = f"sum by (index) (rate({of('serve_batch_texts_sum')}[5m]))"
SERVING = (
    Drawn(
        "Reaches the index",
        "0: a process cannot ask the index, or cannot open what is live in it.",
        f"min by (index) ({of('serve_index_reached')})",
        number=True,
        bad=1,
        low_is_bad=True,
    ),
    Drawn("Failed", "Share of requests that got 5xx.", _share("5.."), "percentunit", number=True, bad=0.01),
    Drawn(
        "Refused for want of place",
        "Share of requests that got 429: more is asked than can be encoded or searched in time.",
        _share("429"),
        "percentunit",
        number=True,
        bad=0.05,
    ),
    Drawn(
        "p99",
        "One request in a hundred takes longer; the slowest route.",
        f"max by (index) ({_seconds(0.99)})",
        "s",
        number=True,
        bad=1,
    ),
    Drawn(
        "Requests a second",
        "By status. 401 and 403 that rise: a key or a claim has changed.",
        f"sum by (index, code) ({_REQUESTS})",
        "reqps",
        legend="{{index}} {{code}}",
    ),
    Drawn(
        "What answers",
        "Processes by space and version; two lines cross in a cutover.",
        f"count by (index, space_id, version) ({of('serve_space_info')})",
        legend="{{version}} in {{space_id}}",
    ),
    Drawn("p50 by route", "Half of the requests take longer.", _seconds(0.5), "s", legend="{{index}} {{route}}"),
    Drawn(
        "p99 by route",
        "Those that are refused without a place are not in it.",
        _seconds(0.99),
        "s",
        legend="{{index}} {{route}}",
    ),
    Drawn(
        "Tokens that wait",
        "For the encoder, the fullest process: a queue that stays is too few processes.",
        f"max by (index) ({of('serve_waiting_tokens')})",
    ),
    Drawn(
        "Texts in a batch",
        "On average: 1 is an encoder without a rush.",
        f"{_ENCODED} / sum by (index) (rate({of('serve_batch_texts_count')}[5m]))",
    ),
    Drawn(
        "Tokens encoded a second",
        "Of all processes.",
        f"sum by (index) (rate({of('serve_encoded_tokens_total')}[5m]))",
    ),
    Drawn(
        "Queries remembered",
        "Share whose vectors were not encoded again.",
        f"{_CACHED} / ({_CACHED} + {_ENCODED})",
        "percentunit",
    ),
)
DASHBOARDS: dict[str, tuple[str, Sequence[Drawn]]] = {
    "overview": ("embedmill: fresh, complete, affordable", OVERVIEW),
    "run": ("embedmill: a run", RUN),
    "capacity": ("embedmill: capacity", CAPACITY),
    "serving": ("embedmill: serving queries", SERVING),
}
# What has a value for each index: an installation may serve without a place that runs are told to.
_INDEXES = {"serving": "embedmill_serve_index_reached"}
_WINDOWS = {"serving": ("now-6h", "1m")}  # from when on, and how often it is drawn anew


def build(uid: str, title: str, panels: Sequence[Drawn]) -> str:
    """The JSON of a dashboard."""
    since, refresh = _WINDOWS.get(uid, ("now-30d", "5m"))
    made = (
        dashboard.Dashboard(title)
        .uid(f"embedmill-{uid}")
        .tags(["embedmill"])
        .time(since, "now")
        .refresh(refresh)
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("index")
            .label("Index")
            .hide(VariableHide.DONT_HIDE)
            .datasource(SOURCE)
            .query(f"label_values({_INDEXES.get(uid, 'embedmill_info')}, index)")
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
        )
    )
    for panel in panels:
        made = made.with_panel(_panel(panel))
    return json.dumps(made.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"


def _panel(drawn: Drawn) -> stat.Panel | timeseries.Panel:
    query = prometheus.Dataquery().expr(drawn.expression).legend_format(drawn.legend).ref_id("A").datasource(SOURCE)
    if not drawn.number:
        return (
            timeseries.Panel()
            .title(drawn.title)
            .description(drawn.about)
            .datasource(SOURCE)
            .unit(drawn.unit)
            .min(0)
            .height(8)
            .span(12)
            .with_target(query)
        )
    panel = stat.Panel().title(drawn.title).description(drawn.about).datasource(SOURCE).unit(drawn.unit)
    panel = panel.height(5).span(6).color_mode(BigValueColorMode.VALUE).graph_mode(BigValueGraphMode.AREA)
    if drawn.bad is not None:
        colours = ("red", "green") if drawn.low_is_bad else ("green", "red")
        steps = [Threshold(value=None, color=colours[0]), Threshold(value=drawn.bad, color=colours[1])]
        panel = panel.thresholds(dashboard.ThresholdsConfig().mode(ThresholdsMode.ABSOLUTE).steps(steps))
    return panel.with_target(query)


def pages() -> dict[str, str]:
    """Every dashboard by the name of its file."""
    return {f"{uid}.json": build(uid, *of) for uid, of in DASHBOARDS.items()}


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8")
