"""The one-screen contract of an encoder, and how one is opened by the name of its backend."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from embedding.errors import ConfigError


class Encoder(Protocol):
    """Turns texts into vectors of one space. Loaded once in a process and then reused."""

    device: str

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """Return a float32 matrix, shape (len(texts), dim), row i for text i.

        ``tokens`` holds each text's length in the model's tokens, special tokens included.
        """
        ...


def open_encoder(backend: str, model: Path, *, threads: int, batch_tokens: int) -> Encoder:
    """Load an encoder. ``threads`` is the CPU threads it may use; ``batch_tokens`` bounds rows x longest row.

    Raises ConfigError for a backend that this version does not have.
    """
    if backend in ("auto", "torch"):
        from embedding.encoders.torch import TorchEncoder

        return TorchEncoder(model, threads=threads, batch_tokens=batch_tokens)
    if backend == "hash":
        from embedding.encoders.hashed import HashEncoder

        return HashEncoder()
    raise ConfigError(f'model.backend: {backend!r} is not in this version; use "auto" or "torch"')
