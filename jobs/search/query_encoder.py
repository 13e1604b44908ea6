"""Queries as vectors: which encoder a space needs, opened once for many queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Self

import numpy as np
import numpy.typing as npt

from embedding.chunking import Chunker
from embedding.encoders.choose import open_encoder
from embedding.errors import ConfigError
from embedding.models.packaged import tokenizer_file
from jobs.pipeline import Pipeline
from jobs.registry.use import refuse_tainted

if TYPE_CHECKING:
    from embedding.encoders.base import Encoder

Counts = npt.NDArray[np.integer]


class QueryEncoder:
    """Encodes queries with the model of a pipeline's configuration; loads it on first use.

    ``model`` is its name. ``longest`` is where it cuts a text off, in tokens; None where a service does, or does not.
    ``at_once`` calls gain by running side by side: a service's, while those of this machine share its cores.
    """

    def __init__(self, pipeline: Pipeline, seconds: float | None = None) -> None:
        """A service is asked for the texts of one call for so many ``seconds``; None: for as long as it may take."""
        remote = pipeline.config.model.remote
        self.model = pipeline.config.model.name
        self.longest = None if remote else pipeline.space.max_tokens
        self.at_once = remote.concurrency if remote else 1
        self._pipeline, self._seconds = pipeline, seconds
        self._encoder: Encoder | None = None
        self._chunker: Chunker | None = None

    def encode(self, texts: Sequence[str], tokens: Counts | None = None) -> npt.NDArray[np.float32]:
        """Vectors of queries, float32 of shape (len(texts), dim); a row of NaN for one that cannot be encoded.

        ``tokens`` is what ``count`` says of them, where it was asked.
        """
        tokens = self.count(texts) if tokens is None else tokens
        encoder, _ = self._opened()
        return encoder.encode(texts, tokens)

    def count(self, texts: Sequence[str]) -> Counts:
        """Lengths of queries in the model's tokens, int64 of shape (len(texts),)."""
        _, chunker = self._opened()
        return np.array([sum(span.tokens for span in spans) or 1 for spans in chunker.split_batch(texts)], np.int64)

    def check_allowed(self) -> None:
        """Raise ConfigError where the model has by now seen what was purged longer ago than it may be used."""
        refuse_tainted(self._pipeline.config)

    @property
    def max_tokens(self) -> int:
        """So many tokens of a query are read; what follows is cut off."""
        return self._pipeline.limits.max_tokens

    @property
    def normalised(self) -> bool:
        """Whether all vectors of the space have length 1."""
        return self._pipeline.space.normalised

    def _opened(self) -> tuple[Encoder, Chunker]:
        if self._encoder is None or self._chunker is None:
            with self._pipeline.progress.phase("loading the model"):
                self._encoder = open_encoder(replace(self._pipeline.encoder("query"), seconds=self._seconds))
                self._chunker = Chunker(tokenizer_file(self._pipeline.model), self._pipeline.limits)
        return self._encoder, self._chunker

    def close(self) -> None:
        """Let go of the encoder."""
        if self._encoder is not None:
            self._encoder.close()
            self._encoder = None

    def __enter__(self) -> Self:
        """Nothing is opened before the first query."""
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def encoder_of_space(pipeline: Pipeline, space_id: str, seconds: float | None = None) -> QueryEncoder:
    """The encoder of a space that need not be the configured one: the same model in another cut, or an earlier model.

    ``seconds`` as of QueryEncoder.
    Raises ConfigError, in one line, where the configuration cannot give it.
    """
    if space_id == pipeline.space_id:
        return QueryEncoder(pipeline, seconds)
    noted = pipeline.state.spaces().get(space_id)
    if noted is None:
        raise ConfigError(f"space {space_id} was not made by this state, and nothing says which model encodes for it")
    model = noted["model"]
    try:
        same = model == pipeline.config.model.name
        other = pipeline if same else Pipeline(pipeline.config.with_model(model), pipeline.progress)
    except ConfigError as error:
        raise ConfigError(f"space {space_id} is of model {model}, which is not here: {error}") from None
    # A state that an earlier release wrote has the model's name alone.
    if noted.get("encoder", other.space.encoder_id) != other.space.encoder_id:
        raise ConfigError(
            f"space {space_id} is of model {model} with other weights, prompts, backend or settings than [model] gives"
        )
    return QueryEncoder(other, seconds)
