"""What the measurements of gpu.py look like in docs/performance.md: one table, with the card's name."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

Figures = dict[str, Any]

_BEGIN, _END = "<!-- gpu: begin -->", "<!-- gpu: end -->"
_PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "ray")


def machine() -> Figures:
    """What the figures depend on."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "none"
    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "none (CPU)"
    return {"card": card, "cuda": torch.version.cuda, "cores": os.cpu_count(), "packages": packages}


def table(result: Figures) -> str:
    """The figures as Markdown, what was skipped or failed below them."""
    facts, parts = result["machine"], result["parts"]
    packages = ", ".join(f"{name} {number}" for name, number in facts["packages"].items())
    cuda = f"CUDA {facts['cuda']}, " if facts["cuda"] else ""
    lines = [
        "| | tokens/s | messages/s | padding | peak MB | of the ceiling |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in parts["encoder"].get("rows", []):
        name = f"embedmill {row['precision']}, {row['batch_tokens']:,} tokens a batch ({row['layout']})"
        lines.append(_line(name, row))
    if "with_texts" in parts["encoder"]:
        lines.append(_line("embedmill, the fastest of these, from texts on", parts["encoder"]["with_texts"]))
    for row in parts["sentence_transformers"].get("rows", []):
        lines.append(_line(f"sentence-transformers {row['precision']}, {row['batch_texts']:,} texts a batch", row))
    for row in parts["stage"].get("rows", []):
        who = f"{row['actors']} actor{'s' * (row['actors'] > 1)}, each encoding {row['encoding']:.0%} of the time"
        lines.append(_line(f"embed stage through Ray, {row['shard_tokens']:,} tokens a shard, {who}", row))
    text = [
        f"Card: {facts['card']}; {cuda}{facts['cores']} cores, {packages}.",
        f"{result['messages']:,} messages; model: {result['model']}.",
        "\n".join(lines),
        *_notes(parts),
    ]
    return "\n\n".join(text)


def _notes(parts: Figures) -> list[str]:
    notes = []
    if speeds := parts["ceiling"].get("tflops"):
        said = ", ".join(f"{kind} {speed:,.1f}" for kind, speed in speeds.items())
        notes.append(f"- Matrix products, TFLOP/s: {said}.")
    for kind, judged in parts["gate"].get("precisions", {}).items():
        notes.append(f"- Fidelity gate, {kind}: {'passed' if judged['passed'] else 'REFUSED'}, {judged['figures']}.")
    if counts := parts["tests"].get("counts"):
        notes.append(f"- Tests that need CUDA: {', '.join(f'{count} {word}' for word, count in counts.items())}.")
    for file, missing in parts["tests"].get("left_out", {}).items():
        notes.append(f"- {file}: left out, {', '.join(missing)} is not installed.")
    for name, figures in parts.items():
        if why := figures.get("skipped") or figures.get("failed"):
            notes.append(f"- {name}: {'skipped' if 'skipped' in figures else 'FAILED'}, {why}.")
    return ["\n".join(notes)]


def _line(name: str, row: Figures) -> str:
    padding, share = (f"{row[key]:.1%}" if row.get(key) is not None else "" for key in ("padding", "of_ceiling"))
    peak = f"{row['peak_mb']:,}" if row.get("peak_mb") is not None else ""
    speeds = f"{row['tokens_per_second']:,.0f} | {row['messages_per_second']:,.0f}"
    return f"| {name} | {speeds} | {padding} | {peak} | {share} |"


def write(page: Path, result: Figures) -> None:
    """Put the table into the page, between its marks."""
    text = page.read_text()
    before, after = text[: text.index(_BEGIN)], text[text.index(_END) :]
    page.write_text(f"{before}{_BEGIN}\n\n{table(result)}\n\n{after}")
