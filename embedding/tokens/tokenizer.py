"""Tokens: texts to token ids with the model's own tokenizer, without the encoder so that it may run elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from embedding.models.folder import is_static
from embedding.models.packaged import tokenizer_file
from embedding.models.prompts import PromptOverrides, Purpose, prompts_of
from embedding.models.tokenizer_json import unknown_token
from embedding.tokens.token_ids import TokenIds


class Tokens:
    """Cuts texts for one model folder, at most ``max_tokens`` a text: a chunk is never longer, a query may be.

    The prompt for the purpose, where there is one, stands before each text; None for no purpose puts none there.
    """

    def __init__(
        self,
        model: Path,
        max_tokens: int,
        purpose: Purpose | None = "document",
        prompts: PromptOverrides | None = None,
    ) -> None:
        file = tokenizer_file(model)
        self._tokenizer = Tokenizer.from_file(str(file))
        self._tokenizer.no_padding()  # the file's own settings may pad to one length
        self._tokenizer.enable_truncation(max_tokens)
        query, document = prompts_of(model, prompts) if purpose else ("", "")
        self._prompt = query if purpose == "query" else document
        self._unknown = unknown_token(file)
        self._markers = not is_static(model)
        self._around = int(self.ids([""]).lengths[0])  # tokens of every text: markers, the prompt's

    def ids(self, texts: Sequence[str]) -> TokenIds:
        """Token ids of texts, special tokens included."""
        whole = [self._prompt + text for text in texts] if self._prompt else list(texts)
        encoded = self._tokenizer.encode_batch_fast(whole, add_special_tokens=self._markers)
        return TokenIds.of(encoding.ids for encoding in encoded)

    def unreadable(self, ids: TokenIds) -> int:
        """How many texts are unknown to the tokenizer by more than half of their own tokens, or have none.

        The model takes them all for nearly the same text.
        """
        own = ids.lengths - self._around
        if self._unknown is None or not len(ids):
            return int((own <= 0).sum())
        before = np.concatenate(([0], np.cumsum(ids.flat == self._unknown)))
        unknown = before[ids.offsets[1:]] - before[ids.offsets[:-1]]
        return int((unknown * 2 > own).sum() + ((own <= 0) & (unknown == 0)).sum())
