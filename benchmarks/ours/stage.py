"""Our embed stage alone: from the plan's texts on disk to committed vectors.

Counted from the moment that the first shard begins to be encoded, since starting engines and loading models is not the
stage's speed. Arguments: a Parquet file of texts, the folder of converted models, and "ray" or "alone" (in one process,
as a local run does it with fewer than ``ray.min_tokens``). The model and its settings are the defaults, and what the
environment says in their place.
"""

from __future__ import annotations

import json
import math
import os
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from embedding.encoders.spec import EncoderSpec
from embedding.models.packaged import model_path
from embedding.models.space import describe_space
from embedding.tokens.tokenizer import Tokens
from jobs.config import load_config
from jobs.embed.embed import embed, embed_alone, ready
from jobs.embed.encoder_process import EncoderProcess
from jobs.engines.environment import quiet_engines
from jobs.state.staging import begin_staging, commit_staged, write_staged
from jobs.state.storage import StatePath
from jobs.state.store import State

TEAM = "T01"
RUN = "benchmark"


def main() -> None:
    """Write the plan's texts as jobs/plan/plan.py does, embed them, and print seconds and texts."""
    quiet_engines()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        (root / "files").mkdir()
        (root / "embedmill.toml").write_text(
            f'[[sources]]\nkind = "files"\nuri = "files"\nteam_id = "{TEAM}"\n[model]\ncache = "{sys.argv[2]}"\n'
        )
        config = load_config(root / "embedmill.toml")
        state = State(root / "state", fence=1)
        model = model_path(config.model.name)
        space = describe_space(model, chunker="", normaliser="")
        folder = state.work(RUN) / "texts"
        texts = pq.read_table(sys.argv[1], columns=["text"])["text"]
        lengths = Tokens(model, space.max_tokens).ids(texts.to_pylist()).lengths
        _write_plan(folder, texts, lengths, config.model.shard_tokens)
        spec = EncoderSpec(
            config.model.backend, model, config.model_cache / space.model_id, space.max_tokens, space.dim
        )
        began = Began(folder.parent / "attempts")
        began.start()
        named = {"run_id": RUN, "space_id": space.space_id}
        if sys.argv[3] == "alone":
            process = EncoderProcess(replace(spec, threads=os.cpu_count() or 1))
            shards = embed_alone(state, process, **named, before_commit=lambda: None)
        else:
            shards = embed(config, state, ready(config, state, spec), **named, before_commit=lambda: None)
        texts_done, encoding = 0, 0.0
        for shard in shards:
            texts_done += shard.texts
            encoding += (shard.timing["ended"] - shard.timing["began"]) / 1e9
        seconds = time.perf_counter() - began.at
        assert texts_done == len(texts) == state.count("vectors"), "a text has no vector"
    print(json.dumps({"seconds": seconds, "texts": texts_done, "encoding": encoding}))


def _write_plan(folder: StatePath, texts: pa.ChunkedArray, lengths: object, shard_tokens: int) -> None:
    table = pa.table(
        {
            "team_id": [TEAM] * len(texts),
            "content_hash": [f"{n:016x}" for n in range(len(texts))],
            "text": texts,
            "tokens": pa.array(lengths, pa.int32()),
        }
    )
    shards = math.ceil(pc.sum(table["tokens"]).as_py() / shard_tokens)
    shard = pa.array(np.random.default_rng(0).integers(shards, size=len(texts)))
    begin_staging(folder)
    ordered = table.append_column("shard", shard.cast(pa.string())).sort_by("shard").combine_chunks()
    commit_staged(folder, write_staged(ordered.to_batches(), folder, ordered.schema, by="shard"))


class Began(threading.Thread):
    """Notes in ``at`` when the first shard was begun: what encodes writes its diary then."""

    def __init__(self, diary: StatePath) -> None:
        super().__init__(daemon=True)
        self._diary = diary
        self.at = 0.0

    def run(self) -> None:
        """Look a hundred times a second."""
        while not (self._diary.is_dir() and any(self._diary.iterdir())):
            time.sleep(0.01)
        self.at = time.perf_counter()


if __name__ == "__main__":
    main()
