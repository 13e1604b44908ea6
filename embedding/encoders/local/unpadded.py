"""Texts end to end without padding, for transformers whose attention can be kept within each text.

Transformers takes an attention function by name, and sentence-transformers pools texts that lie end to end. Both learn
where a text begins by the names that FlashAttention made usual, ``cu_seq_lens_q`` and ``max_length_q``. The function
that is registered here asks a kernel: on CUDA in half precision torch's own for texts of any length, elsewhere one that
takes texts of equal length together.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from embedding.encoders.local.packing import first_position
from embedding.tokens.token_ids import TokenIds

log = logging.getLogger(__name__)

# Those that tests compare with the padded way. The others that are served add a bias to their scores, by the distance
# of two tokens, or have an attention of their own: DeBERTa, MPNet, RemBERT, T5.
ARCHITECTURES = (
    "albert",
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "ernie",
    "eurobert",
    "gemma3_text",
    "gte",
    "llama",
    "mistral",
    "modernbert",
    "nomic_bert",
    "qwen2",
    "qwen3",
    "roberta",
    "xlm-roberta",
)
# What the transformer hands on to its attention, beside what it takes itself.
_FOR_ATTENTION = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k", "equal_lengths"}

Runs = Sequence[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Attended:
    """What a kernel computes: tensors of shape (tokens, heads, width of a head), and where the texts lie in them.

    ``window`` is how many tokens a token sees to its left and to its right, -1 for all. ``starts`` (int32, texts + 1)
    is on the device, ``equal`` is the same as runs of texts of equal length: (texts, length).
    """

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    scale: float
    window: tuple[int, int]
    starts: torch.Tensor
    longest: int
    equal: Runs


@dataclass(frozen=True, slots=True)
class EndToEnd:
    """How a model takes texts that lie end to end: the position of a text's first token, and the kernel's name."""

    first_position: int
    kernel: str


def use(model: SentenceTransformer) -> EndToEnd | None:
    """Have a model compute its attention for texts that lie end to end; None for a model that cannot."""
    if (why := _refused(model)) is not None:
        log.debug("texts are padded: %s", why)
        return None
    first = cast(Any, model[0])
    inner = first.auto_model
    if first.model_forward_params is not None:  # what it may take; None is everything
        first.model_forward_params |= _FOR_ATTENTION
    kernel = "any_length" if _has_any_length(inner) else "by_length"
    AttentionInterface.register(f"end_to_end_{kernel}", partial(_attention, _KERNELS[kernel]))
    inner.set_attn_implementation(f"end_to_end_{kernel}")
    return EndToEnd(first_position(inner.config), kernel)


def _refused(model: SentenceTransformer) -> str | None:
    """Why texts of a model may not lie end to end; None where they may."""
    first, *rest = cast(Iterable[Any], model)
    if not isinstance(first, Transformer):
        return f"the model begins with {type(first).__name__}"
    if (kind := first.auto_model.config.model_type) not in ARCHITECTURES:
        return f"the attention of {kind} cannot be kept within a text"
    if not rest or not isinstance(rest[0], Pooling) or not all(isinstance(one, Dense | Normalize) for one in rest[1:]):
        return "the model has a part that needs the texts apart"
    return None


def lay(ids: TokenIds, texts: npt.NDArray[np.intp], first: int) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
    """Texts end to end: arrays for the device, and what stays beside them.

    ``input_ids``, ``position_ids`` from ``first`` on and ``seq_idx``, the number of the text, are int64 of shape
    (1, tokens); ``cu_seq_lens_q``, int32 of shape (texts + 1,), is where each text begins.
    """
    lengths = ids.lengths[texts]
    starts = np.concatenate(([0], np.cumsum(lengths)))
    within = np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)
    arrays = {
        "input_ids": ids.flat[np.repeat(ids.offsets[texts], lengths) + within].astype(np.int64)[None],
        "position_ids": (within + first)[None],
        "seq_idx": np.repeat(np.arange(len(texts)), lengths)[None],
        "cu_seq_lens_q": starts.astype(np.int32),
    }
    return arrays, {"max_length_q": int(lengths.max(initial=0)), "equal_lengths": runs(lengths)}


def features(arrays: Mapping[str, torch.Tensor], beside: Mapping[str, Any]) -> dict[str, Any]:
    """What the model takes, of what ``lay`` returned."""
    twice = {"cu_seq_lens_k": arrays["cu_seq_lens_q"], "max_length_k": beside["max_length_q"]}
    return {**arrays, **beside, **twice}


def runs(lengths: npt.NDArray[np.integer]) -> Runs:
    """Runs of equal ``lengths`` as (texts, length): few where texts are sorted by length."""
    borders = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]
    return [(end - start, int(lengths[start])) for start, end in zip(borders, borders[1:], strict=False) if end > start]


def _attention(
    kernel: Callable[[Attended], torch.Tensor],
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    _: torch.Tensor | None,
    **said: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls: (1, heads, tokens, width) to (1, tokens, heads, width)."""
    sliding, scale, causal = (said.get(name) for name in ("sliding_window", "scaling", "is_causal"))
    seen = -1 if sliding is None else sliding - 1  # it counts the token itself
    if causal is None:
        causal = getattr(module, "is_causal", True)
    query, key, value = (part.squeeze(0).transpose(0, 1) for part in (query, key, value))
    attended = Attended(
        query,
        key,
        value,
        scale=query.shape[-1] ** -0.5 if scale is None else scale,
        window=(seen, 0 if causal else seen),
        starts=said["cu_seq_lens_q"],
        longest=said["max_length_q"],
        equal=said["equal_lengths"],
    )
    return kernel(attended).unsqueeze(0), None


