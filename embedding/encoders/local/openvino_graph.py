"""The graph that OpenVINO runs: a model folder, pooling and normalisation inside, converted once and kept.

Two kinds, told apart by their inputs, all int64. One takes a text a row: token ids and segments of shape (rows, width),
a segment being 1 where the text lies and 0 elsewhere. The other takes several texts a row as ``Packing.lay`` makes
them, with positions and, of shape (texts,), the numbers of the segments whose vectors it returns from each row. Both
return float32 of shape (rows x texts, dim).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from embedding.encoders.local.compat import openvino as ov
from embedding.encoders.local.packing import first_position

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

__all__ = ["INPUTS", "converted", "ov"]  # ov from here, so that no module imports it past ``compat``

INPUTS = ("input_ids", "segments", "positions", "slots")
_FILE = "graph.xml"
_VERSION = "2"  # change it with what is made here
# What attention adds to the score of a token that is not to be seen: its weight is then 0 in any precision.
_UNSEEN = -10_000.0


def converted(model: Path, cache: Path) -> Path:
    """The graph of a model folder, converted on first use into ``cache``, which belongs to these weights alone.

    Safe to race: it appears whole or not at all.
    """
    folder = cache / f"openvino-{version('openvino')}-{_VERSION}"
    if not (folder / _FILE).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=cache, prefix=".making-"))
        try:
            ov.save_model(_convert(model), made / _FILE, compress_to_fp16=False)
            os.rename(made, folder)
        except OSError:
            if not (folder / _FILE).is_file():  # another process was first
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return folder / _FILE


def _convert(model: Path) -> Any:
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    whole = SentenceTransformer(
        str(model),
        device="cpu",
        local_files_only=True,
        model_kwargs={"attn_implementation": "eager", "dtype": torch.float32},
    )
    first = _first_position(whole)
    static = isinstance(whole[0], StaticEmbedding)
    module = _averaged(whole) if static else _alone(whole) if first is None else _packed(whole, first)
    segments = torch.ones((2, 8), dtype=torch.int64)
    segments[1, 5:] = 0
    values = torch.ones_like(segments), segments, torch.arange(8).expand(2, 8), torch.arange(1, 4)
    example = dict(zip(INPUTS[:2] if first is None else INPUTS, values, strict=False))
    with torch.no_grad(), warnings.catch_warnings():
        # Tracing warns of every condition on a value; the gate is what tells whether the graph is right.
        warnings.simplefilter("ignore")
        graph = ov.convert_model(
            module.eval(),
            example_input=example,
            input=[(name, [-1] * value.ndim, np.int64) for name, value in example.items()],
        )
    for port in graph.inputs:  # tracing adds names of its own
        port.set_names({name for name in example if name in port.names})
    return graph


def _first_position(model: SentenceTransformer) -> int | None:
    """What the first token's position is to a model whose texts can be packed; None where they cannot.

    They can where a token knows its place and its neighbours by what the model is given alone, and the vector is made
    of a text's own tokens in a way that ``_packed`` knows.
    """
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

    inner, *rest = cast(Iterable[Any], model)
    if not rest or not isinstance(rest[0], Pooling) or rest[0].pooling_mode not in ("mean", "cls"):
        return None
    if not all(isinstance(module, Dense | Normalize) for module in rest[1:]):
        return None
    config = inner.auto_model.config
    return first_position(config) if config.model_type in ("bert", "roberta", "xlm-roberta") else None


def _alone(model: SentenceTransformer) -> Any:
    import torch

    class Alone(torch.nn.Module):
        """A text a row."""

        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
            return self.model({"input_ids": input_ids, "attention_mask": segments})["sentence_embedding"]

    return Alone()


def _averaged(model: SentenceTransformer) -> Any:
    import torch

    class Averaged(torch.nn.Module):
        """A text a row, whose vector is the mean of its tokens' static vectors."""

        def __init__(self) -> None:
            super().__init__()
            static, *rest = cast(Iterable[Any], model)
            self.weight = torch.nn.Parameter(static.embedding.weight.float(), requires_grad=False)
            self.rest = torch.nn.ModuleList(rest)

        def forward(self, input_ids: torch.Tensor, segments: torch.Tensor) -> torch.Tensor:
            shares = segments.to(self.weight.dtype)
            means = torch.bmm(shares[:, None, :], self.weight[input_ids])[:, 0] / shares.sum(-1, keepdim=True).clamp(1)
            features = {"sentence_embedding": means}
            for module in self.rest:
                features = module(features)
            return features["sentence_embedding"]

    return Averaged()


def _packed(model: SentenceTransformer, first: int) -> Any:
    import torch

    class Packed(torch.nn.Module):
        """Several texts a row."""

        def __init__(self) -> None:
            super().__init__()
            inner, pooling, *rest = cast(Iterable[Any], model)
            self.inner, self.of_first = inner.auto_model, pooling.pooling_mode == "cls"
            self.rest = torch.nn.ModuleList(rest)

        def forward(
            self, input_ids: torch.Tensor, segments: torch.Tensor, positions: torch.Tensor, slots: torch.Tensor
        ) -> torch.Tensor:
            together = segments[:, None, :, None] == segments[:, None, None, :]
            states = self.inner(
                input_ids=input_ids,
                attention_mask=torch.where(together, 0.0, _UNSEEN),
                position_ids=positions + first,
            ).last_hidden_state
            pooled = segments[:, None, :] == slots[None, :, None]
            if self.of_first:
                pooled = pooled & (positions == 0)[:, None, :]
            shares = pooled.to(states.dtype)
            means = torch.bmm(shares, states) / shares.sum(-1, keepdim=True).clamp(min=1.0)
            features = {"sentence_embedding": means.reshape(-1, means.shape[-1])}
            for module in self.rest:
                features = module(features)
            return features["sentence_embedding"]

    return Packed()
