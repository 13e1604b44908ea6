"""What a state in an object store costs beside one in a folder, and what a second node of Ray brings.

    python benchmarks/store.py [--rows 20000] [--pairs 3]           # SeaweedFS and a folder, by turns
    python benchmarks/store.py --nodes [--rows 40000] [--pairs 3]   # one host with a core, and two; root

Each round is a first run over the same table with the packaged model, in its turn with either; ratios are of the
medians, and of the fastest rounds.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scale import CONFIG, FILE_ROWS, write  # noqa: E402

from tests.support.cluster import Cluster  # noqa: E402
from tests.support.hosts import why_not  # noqa: E402
from tests.support.object_store import KEYS, NO_WEED, Weed, has_weed  # noqa: E402

Round = Callable[[Path], str]  # the rest of a configuration, for a run in a folder


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, metavar="N", help="rows of the source (20000, with --nodes 40000)")
    parser.add_argument("--pairs", type=int, default=3, metavar="N", help="rounds of each (%(default)s)")
    parser.add_argument("--nodes", action="store_true", help="one node of Ray and two, in place of a store")
    options = parser.parse_args()
    if not has_weed():
        raise SystemExit(f"store: {NO_WEED}")
    if options.nodes:
        nodes(options.rows or 40_000, options.pairs)
    else:
        stores(options.rows or 20_000, options.pairs)


def stores(rows: int, pairs: int) -> None:
    """Compare whole runs."""
    with tempfile.TemporaryDirectory(prefix="store-") as made:
        folder = Path(made)
        source, weed = source_of(folder, rows), Weed(folder / "weed")
        try:
            found: dict[str, list[float]] = {"folder": [], "store": []}
            for number in range(2 * pairs):
                name = ("folder", "store")[(number + number // 2) % 2]  # folder, store, store, folder, ...
                more = '[state]\nuri = "state"\n' if name == "folder" else weed.config(f"states/{uuid.uuid4().hex}")
                report = first_run(folder / f"{number}", source, more, KEYS)
                found[name].append(report["wall"])
                print(f"{name}: {report['wall']:.1f} s ({steps(report)})", flush=True)
        finally:
            weed.stop()
    ratios("store / folder", found["store"], found["folder"])


def nodes(rows: int, pairs: int) -> None:
    """Compare the embed step on a host with one core, where all runs, and on that and another with its own."""
    if reason := why_not():
        raise SystemExit(f"store: {reason}")
    os.sched_setaffinity(0, {0})  # of what is started here: driver, Ray's head, Spark's master and the store
    found: dict[int, list[float]] = {1: [], 2: []}
    encoding: dict[int, list[float]] = {1: [], 2: []}  # from the first shard to the last, without the start
    for number in range(2 * pairs):
        count = (1, 2)[(number + number // 2) % 2]
        with _cluster(count) as cluster:
            source = source_of(cluster.folder, rows)
            more = f'[state]\nuri = "state"\n[ray]\naddress = "{cluster.ray}"\n'
            actors = f"actors = {count}\nthreads = 1\nshard_tokens = 16384\n"
            report = first_run(cluster.folder / "run", source, more, cluster.environment, actors)
        found[count].append(report["seconds"]["embed"])
        encoding[count].append(report["encode_seconds"])
        print(f"{count} node{'s' * (count > 1)}: {steps(report)}, encoding {encoding[count][-1]:.1f}", flush=True)
    ratios("embed, one node / two", found[1], found[2])
    ratios("encoding alone, one node / two", encoding[1], encoding[2])


@contextmanager
def _cluster(count: int) -> Iterator[Cluster]:
    """A cluster of so many nodes of Ray, each of which has a core."""
    folder = Path("/var/tmp") / f"embedmill-{uuid.uuid4().hex[:8]}"  # hosts have a /tmp of their own
    folder.mkdir()
    cluster = Cluster(folder, ray_nodes=count, pinned=True)
    try:
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


def source_of(folder: Path, rows: int) -> Path:
    """A table of so many messages of one team, in a folder."""
    source = folder / "source"
    source.mkdir()
    for start in range(0, rows, FILE_ROWS):
        write(source / f"{start}.parquet", range(start, min(start + FILE_ROWS, rows)), 1, -1, False)
    return source


def first_run(folder: Path, source: Path, more: str, environment: dict[str, str], model: str = "") -> dict[str, Any]:
    """The report of a first run, with ``wall`` seconds. Raises SystemExit where it fails."""
    folder.mkdir()
    text = CONFIG.format(source=source, uri="milvus.db").replace('[state]\nuri = "state"\n', "")
    text = text.replace('backend = "hash"\n', f'backend = "auto"\n{model}')
    (folder / "embedmill.toml").write_text(text + more)
    words = [sys.executable, "-m", "jobs.cli", "run", "--json", "--config", str(folder / "embedmill.toml")]
    began = time.monotonic()
    env = os.environ | environment | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"store: exit {done.returncode}: {done.stderr[-2000:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report | {"wall": time.monotonic() - began}


def steps(report: dict[str, Any]) -> str:
    """Its seconds by step."""
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in report["seconds"].items())


def ratios(name: str, first: list[float], second: list[float]) -> None:
    """Print how many times the second the first are."""
    medians = statistics.median(first) / statistics.median(second)
    print(f"{name}: {medians:.2f} by medians, {min(first) / min(second):.2f} by the fastest")


if __name__ == "__main__":
    main()
