"""The usual Ray Data recipe: read, map_batches over an actor with ``encode``, write, then upsert. Start to end."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from texts import STARTED, THREADS, answer, model, path, quiet, upsert


class Embed:
    """The actor of the recipe."""

    def __init__(self, folder: str, threads: int) -> None:
        import torch
        from sentence_transformers import SentenceTransformer

        torch.set_num_threads(threads)
        self.model = SentenceTransformer(folder, device="cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Add the vectors to a batch."""
        batch["vector"] = self.model.encode(list(batch["text"]))
        return batch


with quiet(), tempfile.TemporaryDirectory() as folder:
    import pyarrow.parquet as pq
    import ray

    ray.init(address="local", include_dashboard=False, log_to_driver=False)
    read = ray.data.read_parquet(path())
    encoded = read.map_batches(
        Embed, fn_constructor_args=(model(), THREADS), batch_size=1024, concurrency=1, num_cpus=max(1, THREADS - 1)
    )
    encoded.write_parquet(f"{folder}/vectors")
    table = pq.read_table(f"{folder}/vectors")
    rows = [
        {"id": n, "text": t, "vector": v}
        for n, (t, v) in enumerate(zip(table["text"].to_pylist(), table["vector"].to_pylist(), strict=True))
    ]
    upsert(rows, Path(folder))
    seconds = time.perf_counter() - STARTED
answer(seconds=seconds)
