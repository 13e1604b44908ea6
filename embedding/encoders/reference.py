"""What the fidelity gate compares an encoder with: the vectors of sentence-transformers itself, for the gate's probes.

They are made by a load of their own, which is let go before an encoder is loaded: one model at a time is in memory, and
weights that a folder does not hold, which every load makes up anew, are found out.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from embedding.encoders.base import Encoder
from embedding.encoders.fidelity import Fidelity, judge, probes, worst
from embedding.encoders.spec import EncoderSpec
from embedding.models.prompts import Purpose, prompts_of


class Reference:
    """The vectors of one model's probes. ``key`` names what they depend on beside the model itself, for a cache."""

    def __init__(self, spec: EncoderSpec) -> None:
        self._spec = spec
        self.prompts = prompts_of(spec.model, spec.prompts)
        query, document = self.prompts
        self.purposes: tuple[Purpose, ...] = ("document",) if query == document else ("document", "query")
        self.texts = probes(spec.max_tokens)
        self._vectors: dict[Purpose, npt.NDArray[np.float32]] = {}

    @property
    def key(self) -> list[str]:
        """Empty for a model of usual length without prompts."""
        return [*(self.prompts if any(self.prompts) else ()), *(["long"] if self.texts != probes() else ())]

    def vectors(self, purpose: Purpose) -> npt.NDArray[np.float32]:
        """What sentence-transformers gives for the probes: float32 of shape (probes, dim)."""
        if not self._vectors:
            from embedding.encoders.local.torch import published

            self._vectors = published(self._spec, self.purposes, self.texts)
        return self._vectors[purpose]

    def compare(self, opened: Callable[[Purpose], Encoder]) -> Fidelity:
        """The worst of what the encoders that are ``opened`` for each of ``purposes`` give."""
        return worst([judge(opened(purpose), self.texts, self.vectors(purpose)) for purpose in self.purposes])
