"""An encoder with no model: a vector is made from its text's hash alone.

For tests of everything around the encoder and for measuring the pipeline without it. Equal texts get equal unit
vectors; nothing about meaning is kept.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

HASH_DIM = 384


class HashEncoder:
    """Deterministic unit vectors of as many dimensions as the model has in whose place it stands."""

    name = "hash"
    device = "cpu"

    def __init__(self, dim: int = HASH_DIM) -> None:
        self.dim = dim

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode; ``tokens`` is not used."""
        out = np.empty((len(texts), self.dim), dtype=np.float32)
        for row, text in enumerate(texts):
            seed = hashlib.shake_256(text.encode()).digest(self.dim * 2)
            out[row] = np.frombuffer(seed, dtype="<u2").astype(np.float32) - 32767.5
        return out / np.linalg.norm(out, axis=1, keepdims=True)

    def close(self) -> None:
        """See Encoder.close. Its memory is the object's."""
