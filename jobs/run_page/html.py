"""The page itself: figures first, then pictures, then tables. One file, which asks nothing of any network."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from html import escape

from jobs.run_details import RunDetails
from jobs.run_page import charts
from jobs.run_page.data import PageData

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color:#1c2430;background:#fff}
h1{font-size:1.4rem;margin-bottom:.2rem}h2{font-size:1.1rem;margin-top:2.2rem}.muted{color:#66707d}
.facts{display:grid;grid-template-columns:repeat(auto-fit,minmax(8.5rem,1fr));gap:.8rem;margin:1.2rem 0}
.facts div{border:1px solid #e3e7ec;border-radius:6px;padding:.6rem .8rem}.facts b{display:block;font-size:1.3rem}
.ok{color:#17693b}.partial{color:#8a6100}.failed{color:#a32020}
svg{width:100%;height:auto;min-width:26rem}.picture{overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #e3e7ec}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.wide{overflow-x:auto}
td:has(.bar){width:40%}.bar{height:.6rem;background:#4674b8;border-radius:2px;min-width:2px}
@media(prefers-color-scheme:dark){body{color:#dde3ea;background:#14181d}th,td,.facts div{border-color:#2b323b}
.muted{color:#98a2af}.ok{color:#6cc893}.partial{color:#d9b45b}.failed{color:#ee8080}}
"""


def page(data: PageData) -> str:
    """The whole page. Raises ConfigError where what draws pictures is not installed."""
    report, details = data.report, data.details
    parts = [
        f"<h1>{escape(report.command)} {escape(report.run_id)}: "
        f'<span class="{report.status}">{report.status}</span></h1>',
        f'<p class="muted">{escape(report.index)}, space {escape(report.space_id)}; from {escape(report.started_at)} '
        f"to {escape(report.finished_at)}</p>",
    ]
    if report.error:
        parts.append(f'<p class="failed">ended by {escape(report.error)}</p>')
    parts.append(_facts(data))
    if details is not None and (details.steps or details.shards):
        parts.append(_picture("Timeline", charts.timeline(details)))
    if details is not None and details.shards:
        parts.append(_picture("Throughput", charts.throughput(details)))
        parts.append(_picture("Length of texts", charts.lengths(details.lengths)))
        parts.append("<h2>Workers</h2>" + _workers(details))
    if data.written:
        parts.append("<h2>Written, by team and channel</h2>" + _bars(data.written, "rows"))
    if data.embedded:
        parts.append("<h2>Embedded, by team</h2>" + _bars(data.embedded, "texts"))
    if data.quarantine:
        parts.append("<h2>Put into quarantine</h2>" + _bars(data.quarantine, "records"))
    if len(data.before) > 1:
        parts.append(_picture(f"The last {len(data.before)} runs", charts.beside(data.before)))
    parts.append('<p class="muted">Teams and channels are masked by the key of the state; no text is in this page.</p>')
    title = escape(f"{report.command} {report.run_id}")
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    # The browser itself refuses what the page is not to ask for.
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head += f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    icon = '<link rel="icon" href="data:,">'  # or a browser asks for one
    body = "\n".join(parts)
    return (
        f"<!doctype html>\n<html lang=en><head>{head}<title>{title}</title>{icon}<style>{_STYLE}</style></head>"
        f"<body>{body}</body></html>\n"
    )


def _facts(data: PageData) -> str:
    report = data.report
    chunks, seconds = report.chunks, report.seconds
    facts = [
        ("embedded", f"{chunks.embedded:,}"),
        ("reused", f"{chunks.reused:,}"),
        ("updated", f"{chunks.updated:,}"),
        ("deleted", f"{chunks.deleted:,}"),
        ("unchanged", f"{chunks.unchanged:,}"),
        ("rows now", f"{report.index_rows.after:,}"),
        ("in quarantine", f"{report.documents.quarantined:,}"),
        ("seconds", f"{seconds.total:,.1f}"),
    ]
    if speed := report.tokens_per_second:
        facts.append(("tokens/s", f"{speed:,.0f}"))
    if report.cost is not None:
        facts += [("requests", f"{report.cost.requests:,}"), ("USD", f"{report.cost.usd:,.2f}")]
    return '<div class="facts">' + "".join(f"<div>{name}<b>{value}</b></div>" for name, value in facts) + "</div>"


def _workers(details: RunDetails) -> str:
    """A line for each process that encoded: what it did, the share of a core that it used, its memory."""
    shards = defaultdict(list)
    for shard in details.shards:
        shards[shard.worker].append(shard)
    rows = []
    for number, worker in enumerate(sorted(shards), 1):
        of = sorted(shards[worker], key=lambda one: one.ended)
        wall = (of[-1].ended - of[0].began) / 1e9
        cpu = (of[-1].cpu - of[0].cpu) if len(of) > 1 else 0.0
        since = (of[-1].ended - of[0].ended) / 1e9
        rows.append(
            (
                f"worker {number} ({worker})",
                f"{len(of):,}",
                f"{sum(one.tokens for one in of):,}",
                f"{wall:,.1f}",
                f"{cpu / since:.1f}" if since > 0 else "",
                f"{max(one.memory_mb for one in of):,.0f}",
            )
        )
    head = ("process", "shards", "tokens", "seconds", "cores used", "memory, MB")
    return '<div class="wide">' + _table(head, rows) + "</div>"


def _bars(counts: dict[str, int], unit: str) -> str:
    most = max(counts.values())
    rows = [
        (escape(name), f"{count:,}", f'<div class="bar" style="width:{100 * count / most:.0f}%"></div>')
        for name, count in counts.items()
    ]
    return _table(("", unit, ""), rows, escaped=True)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, escaped: bool = False) -> str:
    def cell(place: int, text: str, tag: str) -> str:
        return f"<{tag}{' class=n' if place else ''}>{text if escaped else escape(text)}</{tag}>"

    lines = [[cell(n, text, "th") for n, text in enumerate(head)]]
    lines += [[cell(n, text, "td") for n, text in enumerate(row)] for row in rows]
    return "<table>" + "".join(f"<tr>{''.join(line)}</tr>" for line in lines) + "</table>"


def _picture(title: str, drawn: str) -> str:
    return f'<h2>{escape(title)}</h2><div class="picture">{drawn}</div>'
