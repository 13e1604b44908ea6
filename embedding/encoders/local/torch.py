"""The reference encoder: sentence-transformers on CPU or CUDA, whichever is there."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, StaticEmbedding
from transformers.utils import logging as transformers_logging

from embedding.encoders.local import unpadded
from embedding.encoders.local.batching import BATCH_TOKENS, token_batches
from embedding.encoders.spec import EncoderSpec
from embedding.models.prompts import Purpose
from embedding.tokens.token_ids import TokenIds
from embedding.tokens.tokenizer import Tokens

log = logging.getLogger(__name__)

transformers_logging.disable_progress_bar()  # "Loading weights" bars would land in every actor's log

# Tokens of a batch on CUDA where the configuration names none: with few a GPU waits for Python, and where its memory
# does not do they are halved.
CUDA_BATCH_TOKENS = 65_536
_TYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}


def precisions() -> tuple[str, ...]:
    """What to try here, the fastest first. float32 is the reference itself.

    On CUDA f16 comes before bf16, which is eight times as coarse and there for models whose values f16 cannot hold.
    """
    if torch.cuda.is_available():
        return ("f16", "bf16", "f32") if torch.cuda.is_bf16_supported() else ("f16", "f32")
    able = torch.cpu.get_capabilities()
    return ("bf16", "f32") if able.get("avx512_bf16") or able.get("amx_bf16") else ("f32",)


def _opened(spec: EncoderSpec, device: str) -> SentenceTransformer:
    return SentenceTransformer(
        str(spec.model),
        device=device,
        local_files_only=True,
        truncate_dim=spec.dim,  # else it is the folder's own
        # How attention is computed is the architecture's choice: not all of them know "sdpa", which is first.
        model_kwargs={"dtype": _TYPES[spec.precision]},
    ).eval()


def published(
    spec: EncoderSpec, purposes: Sequence[Purpose], texts: Sequence[str]
) -> dict[Purpose, npt.NDArray[np.float32]]:
    """What sentence-transformers gives for each purpose by its own ways: its tokenizer's settings, padding, prompts.

    In float32, of shape (texts, ``spec.dim``); the model is let go afterwards.
    """
    model = _opened(replace(spec, precision="f32"), "cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(model[0], StaticEmbedding):
        model[0].tokenizer.enable_truncation(spec.max_tokens)  # of itself it takes a text of any length
    else:
        model.max_seq_length = spec.max_tokens
    ways = {
        "document": (model.encode_document, spec.prompts.document),
        "query": (model.encode_query, spec.prompts.query),
    }
    found = {}
    for purpose in purposes:
        encode, prompt = ways[purpose]
        vectors = encode(list(texts), prompt=prompt, batch_size=8, show_progress_bar=False)
        found[purpose] = np.asarray(vectors, np.float32)
    return found


def _in_float32(module: torch.nn.Module, given: Any, found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "sentence_embedding": found["sentence_embedding"].float()}


def finish_in_float32(model: SentenceTransformer) -> None:
    """Have what follows the pooling compute in float32: in bf16 a vector would be up to 0.4 % too long."""
    pooled = False
    for module in cast(Iterable[torch.nn.Module], model):
        if pooled:
            module.float()
        elif isinstance(module, Pooling):
            module.register_forward_hook(_in_float32)
            pooled = True


class TorchEncoder:
    """Runs the model folder as sentence-transformers defines it: its own layers, pooling and normalisation.

    Texts lie end to end, without padding, where ``unpadded`` knows the model's architecture: ``layout`` is its kernel's
    name, or "padded". ``multiplied`` is how many tokens were multiplied, padding included.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.name = f"torch {spec.precision}"
        self.multiplied = 0
        torch.set_num_threads(spec.threads)
        self._model = _opened(spec, self.device)
        if self.device == "cuda":
            finish_in_float32(self._model)
        self._static = isinstance(self._model[0], StaticEmbedding)
        self._end_to_end = unpadded.use(self._model)
        self.layout = self._end_to_end.kernel if self._end_to_end else "padded"
        self.dim = int(self._model.get_embedding_dimension() or 0)
        self._tokens = Tokens(spec.model, spec.max_tokens, spec.purpose, spec.prompts)
        self._batch_tokens = spec.batch_tokens or (CUDA_BATCH_TOKENS if self.device == "cuda" else BATCH_TOKENS)
        self._copies = torch.cuda.Stream() if self.device == "cuda" else None  # type: ignore[no-untyped-call]

    def encode(self, texts: Sequence[str], tokens: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """See Encoder.encode."""
        return self.encode_ids(self._tokens.ids(texts))

    def close(self) -> None:
        """See Encoder.close. Its memory is the object's."""

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
        # Vectors stay on the device until the last batch: a copy in between would make the device wait.
        found = torch.empty((len(ids), self.dim), dtype=torch.float32, device=self.device)
        for rows in token_batches(ids.lengths, self._batch_tokens):
            vectors = self._model(self._features(ids, rows))["sentence_embedding"]
            found[self._load({"rows": rows})["rows"]] = vectors[:, : self.dim].float()
        if self._copies is None:
            return cast(npt.NDArray[np.float32], found.numpy())
        out = torch.empty_like(found, device="cpu", pin_memory=True)  # else the driver copies it once more
        return cast(npt.NDArray[np.float32], out.copy_(found).numpy())

    def _features(self, ids: TokenIds, rows: npt.NDArray[np.intp]) -> dict[str, Any]:
        """Texts as the model's first module takes them: end to end, or padded."""
        if self._end_to_end is not None:
            arrays, beside = unpadded.lay(ids, rows, self._end_to_end.first_position)
            self.multiplied += arrays["input_ids"].size
            return unpadded.features(self._load(arrays), beside)
        filled, mask = ids.padded(rows)
        if not self._static:
            self.multiplied += filled.size
            return dict(self._load({"input_ids": filled, "attention_mask": mask}))
        lengths = ids.lengths[rows].astype(np.int64)
        self.multiplied += int(lengths.sum())
        return dict(self._load({"input_ids": filled[mask == 1], "offsets": np.cumsum(lengths) - lengths}))

    def _load(self, arrays: Mapping[str, npt.NDArray[Any]]) -> dict[str, torch.Tensor]:
        """A batch on the device; on CUDA it is copied while the batch before it is computed."""
        batch = {name: torch.from_numpy(values) for name, values in arrays.items()}
        if self._copies is None:
            return batch
        with torch.cuda.stream(self._copies):
            moved = {name: value.pin_memory().to(self.device, non_blocking=True) for name, value in batch.items()}
        computing = torch.cuda.current_stream()
        computing.wait_stream(self._copies)
        for value in moved.values():
            value.record_stream(computing)
        return moved
