"""The reference encoder: sentence-transformers on CPU or CUDA, whichever is there."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from transformers.utils import logging as transformers_logging

from embedding.encoders.local.batching import token_batches
from embedding.encoders.spec import EncoderSpec
from embedding.tokens.token_ids import TokenIds
from embedding.tokens.tokenizer import Tokens

log = logging.getLogger(__name__)

transformers_logging.disable_progress_bar()  # "Loading weights" bars would land in every actor's log

_TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def precisions() -> tuple[str, ...]:
    """What to try here, the fastest first. float32 is the reference itself."""
    if torch.cuda.is_available():
        return ("bf16", "f16", "f32") if torch.cuda.is_bf16_supported() else ("f16", "f32")
    able = torch.cpu.get_capabilities()
    return ("bf16", "f32") if able.get("avx512_bf16") or able.get("amx_bf16") else ("f32",)


class TorchEncoder:
    """Runs the model folder as sentence-transformers defines it: its own layers, pooling and normalisation."""

    def __init__(self, spec: EncoderSpec) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name = f"torch {spec.precision}"
        torch.set_num_threads(spec.threads)
        self._model = SentenceTransformer(
            str(spec.model),
            device=self.device,
            local_files_only=True,
            # How attention is computed is the architecture's choice: not all of them know "sdpa", which is first.
            model_kwargs={"dtype": _TYPES[spec.precision]},
        ).eval()
        # What the folder truncates vectors to is in it.
        self.dim = int(self._model.get_embedding_dimension() or 0)
        self._tokens = Tokens(spec.model, spec.max_tokens, spec.purpose)
        self._batch_tokens = spec.batch_tokens
        self._copies = torch.cuda.Stream() if self.device == "cuda" else None  # type: ignore[no-untyped-call]

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode."""
        return self.encode_ids(self._tokens.ids(texts))

    def close(self) -> None:
        """See Encoder.close. Its memory is the object's."""

    def published(self, texts: Sequence[str], max_tokens: int) -> npt.NDArray[np.float32]:
        """What sentence-transformers gives for documents by its own ways: its tokenizer's settings, padding, prompt.

        Float32 of shape (texts, dim).
        """
        self._model.max_seq_length = max_tokens
        found = self._model.encode_document(list(texts), batch_size=8, show_progress_bar=False)
        return np.asarray(found, np.float32)

    def encode_ids(self, ids: TokenIds) -> npt.NDArray[np.float32]:
        """See IdEncoder.encode_ids. Where the device's memory does not do, batches are halved and stay so."""
        while True:
            try:
                return self._encode(ids)
            except torch.OutOfMemoryError:
                if self._batch_tokens <= int(ids.lengths.max()):
                    raise  # a single text is too much
                self._batch_tokens //= 2
                log.warning("out of device memory: batches of %d tokens from now on", self._batch_tokens)
            torch.cuda.empty_cache()  # here and not above: the exception holds on to the batch

    @torch.inference_mode()
    def _encode(self, ids: TokenIds) -> npt.NDArray[np.float32]:
        batches = list(token_batches(ids.lengths, self._batch_tokens))
        # Vectors stay on the device until the last batch: a copy in between would make the device wait.
        found = [self._model(self._load(*ids.padded(rows)))["sentence_embedding"].float() for rows in batches]
        out = np.empty((len(ids), self.dim), dtype=np.float32)
        if batches:
            out[np.concatenate(batches)] = torch.cat(found)[:, : self.dim].cpu().numpy()
        return out

    def _load(self, ids: npt.NDArray[np.int64], mask: npt.NDArray[np.int64]) -> dict[str, torch.Tensor]:
        """A batch on the device; on CUDA it is copied while the batch before it is computed."""
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
        if self._copies is None:
            return batch
        with torch.cuda.stream(self._copies):
            moved = {name: value.pin_memory().to(self.device, non_blocking=True) for name, value in batch.items()}
        computing = torch.cuda.current_stream()
        computing.wait_stream(self._copies)
        for value in moved.values():
            value.record_stream(computing)
        return moved
