"""An earlier answer of `evaluate --json`, read back to be compared with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedding.errors import ConfigError
from jobs.relevance.metrics import Floats

_NAMES = {"ndcg": "ndcg@10", "recall": "recall@10", "mrr": "mrr@10"}


class _Golden(BaseModel):
    digest: str


class _Column(BaseModel):
    ndcg: list[float | None] = Field(validation_alias=_NAMES["ndcg"])
    recall: list[float | None] = Field(validation_alias=_NAMES["recall"])
    mrr: list[float | None] = Field(validation_alias=_NAMES["mrr"])


class _PerQuery(BaseModel):
    ids: list[str]
    modes: dict[str, _Column]


class SavedAnswer(BaseModel):
    """The keys of the answer that a comparison needs; a later release may have more."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    index: str
    space_id: str
    golden: _Golden
    per_query: _PerQuery

    def columns(self, mode: str) -> Floats:
        """Values of each question in a mode, shape (questions, 3): nDCG, recall, MRR; NaN where it is in no figure."""
        found = self.per_query.modes[mode]
        return np.array([found.ndcg, found.recall, found.mrr], np.float64).T


def read_saved(file: Path, digest: str) -> SavedAnswer:
    """Read a file that holds an answer. ``digest`` is of the golden set that was asked now.

    Raises ConfigError for one that is no such answer, and for one of another golden set.
    """
    try:
        saved = SavedAnswer.model_validate_json(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"--against: {file}: {error.strerror}") from None
    except ValidationError:
        raise ConfigError(f"--against: {file} is no answer of `embedmill evaluate --json`; give one of them") from None
    if saved.golden.digest != digest:
        raise ConfigError(f"--against: {file} is of another golden set (or of other lines of it); evaluate it anew")
    lengths = {len(column) for mode in saved.per_query.modes.values() for column in (mode.ndcg, mode.recall, mode.mrr)}
    if lengths - {len(saved.per_query.ids)}:
        raise ConfigError(f"--against: {file} is damaged: its columns are of different lengths; evaluate it anew")
    return saved
