"""sentence-transformers as its guide shows it: ``encode`` with the defaults. Loading the model is not counted."""

from __future__ import annotations

import time

from texts import THREADS, answer, model, quiet, texts

with quiet():
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    encoder = SentenceTransformer(model(), device="cpu")
    wanted = texts()
    encoder.encode(wanted[:64])
    start = time.perf_counter()
    encoder.encode(wanted)
    seconds = time.perf_counter() - start
answer(seconds=seconds)
