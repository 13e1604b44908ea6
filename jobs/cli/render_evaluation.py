"""What a person reads at the end of `evaluate`: figures in percent, with their intervals."""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from jobs.bodies.evaluation import Against, EvaluateBody, Golden, Scores

_WIDE = 1_000_000


def evaluation(body: EvaluateBody) -> str:
    """All figures: by mode, by slice, and against what it was compared with."""
    lines = [f"{body.index} (space {body.space_id}), {golden(body.golden)}"]
    lines.append(_table(HEAD, [_row(name + " *" * (name == body.mode), of) for name, of in body.modes.items()]))
    lines += [f"  {mode} was not measured: {why}" for mode, why in body.unavailable.items()]
    if body.rerank:
        failed = f", {body.rerank.failed:,} of them not: {body.rerank.reason}" if body.rerank.failed else ""
        lines.append(f"  {body.rerank.asked:,} answers reranked by {body.rerank.name}{failed}")
    for name, groups in body.slices.items():
        lines.append(_table((name, *HEAD[1:]), [_row(label, of) for label, of in groups.items()]))
    if body.against:
        lines.append(against(body.against))
    return "\n".join(lines)


HEAD = ("percent (95 %)", "questions", "nDCG@10", "recall@10", "MRR@10")


def golden(of: Golden) -> str:
    """How many questions, and which of them are in no figure."""
    said = f"{of.questions:,} questions of {of.name}" + (" (clicks: a weak judgement)" if of.weak else "")
    parts = {
        "have no relevant document in the index and are left out": of.not_in_index,
        "lack some of theirs": of.partly_in_index,
        "name none and are left out": of.without_relevant,
    }
    return said + "".join(f"; {count:,} {what}" for what, count in parts.items() if count)


def against(of: Against) -> str:
    """The verdict, and each difference with its interval."""
    rows = []
    for mode, by_metric in of.modes.items():
        named = {"nDCG@10": by_metric.ndcg, "recall@10": by_metric.recall, "MRR@10": by_metric.mrr}
        for metric, d in named.items():
            low, high = d.interval
            change = f"{100 * d.before:.1f} -> {100 * d.after:.1f}"
            apart = f"{100 * d.difference:+.1f}", f"{100 * low:+.1f} to {100 * high:+.1f}", f"{d.p_value:.4f}"
            rows.append((f"{mode} {metric}", f"{d.queries:,}", change, *apart, d.verdict))
    head = (f"against {of.file or of.index}", "questions", "percent", "difference", "99 %", "p", "verdict")
    than = "from" if of.verdict == "no difference" else "than"
    return _table(head, rows) + f"\n{of.verdict.upper()} {than} {of.index} in nDCG@10, {of.mode}"


def _row(name: str, of: Scores) -> tuple[str, ...]:
    if of.intervals is None:
        return (name, f"{of.queries:,}", "-", "-", "-")
    each = ((of.ndcg, of.intervals.ndcg), (of.recall, of.intervals.recall), (of.mrr, of.intervals.mrr))
    extra = "".join(f", {100 * value:.1f} at {k}" for k, value in (of.recall_at or {}).items())
    shown = [f"{100 * mean:.1f} ({100 * low:.1f}-{100 * high:.1f})" for mean, (low, high) in each]
    return (name, f"{of.queries:,}", shown[0], shown[1] + extra, shown[2])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    table = Table.grid(padding=(0, 2, 0, 0))
    for row in (head, *rows):
        table.add_row(Text(f"  {row[0]}", no_wrap=True), *(Text(cell, no_wrap=True) for cell in row[1:]))
    drawn = StringIO()
    Console(file=drawn, width=_WIDE, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())
