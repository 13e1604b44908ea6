"""WordLlama: a vector is the average of its tokens' static vectors, worked out by the package itself.

No layer runs, so that a text costs next to nothing. Nothing is ever cut off: an average takes a text of any length.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.metadata import version
from types import ModuleType

import numpy as np
import numpy.typing as npt

from embedding.encoders.local.batching import BATCH_TOKENS, token_batches
from embedding.encoders.spec import EncoderSpec
from embedding.tokens.thread_environment import environment


def _package() -> ModuleType:
    """Import it. That sets up logging for the whole program, except where a handler is there already."""
    root, placeholder = logging.getLogger(), logging.NullHandler()
    root.addHandler(placeholder)
    try:
        import wordllama
    finally:
        root.removeHandler(placeholder)
    return wordllama


class WordLlamaEncoder:
    """Runs the weights and the tokenizer that lie in the package."""

    device = "cpu"

    def __init__(self, spec: EncoderSpec) -> None:
        self.name = f"wordllama {version('wordllama')}"
        # It looks for its tokenizer in a folder of another name than it lies in, and would then fetch it: the "cache"
        # is where it looks next.
        self._model = _package().WordLlama.load(dim=spec.dim, cache_dir=spec.model, disable_download=True)
        with environment("RAYON_NUM_THREADS", spec.threads):
            self._model.tokenize(["two texts", "start the tokenizer's threads"])
        self.dim = spec.dim
        self._batch_tokens = spec.batch_tokens or BATCH_TOKENS

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode. A text without a token has a row of NaN."""
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        for rows in token_batches(tokens, self._batch_tokens):
            with np.errstate(invalid="ignore"):
                out[rows] = self._model.embed([texts[row] for row in rows], norm=True, batch_size=len(rows))
        return out

    def close(self) -> None:
        """See Encoder.close. Its memory is the object's."""
