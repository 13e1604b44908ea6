"""Publishing into a real Milvus server against a bare pymilvus upsert loop of the same rows.

    .venv/bin/python benchmarks/publish.py                              # starts the server that `make test` installs
    .venv/bin/python benchmarks/publish.py --uri http://localhost:19530  # or one that runs

The two take turns, each into an empty version of the same schema; the medians decide. Exit 1 below LIMIT.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pymilvus import MilvusClient  # noqa: E402

from indexers import open_index  # noqa: E402
from indexers.base import Index  # noqa: E402
from indexers.rows import INDEX_ROW  # noqa: E402
from jobs.publish.publisher import Publisher  # noqa: E402
from jobs.publish.row_writer import RowWriter  # noqa: E402
from jobs.state.run_target import RunTarget  # noqa: E402
from jobs.state.store import State  # noqa: E402
from jobs.state.vector_column import pack  # noqa: E402
from tests.support.milvus_server import MISSING, PYTHON, MilvusServer  # noqa: E402

LIMIT = 0.70  # of the bare loop's speed
DIM, TEAMS, CHANNELS = 384, 10, 50
LOOP_ROWS = 1_000
SHARD_ROWS = 5_000  # index.shard_rows
INDEX, SPACE, RUN = "publish_benchmark", "space", "benchmark"


def make_rows(count: int) -> pa.Table:
    """Rows as a run prepares them: unit vectors, texts of a chat message's length, none in the ledger yet."""
    random = np.random.default_rng(7)
    vectors = random.normal(size=(count, DIM)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    words = random.integers(0, 5_000, size=(count, 18))
    documents = [f"T{n % TEAMS:02d}/m/C{n % CHANNELS:02d}/{1_700_000_000 + n}.000100" for n in range(count)]
    values = {
        "chunk_id": [f"{d}#0" for d in documents],
        "team_id": [d[:3] for d in documents],
        "channel_id": [d[6:9] for d in documents],
        "channel_name": ["general"] * count,
        "kind": ["message"] * count,
        "doc_id": documents,
        "chunk_no": [0] * count,
        "created_at": list(range(count)),
        "updated_at": [0] * count,
        "version": [1] * count,
        "text": [" ".join(f"word{w}" for w in row) for row in words],
        "lexical": [" ".join(f"word{w}" for w in row) for row in words],
        "author": ["Ada Lovelace"] * count,
        "author_id": ["U1"] * count,
        "thread_id": documents,
        "title": [""] * count,
        "visibility": ["public"] * count,
        "mentions": [[]] * count,
        "has_file": [False] * count,
        "language": ["en"] * count,
        "meta": ['{"user":"U1"}'] * count,
        "content_hash": [f"{n:032x}" for n in range(count)],
        "meta_hash": ["0" * 32] * count,
        "vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIM).cast(pa.list_(pa.float32())),
    }
    return pa.table(values, schema=INDEX_ROW)


def bare_loop(uri: str, version: str, dicts: list[dict[str, object]]) -> float:
    """Seconds of what one would write instead; making the dicts is not counted."""
    client = MilvusClient(uri)
    began = time.perf_counter()
    for start in range(0, len(dicts), LOOP_ROWS):
        client.upsert(version, dicts[start : start + LOOP_ROWS])
    seconds = time.perf_counter() - began
    client.close()
    return seconds


def our_publish(index: Index, version: str, rows: pa.Table, folder: Path) -> float:
    """Seconds of the publish step: shards read from disk, index written, ledger committed."""
    state = State(folder, fence=1)
    work = state.work(RUN) / "publish"
    work.mkdir()
    vectors = rows["vector"].combine_chunks().flatten().to_numpy().reshape(len(rows), DIM)
    ready = rows.drop_columns(["vector"]).append_column("vector", pack(vectors))
    ready = ready.append_column("held", pa.array(np.zeros(len(rows), bool)))
    for start in range(0, len(rows), SHARD_ROWS):
        pq.write_table(ready.slice(start, SHARD_ROWS), work / f"{start:08d}.parquet")
    began = time.perf_counter()
    target = RunTarget(state, version, SPACE, RUN)
    writer = RowWriter.of(target, SHARD_ROWS, lambda: None)
    publisher = Publisher(index, target, writer, progress=lambda _: None)
    publisher.publish_ready(lambda: False)
    publisher.flush()
    seconds = time.perf_counter() - began
    if publisher.upserted != len(rows) or state.count("published") != len(rows):
        raise SystemExit("publish: not every row was published")
    shutil.rmtree(folder)
    return seconds


@contextmanager
def server(uri: str, folder: Path) -> Iterator[str]:
    """The address of the given server, or of one of our own."""
    if uri:
        yield uri
        return
    if not PYTHON.exists():
        raise SystemExit(f"{Path(sys.argv[0]).stem}: {MISSING}, or give the address of one")
    own = MilvusServer(folder / "server")
    try:
        yield own.uri
    finally:
        own.stop()


def measure(uri: str, rows: pa.Table, repeats: int, folder: Path) -> dict[str, list[float]]:
    """Rows a second of both, by turns; each version is built up, counted, indexed and dropped before the next."""
    found: dict[str, list[float]] = {"bare loop": [], "publish": []}
    index = open_index("milvus", uri, INDEX)
    dicts = (rows if index.capabilities().lexical else rows.drop_columns(["lexical"])).to_pylist()
    for turn in range(2 * repeats):
        name = list(found)[(turn + turn // 2) % 2]  # each of them first as often as second
        version = f"{INDEX}__v{turn + 1}"
        index.drop_version(version)
        index.create_version(version, space_id=SPACE, dim=DIM)
        load = os.getloadavg()[0]
        if name == "publish":
            seconds = our_publish(index, version, rows, folder / "state")
        else:
            seconds = bare_loop(uri, version, dicts)
        found[name].append(len(rows) / seconds)
        print(f"{name}: {len(rows) / seconds:,.0f} rows/s (load {load:.1f} before)", file=sys.stderr)
        if index.count(version) != len(rows):
            raise SystemExit(f"publish: {version} holds {index.count(version)} rows, not {len(rows)}")
        index.wait_until_indexed(version)
        index.drop_version(version)
    index.close()
    return found


def main() -> int:
    """Measure, print the medians and the verdict; exit code 1 for a failed one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--uri", default="", help="a running server; else one is started")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, server(given.uri, Path(folder)) as uri:
        found = measure(uri, make_rows(given.rows), given.repeats, Path(folder))
    medians = {name: statistics.median(speeds) for name, speeds in found.items()}
    share = medians["publish"] / medians["bare loop"]
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps({"rows": given.rows, "rows_per_second": found, "share": round(share, 3)}))
    for name, speed in medians.items():
        print(f"{name:<10} {speed:>8,.0f} rows/s  ({', '.join(f'{s:,.0f}' for s in found[name])})")
    good = share >= LIMIT
    print(f"{'PASS' if good else 'FAIL'} publish, ledger included: {share:.0%} of the bare loop, asked {LIMIT:.0%}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