# -- kernels -----------------------------------------------------------------------------------------------------------


def by_length(given: Attended) -> torch.Tensor:
    """Any device and precision: a call for the texts of each length, which needs no mask but a window's."""
    out = torch.empty_like(given.query)
    grouped = given.query.shape[1] != given.key.shape[1]
    start = 0
    for texts, length in given.equal:
        end = start + texts * length
        query, key, value = (
            part[start:end].view(texts, length, *part.shape[1:]).transpose(1, 2)
            for part in (given.query, given.key, given.value)
        )
        mask = _window_mask(length, given.window, query.device)
        found = scaled_dot_product_attention(query, key, value, mask, scale=given.scale, enable_gqa=grouped)
        out[start:end] = found.transpose(1, 2).flatten(0, 1)
        start = end
    return out


def _window_mask(length: int, window: tuple[int, int], device: torch.device) -> torch.Tensor | None:
    """True where a token is seen, of shape (length, length); None where all see all."""
    left, right = (length if seen < 0 else seen for seen in window)
    if min(left, right) >= length - 1:
        return None
    places = torch.arange(length, device=device)
    further = places[None, :] - places[:, None]
    return (further <= right) & (further >= -left)


def any_length(given: Attended) -> torch.Tensor:
    """FlashAttention's kernel, which torch brings along for CUDA: one call for all texts, in half precision."""
    from torch.nn.attention.varlen import varlen_attn

    # Named where it is needed alone: older versions of the function do not know it.
    grouped: dict[str, Any] = {"enable_gqa": True} if given.query.shape[1] != given.key.shape[1] else {}
    found = varlen_attn(
        given.query,
        given.key,
        given.value,
        given.starts,
        given.starts,
        given.longest,
        given.longest,
        scale=given.scale,
        window_size=given.window,
        **grouped,
    )
    return cast(torch.Tensor, found)


_KERNELS: dict[str, Callable[[Attended], torch.Tensor]] = {"any_length": any_length, "by_length": by_length}


def _has_any_length(inner: Any) -> bool:
    """Whether ``any_length`` runs here for a transformer: asked by running it on three tokens of its kind.

    It does not before Ampere, in float32, for wide heads, or by a torch whose function has another signature: that of
    2.11 takes no heads that share keys.
    """
    config, parameter = inner.config, next(inner.parameters())
    heads = config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    query, key = (
        torch.ones((3, count, width), dtype=parameter.dtype, device=parameter.device)
        for count in (heads, getattr(config, "num_key_value_heads", None) or heads)
    )
    starts = torch.tensor([0, 1, 3], dtype=torch.int32, device=parameter.device)
    try:
        with torch.inference_mode():
            found = any_length(Attended(query, key, key, 1.0, (-1, -1), starts, 2, [(1, 1), (1, 2)]))
            return bool((found == 1).all())
    except (ImportError, NotImplementedError, RuntimeError, TypeError) as error:
        log.debug("texts of equal length are taken together: no kernel for any length (%s)", type(error).__name__)
        return False
