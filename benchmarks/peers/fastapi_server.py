"""Queries as one would serve them first: sentence-transformers behind FastAPI. Argument: a port of 127.0.0.1.

The endpoint is a plain function, which FastAPI runs in its threads; one lock, for texts that are encoded side by side
on the same cores are slower than one after another.
"""

from __future__ import annotations

import sys
import threading

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from texts import THREADS, model, quiet

with quiet():
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(THREADS)
    encoder = SentenceTransformer(model(), device="cpu")

app = FastAPI()
one_at_a_time = threading.Lock()


class Asked(BaseModel):
    """A request as OpenAI's clients make it."""

    input: str | list[str]
    model: str = ""


@app.post("/v1/embeddings")
def embeddings(asked: Asked) -> dict[str, object]:
    """Vectors of texts."""
    texts = [asked.input] if isinstance(asked.input, str) else asked.input
    with one_at_a_time:
        vectors = encoder.encode(texts)
    data = [{"object": "embedding", "index": n, "embedding": vector.tolist()} for n, vector in enumerate(vectors)]
    return {"object": "list", "data": data, "model": asked.model}


@app.get("/readyz")
def ready() -> dict[str, str]:
    """It answers."""
    return {"status": "ok"}


uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), access_log=False, log_level="warning")
