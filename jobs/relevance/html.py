"""The report of an evaluation as one HTML file: no script, nothing from elsewhere, bars by CSS.

Questions are shown by id and score; their words only where the answer has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from embedding.errors import ResourceError

if TYPE_CHECKING:
    from jobs.bodies.evaluation import Against, EvaluateBody, Interval, Scores

WORST = 50  # questions that are listed

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #e3e7ec;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.bar{position:relative;height:.7rem;width:12rem;background:#eef1f5;border-radius:2px}
.bar i{position:absolute;left:0;top:0;bottom:0;background:#4674b8;border-radius:2px}
.bar b{position:absolute;top:.28rem;height:.14rem;background:#12233d}
.better{color:#17693b}.worse{color:#a32020}.muted{color:#66707d}
@media(prefers-color-scheme:dark){body{color:#dde3ea;background:#14181d}th,td{border-color:#2b323b}
.bar{background:#262d36}.bar b{background:#dde3ea}.better{color:#6cc893}.worse{color:#ee8080}.muted{color:#98a2af}}
"""


def write_report(body: EvaluateBody, file: Path) -> None:
    """Write the report, for its owner alone where it is new. Raises ResourceError where it cannot be written."""
    try:
        file.touch(mode=0o600)
        file.write_text(report(body), encoding="utf-8")
    except OSError as error:
        raise ResourceError(f"--html: {file} cannot be written: {error.strerror}") from None


def report(body: EvaluateBody) -> str:
    """The whole page."""
    of = body.golden
    facts = [f"{of.questions:,} questions of {of.name}" + (", by clicks" if of.weak else "")]
    facts += [
        f"{count:,} {what}"
        for count, what in (
            (of.not_in_index, "without a relevant document in the index, in no figure"),
            (of.partly_in_index, "with some of their documents in the index"),
            (of.without_relevant, "that name no document, in no figure"),
        )
        if count
    ]
    parts = [
        f"<h1>Relevance of {escape(body.index)}</h1>",
        f'<p class="muted">space {escape(body.space_id)}; {escape("; ".join(facts))}</p>',
    ]
    if body.against:
        parts.append(_against(body.against))
    parts.append("<h2>By mode</h2>" + _scores("mode", body.modes.items()))
    parts += [f"<p>{escape(mode)} was not measured: {escape(why)}</p>" for mode, why in body.unavailable.items()]
    if body.rerank:
        failed = f", {body.rerank.failed:,} failed: {body.rerank.reason}" if body.rerank.failed else ""
        parts.append(f"<p>{body.rerank.asked:,} answers reranked by {escape(body.rerank.name + failed)}</p>")
    for name, groups in body.slices.items():
        parts.append(f"<h2>By {escape(name)}, {body.mode}</h2>" + _scores(name, groups.items()))
    parts.append(_worst(body))
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width">'
    title = f"<title>Relevance of {escape(body.index)}</title>"
    page = f"<head>{head}{title}<style>{_STYLE}</style></head><body>{''.join(parts)}</body>"
    return f"<!doctype html><html lang=en>{page}</html>\n"


def _scores(first: str, rows: Iterable[tuple[str, Scores]]) -> str:
    drawn = []
    for name, of in rows:
        at_k = "".join(f"; {100 * value:.1f} at {k}" for k, value in (of.recall_at or {}).items())
        spans = of.intervals
        drawn.append(
            [
                escape(name),
                f"{of.queries:,}",
                _figure(of.ndcg, spans.ndcg if spans else None),
                _bar(of.ndcg, spans.ndcg if spans else None),
                _figure(of.recall, spans.recall if spans else None) + at_k,
                _figure(of.mrr, spans.mrr if spans else None),
            ]
        )
    return _table([(first, ""), *((h, "n") for h in ("questions", "nDCG@10")), ("", ""), *_LAST], drawn)


_LAST = (("recall@10", "n"), ("MRR@10", "n"))


def _figure(mean: float, span: Interval | None) -> str:
    if span is None:
        return "-"
    return f'{100 * mean:.1f} <span class="muted">{100 * span[0]:.1f}-{100 * span[1]:.1f}</span>'


def _bar(mean: float, span: Interval | None) -> str:
    line = f'<b style="left:{100 * span[0]:.1f}%;width:{100 * (span[1] - span[0]):.1f}%"></b>' if span else ""
    return f'<div class="bar"><i style="width:{100 * mean:.1f}%"></i>{line}</div>'


def _against(of: Against) -> str:
    rows = []
    for mode, found in of.modes.items():
        for metric, d in (("nDCG@10", found.ndcg), ("recall@10", found.recall), ("MRR@10", found.mrr)):
            verdict = f'<span class="{d.verdict.split()[0]}">{d.verdict}</span>'
            low, high = d.interval
            change = f"{100 * d.before:.1f} → {100 * d.after:.1f}", f"{100 * d.difference:+.1f}"
            rows.append(
                [f"{mode} {metric}", *change, f"{100 * low:+.1f} to {100 * high:+.1f}", f"{d.p_value:.4f}", verdict]
            )
    head = [("", ""), ("before, after", "n"), ("difference", "n"), ("99 %", "n"), ("p", "n"), ("verdict", "")]
    name = escape(of.file or of.index)
    said = f'<span class="{of.verdict.split()[0]}">{of.verdict}</span>'
    return f"<h2>Against {name}: {said}</h2>" + _table(head, rows)


def _worst(body: EvaluateBody) -> str:
    """Questions with the lowest nDCG, then recall."""
    found, texts = body.per_query.modes[body.mode], body.per_query.texts
    asked = [
        (ndcg, recall or 0.0, mrr or 0.0, place)
        for place, (ndcg, recall, mrr) in enumerate(zip(found.ndcg, found.recall, found.mrr, strict=True))
        if ndcg is not None
    ]
    rows = []
    for ndcg, recall, mrr, place in sorted(asked)[:WORST]:
        row = [escape(body.per_query.ids[place]), f"{100 * ndcg:.1f}", f"{100 * recall:.1f}", f"{100 * mrr:.1f}"]
        rows.append([*row, escape(texts[place])] if texts else row)
    head = [
        ("question", ""),
        ("nDCG@10", "n"),
        ("recall@10", "n"),
        ("MRR@10", "n"),
        *([("words", "")] if texts else []),
    ]
    return f"<h2>Worst questions, {body.mode}</h2>" + _table(head, rows)


def _table(head: Sequence[tuple[str, str]], rows: Iterable[Sequence[str]]) -> str:
    """Cells are HTML; a column of class "n" is of numbers."""

    def line(cells: Sequence[str], tag: str) -> str:
        marked = (
            f"<{tag}{f' class={c}' if c else ''}>{cell}</{tag}>" for cell, (_, c) in zip(cells, head, strict=True)
        )
        return f"<tr>{''.join(marked)}</tr>"

    return f"<table>{line([escape(h) for h, _ in head], 'th')}{''.join(line(row, 'td') for row in rows)}</table>"
