"""What the measurements of encoders.py come to: verdicts, tables, a plot, and the page docs/performance.md."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

Groups = dict[str, Any]

FASTER_THAN_DEFAULT = 2.8
OF_CEILING = 0.75
PADDING = 0.05
STAGE_OF_ENCODER = 0.90
FASTER_THAN_SCRIPT, FASTER_THAN_RECIPE = 2.0, 3.0
MESSAGES_A_SECOND = 10_000
ACTOR_GROWTH = 1.10

# The default model: six layers of four 384x384 and two 384x1536 matrices. A multiplication and an addition each.
LAYERS, WIDTH, INNER = 6, 384, 1536
_FLOP_A_TOKEN = 2 * LAYERS * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER)
_FLOP_A_SQUARE = 4 * LAYERS * WIDTH  # attention: queries with keys, and weights with values

_BEGIN, _END = "<!-- measured: begin -->", "<!-- measured: end -->"
_NAMES = {
    "ours": "embedmill's encoder",
    "sentence_transformers": "sentence-transformers `encode`",
    "daft": "Daft `embed_text`, start to end",
    "script": "plain script (encode, upsert), start to end",
    "ray_recipe": "Ray Data recipe, start to end",
    "encoder": "embedmill's encoder",
    "stage": "embedmill's embed stage, in one process",
    "stage_on_ray": "embedmill's embed stage, on Ray",
    "run": "`embedmill run`, start to end",
}


def judge(groups: Groups) -> list[tuple[str, str]]:
    """PASS, FAIL or NOTE and why, for what was measured."""
    found: list[tuple[str, str]] = []

    def say(good: bool, text: str, otherwise: str = "FAIL") -> None:
        found.append(("PASS" if good else otherwise, text))

    # What is asked beside peers is asked of a processor that computes in bf16: elsewhere both sides multiply float32.
    slower = "NOTE" if _where(groups) else "FAIL"
    if group := groups.get("encoders"):
        ours, runs = group["runs"]["ours"], group["runs"]
        ratio = _median(runs["sentence_transformers"]) / _median(ours)
        say(
            ratio >= FASTER_THAN_DEFAULT,
            f"encoder: {ratio:.2f} times sentence-transformers' default, asked {FASTER_THAN_DEFAULT}{_where(groups)}",
            slower,
        )
        work = ours[0]["tokens"] * _FLOP_A_TOKEN + ours[0]["squares"] * _FLOP_A_SQUARE
        share = work / _median(ours) / _median(runs["ceiling"], "flops")
        say(share >= OF_CEILING, f"encoder: {share:.0%} of the matrix product's speed, asked {OF_CEILING:.0%}")
        say(
            ours[0]["padding"] < PADDING,
            f"encoder: padding is {ours[0]['padding']:.1%} of what is multiplied, limit {PADDING:.0%}",
        )
    if group := groups.get("stage"):
        for name in ("stage", "stage_on_ray"):
            share = _median(group["runs"]["encoder"]) / _median(group["runs"][name])
            label = _NAMES[name].removeprefix("embedmill's embed ")
            say(share >= STAGE_OF_ENCODER, f"{label}: {share:.0%} of the encoder alone, asked {STAGE_OF_ENCODER:.0%}")
    if group := groups.get("whole"):
        run = _median(group["runs"]["run"])
        peers = (("script", "plain script", FASTER_THAN_SCRIPT), ("ray_recipe", "Ray recipe", FASTER_THAN_RECIPE))
        for name, label, asked in peers:
            ratio = _median(group["runs"][name]) / run
            say(
                ratio >= asked,
                f"whole run: {ratio:.2f} times as fast as the {label}, asked {asked}{_where(groups)}",
                slower,
            )
    if group := groups.get("nothing"):
        run = group["runs"]["run"][0]
        rate = group["messages"] / sum(run[f"{stage}_seconds"] for stage in ("extract", "plan", "embed", "publish"))
        say(
            rate >= MESSAGES_A_SECOND,
            f"no encoder: {rate:,.0f} messages a second, wanted {MESSAGES_A_SECOND:,}",
            "NOTE",
        )
    if group := groups.get("memory"):
        small, large = (runs[0]["actor_mb"] for _, runs in sorted(group["runs"].items(), key=lambda item: int(item[0])))
        say(
            large <= small * ACTOR_GROWTH,
            f"memory: the encode actor's own peaked at {small:,.0f} MB with 10,000 and {large:,.0f} MB with 200,000 "
            f"messages, limit +{ACTOR_GROWTH - 1:.0%}",
        )
    return found


def _where(groups: Groups) -> str:
    """What to add to a figure that was taken without bf16."""
    ceiling = groups.get("encoders", {}).get("runs", {}).get("ceiling", [{}])[0]
    return "" if ceiling.get("bf16", True) else " of a processor with bf16, which this one is not"


def tables(groups: Groups) -> str:
    """The tables as Markdown, which reads well enough in a terminal."""
    parts = []
    if group := groups.get("encoders"):
        tokens = group["runs"]["ours"][0]["tokens"]
        rows = [(name, runs) for name, runs in group["runs"].items() if name != "ceiling"]
        parts.append(f"**{group['messages']:,} messages, {tokens:,} tokens**\n\n" + _speeds(rows, tokens, "tokens/s"))
        ceiling = group["runs"]["ceiling"]
        flops = _median(ceiling, "flops")
        parts.append(
            f"A {'float32' if _where(groups) else 'bf16'} matrix product reaches {flops / 1e9:,.0f} GFLOP/s here, "
            f"that is {flops / _FLOP_A_TOKEN:,.0f} tokens a second. The first use of the model on a machine "
            f"converts and checks it, which took {group['convert_seconds']:.1f} s and is not counted."
        )
    if group := groups.get("stage"):
        tokens = group["runs"]["encoder"][0]["tokens"]
        parts.append(
            f"**{group['messages']:,} messages, {tokens:,} tokens**\n\n"
            + _speeds(list(group["runs"].items()), tokens, "tokens/s")
        )
    if group := groups.get("whole"):
        parts.append(
            f"**{group['messages']:,} messages into Milvus Lite, start-up counted**\n\n"
            + _speeds(list(group["runs"].items()), group["messages"], "messages/s")
        )
        parts.append(
            f"Of `embedmill run`: {_stages(group['runs']['run'])}. A run before them, which on a new machine converts "
            f"the model and leaves Spark's classes to the next, took {group['first_seconds']:.1f} s and is not counted."
        )
    if group := groups.get("nothing"):
        parts.append(f"**{group['messages']:,} messages with no encoder**: " + _stages(group["runs"]["run"]) + ".")
    if group := groups.get("memory"):
        peaks = "; ".join(
            f"{int(size):,} messages: {runs[0]['actor_mb']:,.0f} MB, resident {runs[0]['actor_resident_mb']:,.0f} MB"
            for size, runs in group["runs"].items()
        )
        parts.append(
            f"**Peak memory of the encode actor**: {peaks}. Its own is anonymous memory; resident counts libraries "
            "too, and the pages of Ray's object store that it has touched, which all processes share and "
            "`ray.object_store_mb` bounds."
        )
    return "\n\n".join(parts)


def _speeds(rows: list[tuple[str, list[dict[str, float]]]], amount: float, unit: str) -> str:
    lines = [f"| | {unit} | seconds, median (least-most) of |", "| --- | ---: | --- |"]
    for name, runs in rows:
        seconds = [run["seconds"] for run in runs]
        spread = f"{_median(runs):.1f} ({min(seconds):.1f}-{max(seconds):.1f}) of {len(seconds)}"
        lines.append(f"| {_NAMES[name]} | {amount / _median(runs):,.0f} | {spread} |")
    return "\n".join(lines)


def _stages(runs: list[dict[str, float]]) -> str:
    return ", ".join(
        f"{stage} {_median(runs, f'{stage}_seconds'):.1f} s" for stage in ("extract", "plan", "embed", "publish")
    )


def _median(runs: list[dict[str, float]], figure: str = "seconds") -> float:
    return statistics.median(run[figure] for run in runs)


def write(page: Path, result: dict[str, Any], verdicts: list[tuple[str, str]]) -> None:
    """Put the measured part into the page, between its marks, and the plot beside it."""
    machine = result["machine"]
    plot = page.with_suffix(".svg")
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    parts = [
        _BEGIN,
        f"Machine: {machine['processor']}, {machine['cores']} cores, {machine['memory_mb']:,} MB, Python "
        f"{machine['python']}; {packages}.",
        tables(result["groups"]),
    ]
    if "encoders" in result["groups"]:
        plot.write_text(_plot(result["groups"]["encoders"]))
        parts.append(f"![tokens a second]({plot.name})")
    parts += ["\n".join(f"- {verdict}: {text}" for verdict, text in verdicts), _END]
    text = page.read_text()
    before, after = text[: text.index(_BEGIN)], text[text.index(_END) + len(_END) :]
    page.write_text(before + "\n\n".join(parts) + after)


def _plot(group: dict[str, Any]) -> str:
    """Bars of tokens a second, legible on light and on dark."""
    tokens = group["runs"]["ours"][0]["tokens"]
    bars = [
        (_NAMES[name].replace("`", ""), tokens / _median(runs))
        for name, runs in group["runs"].items()
        if name != "ceiling"
    ]
    bars.append(("the matrix product's limit", _median(group["runs"]["ceiling"], "flops") / _FLOP_A_TOKEN))
    scale = 360 / max(speed for _, speed in bars)
    lines = []
    for row, (name, speed) in enumerate(bars):
        top = 12 + row * 30
        lines += [
            f'<text x="290" y="{top + 15}" text-anchor="end">{name}</text>',
            f'<rect x="300" y="{top}" width="{speed * scale:.0f}" height="20" fill="#5b8def"/>',
            f'<text x="{306 + speed * scale:.0f}" y="{top + 15}">{speed:,.0f}</text>',
        ]
    height = 20 + 30 * len(bars)
    style = 'font-family="sans-serif" font-size="13" fill="#808080"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 730 {height}" {style}>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )
