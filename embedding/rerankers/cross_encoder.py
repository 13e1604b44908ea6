"""A CrossEncoder of a local folder, as sentence-transformers runs it. Nothing is ever fetched."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from embedding.errors import ConfigError
from embedding.rerankers.base import checked


class CrossEncoderReranker:
    """Runs a folder that sentence-transformers or transformers saved, with one score a pair."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError for a folder that is not such a model."""
        self.name = f"cross-encoder {path.name}"
        if not (path / "config.json").is_file():
            raise ConfigError(f"search.rerank.path: {path} has no config.json; give the folder of a CrossEncoder")
        from sentence_transformers import CrossEncoder
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
        try:
            self._model = CrossEncoder(str(path), local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise ConfigError(f"search.rerank.path: {path} cannot be loaded ({type(error).__name__})") from error
        if (labels := self._model.num_labels) != 1:
            raise ConfigError(f"search.rerank.path: {path} has {labels} labels; give a model with one score a pair")

    def scores(self, query: str, texts: Sequence[str], seconds: float | None = None) -> npt.NDArray[np.float64]:
        """See Reranker.scores."""
        found = self._model.predict([(query, text) for text in texts], show_progress_bar=False)
        return checked(np.asarray(found, np.float64), len(texts))

    def close(self) -> None:
        """See Reranker.close. Its memory is the model's."""
