"""Daft's ``embed_text`` over the texts, without an index. Start to end."""

from __future__ import annotations

import time

from texts import STARTED, answer, model, path, quiet

with quiet():
    import daft
    from daft.functions import embed_text

    frame = daft.read_parquet(path())
    frame = frame.with_column("vector", embed_text(daft.col("text"), provider="transformers", model=model()))
    frame.select("vector").collect()
    seconds = time.perf_counter() - STARTED
answer(seconds=seconds)
