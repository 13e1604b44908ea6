"""The tables of a measurement and the verdicts on it. Measures nothing."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

REPEAT_LIMIT = 0.10  # a run with nothing to do, as a share of the first
GROWTH_LIMIT = 1.10  # the driver's memory at the largest size, against the smallest
STAGES = ("extract", "plan", "embed", "publish")
FIRST, SAME, CHANGED, APART = "first", "no change", "1 % edited", "engine apart"
COUNTS = ("run", "total", "embedded", "reused", "updated", "deleted", "unchanged", "opened", "rows", "load")

Run = dict[str, Any]


def show(console: Console, measured: dict[str, Any]) -> None:
    """Print the tables of one size."""
    runs: dict[str, Run] = measured["runs"]
    speed = Table(
        title=f"{measured['messages']:,} messages in {measured['partitions']:,} day files", title_justify="left"
    )
    for column in ("run", *STAGES, "total", "wall", "messages/s", "tokens", "embed tok/s", "whole tok/s"):
        speed.add_column(column, justify="left" if column == "run" else "right", no_wrap=True)
    counts = Table(title="counts, and the machine's load when the run began", title_justify="left")
    for column in COUNTS:
        counts.add_column(column, justify="left" if column == "run" else "right", no_wrap=True)
    for name, run in runs.items():
        counts.add_row(name, *(f"{run['counts'][key]:,}" for key in COUNTS[1:-1]), f"{run['load_before']:.1f}")
        speed.add_row(
            name,
            *(f"{run['seconds'][stage]:.1f}" for stage in (*STAGES, "total")),
            f"{run['wall']:.1f}",
            *(
                f"{run[key]:,.0f}"
                for key in ("messages_per_second", "tokens", "embed_tokens_per_second", "tokens_per_second")
            ),
        )
    console.print(speed, counts)
    memory = Table(
        title="peak memory, MB: largest process (sum of the peaks of all of that name)", title_justify="left"
    )
    memory.add_column("process")
    for name in runs:
        memory.add_column(name, justify="right")
    labels = list(dict.fromkeys(label for run in runs.values() for label in run["memory"]))
    for label in labels:
        memory.add_row(label, *(_memory(run["memory"].get(label)) for run in runs.values()))
    for title, key in (("driver, anonymous pages", "anon"), ("driver, unique pages (uss)", "uss")):
        memory.add_row(title, *(f"{run['memory']['driver'][key]:,.0f}" for run in runs.values()), style="dim")
    memory.add_row("all at one moment (pss)", *(f"{run['memory_together_mb']:,.0f}" for run in runs.values()))
    console.print(memory)
    console.print(f"on disk: state {measured['state_mb']:,.0f} MB, index {measured['index_mb']:,.0f} MB")


def _memory(row: dict[str, float] | None) -> str:
    if row is None:
        return ""
    many = f" ({row['rss_sum']:,.0f} in {row['processes']:.0f})" if row["processes"] > 1 else ""
    return f"{row['rss']:,.0f}{many}"


def judge(sizes: list[dict[str, Any]]) -> list[dict[str, str]]:
    """The verdicts, each with the figures it rests on."""
    wrong = [f"{measured['messages']:,} messages, {text}" for measured in sizes for text in measured["wrong"]]
    found = [_verdict(not wrong, "counts: " + ("; ".join(wrong) or "every run did what it should and no more"))]
    small, large = sizes[0], sizes[-1]
    if small is large:
        return [*found, {"verdict": "NOT JUDGED", "text": "repeat and growth: give two sizes"}]
    first, same = (large["runs"][name]["wall"] for name in (FIRST, SAME))
    share = same / first
    found.append(
        _verdict(
            share < REPEAT_LIMIT,
            f"repeat: with nothing changed {large['messages']:,} messages took {same:.1f} s of the first run's "
            f"{first:.1f} s = {share:.1%}, limit {REPEAT_LIMIT:.0%}",
        )
    )
    sides = f"from {small['messages']:,} to {large['messages']:,} messages"
    before, after = (_driver(measured, APART) for measured in (small, large))
    found.append(
        _verdict(
            after <= GROWTH_LIMIT * before,
            f"growth: the driver's peak, engines in processes of their own, went {sides} from {before:,.0f} to "
            f"{after:,.0f} MB = {after / before - 1:+.1%}, limit {GROWTH_LIMIT - 1:+.0%}",
        )
    )
    before, after = (_driver(measured, FIRST) for measured in (small, large))
    engine = [measured["runs"][APART]["memory"]["milvus lite"]["rss"] for measured in (small, large)]
    found.append(
        {
            "verdict": "NOTE",
            "text": (
                f"the driver with Milvus Lite inside went {sides} from {before:,.0f} to {after:,.0f} MB "
                f"({after - before:+,.0f}); Milvus Lite alone from {engine[0]:,.0f} to {engine[1]:,.0f} MB "
                f"({engine[1] - engine[0]:+,.0f})"
            ),
        }
    )
    return found


def _driver(measured: dict[str, Any], run: str) -> float:
    return float(measured["runs"][run]["memory"]["driver"]["rss"])


def _verdict(good: bool, text: str) -> dict[str, str]:
    return {"verdict": "PASS" if good else "FAIL", "text": text}
