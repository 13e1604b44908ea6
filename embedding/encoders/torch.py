"""The reference encoder: sentence-transformers on CPU or CUDA, whichever is there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from embedding.batching import token_batches

transformers_logging.disable_progress_bar()  # "Loading weights" bars would land in every actor's log


class TorchEncoder:
    """Runs the model folder as sentence-transformers defines it: its own pooling, normalisation and prompts."""

    def __init__(self, model: Path, *, threads: int, batch_tokens: int) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        torch.set_num_threads(threads)
        self._model = SentenceTransformer(str(model), device=self.device, local_files_only=True)
        self._batch_tokens = batch_tokens

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode."""
        out = np.empty((len(texts), self._model.get_embedding_dimension() or 0), dtype=np.float32)
        for rows in token_batches(tokens, self._batch_tokens):
            batch = [texts[i] for i in rows]
            out[rows] = self._model.encode(batch, batch_size=len(batch), show_progress_bar=False, convert_to_numpy=True)
        return out
