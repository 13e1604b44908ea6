"""The contract of an encoder, in one screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedding.tokens.token_ids import TokenIds


class Encoder(Protocol):
    """Turns texts into vectors of one space. Loaded once in a process and then reused.

    ``device`` is where it computes, ``dim`` the width of a vector, ``name`` what logs and reports call it.
    """

    name: str
    device: str
    dim: int

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return a float32 matrix, shape (len(texts), dim), row i for text i.

        ``tokens`` holds each text's length in the model's tokens, special tokens included: what batches are made by.
        """
        ...

    def close(self) -> None:
        """Let go of connections and memory; the encoder is not used again."""
        ...


class IdEncoder(Encoder, Protocol):
    """An encoder of this machine, whose texts may be cut into token ids elsewhere."""

    def encode_ids(self, ids: TokenIds) -> npt.NDArray[np.float32]:
        """Return a float32 matrix, shape (len(ids), dim), row i for text i."""
        ...
