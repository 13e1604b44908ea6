"""The pictures of the page, as SVG that stands in it: no file, no font and no script from elsewhere."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding.errors import ConfigError
from jobs.run_page.data import Beside

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from jobs.run_details import RunDetails

STEPS = {"extract": "#5b8c5a", "plan": "#b8860b", "embed": "#4674b8", "publish": "#a45a9e"}
INK = "#7a8490"  # reads on white and on black
_BINS = 60


def timeline(details: RunDetails) -> str:
    """Steps, and below them the shards of each worker, over the seconds of the run."""
    start = min([*(one.began for one in details.steps), *(one.began for one in details.shards)])
    workers = sorted({shard.worker for shard in details.shards})
    names = [step for step in STEPS if any(one.step == step for one in details.steps)]
    figure, axes = _figure(1.0 + 0.34 * (len(names) + len(workers)))
    for row, name in enumerate(names):
        spans = [_span(one.began, one.ended, start) for one in details.steps if one.step == name]
        axes.broken_barh(spans, (row - 0.3, 0.6), facecolors=STEPS[name])
    for row, worker in enumerate(workers, len(names)):
        spans = [_span(one.began, one.ended, start) for one in details.shards if one.worker == worker]
        axes.broken_barh(spans, (row - 0.3, 0.6), facecolors=STEPS["embed"], edgecolors="white", linewidth=0.4)
    labels = [*names, *(f"worker {number}" for number in range(1, len(workers) + 1))]
    axes.set_yticks(range(len(labels)), labels)
    axes.invert_yaxis()
    axes.set_xlabel("seconds")
    return _svg(figure, "Timeline of steps and of the shards of each worker")


def throughput(details: RunDetails) -> str:
    """Tokens a second over the seconds of encoding."""
    start = min(shard.began for shard in details.shards)
    length = max(shard.ended for shard in details.shards) - start
    edges = np.linspace(0, max(length, 1), _BINS + 1)
    rate = np.zeros(_BINS)
    for shard in details.shards:  # its tokens are dealt evenly over its time
        began, ended = shard.began - start, max(shard.ended - start, shard.began - start + 1)
        share = np.clip(np.minimum(edges[1:], ended) - np.maximum(edges[:-1], began), 0, None) / (ended - began)
        rate += share * shard.tokens
    figure, axes = _figure(2.2)
    seconds = edges / 1e9
    axes.fill_between((seconds[:-1] + seconds[1:]) / 2, rate / np.diff(seconds), color=STEPS["embed"], linewidth=0)
    axes.set_xlabel("seconds since the first shard")
    axes.set_ylabel("tokens/s")
    axes.set_ylim(bottom=0)
    return _svg(figure, "Tokens a second while texts were encoded")


def lengths(counts: Mapping[int, int]) -> str:
    """Texts by their tokens."""
    powers = range(min(counts), max(counts) + 1)
    figure, axes = _figure(2.2)
    axes.bar([str(2**power) for power in powers], [counts.get(power, 0) for power in powers], color=STEPS["embed"])
    axes.set_xlabel("tokens of a text, from")
    axes.set_ylabel("texts")
    return _svg(figure, "Texts by the number of their tokens")


def beside(runs: Sequence[Beside]) -> str:
    """Seconds by step of the runs before it, the newest at the right; a cross is one that failed."""
    figure, axes = _figure(2.4)
    below = np.zeros(len(runs))
    for step, colour in STEPS.items():
        seconds = np.array([run.seconds.get(step, 0.0) for run in runs])
        axes.bar(range(len(runs)), seconds, bottom=below, color=colour, label=step)
        below += seconds
    for place, run in enumerate(runs):
        if run.status == "failed":
            axes.plot(place, below[place], marker="x", color="#c03535")
    axes.set_xticks([0, len(runs) - 1] if len(runs) > 1 else [0], ["oldest", "this one"][-min(2, len(runs)) :])
    axes.set_ylabel("seconds")
    axes.legend(ncols=4, frameon=False, labelcolor=INK, fontsize=9, loc="upper left")
    axes.set_ylim(top=max(1.0, float(below.max()) * 1.25))
    return _svg(figure, "Seconds by step of this run and of those before it")


def _span(began: int, ended: int, start: int) -> tuple[float, float]:
    return (began - start) / 1e9, max(ended - began, 1_000_000) / 1e9


def _figure(height: float) -> tuple[Figure, Any]:
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError('matplotlib is not installed; run `pip install "embedmill[report]"`') from None
    figure = Figure(figsize=(7.0, height), layout="constrained")
    axes = figure.add_subplot()
    axes.tick_params(colors=INK, labelsize=9)
    axes.xaxis.label.set_color(INK)
    axes.yaxis.label.set_color(INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("bottom", "left"):
        axes.spines[side].set_color(INK)
    axes.set_axisbelow(True)
    axes.grid(axis="both", color=INK, alpha=0.2, linewidth=0.5)
    return figure, axes


def _svg(figure: Figure, title: str) -> str:
    import matplotlib as mpl

    sink = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": title, "font.family": "sans-serif"}):
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None})
    drawn = sink.getvalue()
    drawn = drawn[drawn.index("<svg") :]
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
    drawn = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", drawn, count=1)
    drawn = re.sub(r'xmlns(:xlink)?="[^"]*" ?', "", drawn)
    return drawn.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1).replace("xlink:href", "href")
