"""The tables of benchmarks/serving.py and the verdicts on them. Measures nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"
NAMES = {
    "embedmill": "`embedmill serve`",
    "fastapi": "sentence-transformers behind FastAPI",
    "infinity": "infinity-emb (torch)",
}
TIMES_PEER = 3.0  # what the simplest peer keeps up
RECOVERY_SECONDS = 5.0
MEMORY_LIMIT = 1.25  # at the worst moment of a rush, against a calm time before it

Told = dict[str, Any]
Verdict = tuple[bool, str]


def write(page: Path, text: str) -> None:
    """Put the measured part into the page, between its marks."""
    whole = page.read_text()
    page.write_text(f"{whole[: whole.index(BEGIN)]}{BEGIN}\n\n{text}\n\n{whole[whole.index(END) :]}")


def report(found: Told) -> tuple[str, bool]:
    """Tables and verdicts as Markdown, and whether all is well."""
    machine = found["machine"]
    own = found["own"]
    parts = [
        f"Machine: {machine['processor']}, {machine['cores']} cores, Python {machine['python']}; the load generator "
        f"(k6) shares it. The encoder alone: {own['queries']:,.0f} queries a second ({own['tokens']:,.0f} tokens)."
    ]
    verdicts: list[Verdict] = []
    for group, tell in (("rate", _rate), ("peers", _peers), ("rush", _rush)):
        if group in found:
            text, judged = tell(found[group])
            parts.append(text)
            verdicts += judged
    parts.append("\n".join(f"- {'PASS' if ok else 'FAIL'}: {said}" for ok, said in verdicts))
    return "\n\n".join(parts), all(ok for ok, _ in verdicts)


def _rate(told: Told) -> tuple[str, list[Verdict]]:
    ms, statuses = told["ms"], told["statuses"]
    asked = sum(statuses.values())
    text = (
        f"At 0.7 of that, {told['rate']:,.0f} a second for a minute: p50 **{ms['p50']:.0f} ms**, p99 "
        f"**{ms['p99']:.0f} ms**, the slowest {ms['max']:.0f} ms; {statuses['200']:,} of {asked:,} answered by 200."
    )
    well = statuses["200"] == asked and not told["unsent"]
    return text, [(well, f"every request at 0.7 of the encoder's own speed is answered ({told['unsent']} not sent)")]


def _peers(told: Told) -> tuple[str, list[Verdict]]:
    lines = ["| server | kept up with p99 within 200 ms | p50 | p99 |", "| --- | ---: | ---: | ---: |"]
    lines += [
        f"| {NAMES[name]} | {run['rate']:,.0f}/s | {run['ms']['p50']:.0f} ms | {run['ms']['p99']:.0f} ms |"
        for name, run in told.items()
    ]
    times = {name: told["embedmill"]["rate"] / run["rate"] for name, run in told.items() if name != "embedmill"}
    said = ", ".join(f"{value:.1f} x {NAMES[name]}" for name, value in times.items())
    return "\n".join(lines), [(times["fastapi"] >= TIMES_PEER, f"{said} (at least {TIMES_PEER:.0f} x the first)")]


def _rush(told: Told) -> tuple[str, list[Verdict]]:
    statuses, asked = told["statuses"], sum(told["statuses"].values())
    lost = asked - sum(statuses[status] for status in ("200", "429", "504"))
    text = (
        f"A minute at 5 times what is kept up ({told['kept']:,.0f}/s), between calm times: {asked:,} requests, "
        f"{statuses['200']:,} answered by 200, {statuses['429']:,} by 429, {statuses['504']:,} by 504, {lost} lost; "
        f"{told['late']:,} came after the deadline as the client sees it, the slowest after {told['ms']['max']:.0f} "
        f"ms; {told['unsent']:,} could not be sent, as all connections were waiting. Memory "
        f"{told['memory_before']:,.0f} MB before, {told['memory']:,.0f} MB at most. "
        f"{told['recovery']:.1f} s after it all is as before."
    )
    return text, [
        (not lost, "none of a rush is lost"),
        (not told["late"] and not statuses["504"], "each is answered within the deadline, or by 429"),
        (told["recovery"] <= RECOVERY_SECONDS, f"recovered within {RECOVERY_SECONDS:.0f} s"),
        (told["memory"] <= MEMORY_LIMIT * told["memory_before"], "memory is bounded"),
    ]
