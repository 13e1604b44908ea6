"""Draws the dashboards from a Prometheus, one PNG each: for a look where there is no Grafana.

    python deploy/grafana/render.py http://127.0.0.1:9090 OUT [--minutes 15]

Each panel shows what its query answers, in the panel's place. Units, colours and limits are Grafana's own there.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure

_COLUMNS = 24  # of Grafana's grid
_POINTS = 120


def draw(page: dict[str, Any], address: str, minutes: float) -> Figure:
    """A dashboard as a figure. Raises OSError where Prometheus does not answer."""
    panels = [panel for panel in page["panels"] if panel.get("targets")]
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    figure = Figure(figsize=(16, rows * 0.42), layout=None)
    for panel in panels:
        at = panel["gridPos"]
        box = (at["x"] / _COLUMNS, 1 - (at["y"] + at["h"]) / rows, at["w"] / _COLUMNS, at["h"] / rows)
        axes = figure.add_axes((box[0] + 0.035, box[1] + 0.25 * box[3], box[2] - 0.05, 0.55 * box[3]))
        unit = panel["fieldConfig"]["defaults"].get("unit", "")
        axes.set_title(f"{panel['title']} ({unit})" if unit else panel["title"], fontsize=9, loc="left")
        found = [series for target in panel["targets"] for series in _answer(target, address, minutes)]
        if not found:
            axes.text(0.5, 0.5, "no data", ha="center")
            axes.set_axis_off()
        elif panel["type"] == "stat":
            axes.set_axis_off()
            text = "\n".join(f"{values[-1]:,.4g}" for _, _, values in found[:3])
            axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=18)
        else:
            for legend, times, values in found[:12]:
                moments = [dt.datetime.fromtimestamp(one, dt.UTC) for one in times]
                axes.plot(moments, values, label=legend, marker="." if len(times) < 3 else "")
            axes.xaxis.set_major_formatter(DateFormatter("%H:%M"))
            axes.tick_params(labelsize=7)
            axes.grid(visible=True, alpha=0.3)
            if any(legend for legend, _, _ in found):
                axes.legend(fontsize=6, loc="best", ncols=2)
    return figure


def _answer(target: dict[str, Any], address: str, minutes: float) -> list[tuple[str, list[float], list[float]]]:
    """The series that a query gives over the last minutes: legend, times in seconds since 1970, values."""
    now = time.time()
    words = {
        "query": target["expr"].replace("$index", ".*"),
        "start": now - minutes * 60,
        "end": now,
        "step": max(1.0, minutes * 60 / _POINTS),
    }
    with urllib.request.urlopen(f"{address}/api/v1/query_range?{urllib.parse.urlencode(words)}", timeout=30) as said:
        series = json.load(said)["data"]["result"]
    return [
        (
            _legend(target.get("legendFormat", ""), one["metric"]),
            [float(at) for at, _ in one["values"]],
            [float(value) for _, value in one["values"]],
        )
        for one in series
    ]


def _legend(form: str, labels: dict[str, str]) -> str:
    for name, value in labels.items():
        form = form.replace("{{" + name + "}}", value)
    return form


def main() -> None:
    """Draw all that lie beside this file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address", help="of Prometheus, http://host:port")
    parser.add_argument("out", type=Path, help="folder for the pictures")
    parser.add_argument("--minutes", type=float, default=15.0, help="how far back")
    told = parser.parse_args()
    told.out.mkdir(parents=True, exist_ok=True)
    for file in sorted(Path(__file__).parent.glob("*.json")):
        figure = draw(json.loads(file.read_text()), told.address.rstrip("/"), told.minutes)
        figure.savefig(told.out / f"{file.stem}.png", dpi=80)
        print(told.out / f"{file.stem}.png")


if __name__ == "__main__":
    main()
