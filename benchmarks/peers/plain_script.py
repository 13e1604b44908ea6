"""The script that one would write first: encode everything, then upsert it. Counted from start to end."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from texts import STARTED, THREADS, answer, model, quiet, texts, upsert

with quiet(), tempfile.TemporaryDirectory() as folder:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    encoder = SentenceTransformer(model(), device="cpu")
    wanted = texts()
    vectors = encoder.encode(wanted)
    rows = [{"id": n, "text": t, "vector": v} for n, (t, v) in enumerate(zip(wanted, vectors, strict=True))]
    upsert(rows, Path(folder))
    seconds = time.perf_counter() - STARTED
answer(seconds=seconds)
