"""The modules of a sentence-transformers folder: what matters of their configuration, how wide they make vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from embedding.errors import ConfigError

_POOLING = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")
_OLD_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}


def unsupported(what: str) -> ConfigError:
    """The error for a model that would give other vectors here, naming ``what`` of it."""
    return ConfigError(f"model.name: the model has what this version does not support: {what}")


def _pooling(said: Mapping[str, Any], dim: int) -> tuple[dict[str, Any], int]:
    width = int(said["embedding_dimension"] if "embedding_dimension" in said else said["word_embedding_dimension"])
    if width != dim:
        raise ValueError(f"pooling of {width} dimensions over states of {dim}")
    modes = said.get("pooling_mode")
    if modes is None:
        modes = [mode for name, mode in _OLD_POOLING.items() if said.get(name)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if unknown := [mode for mode in modes if mode not in _POOLING]:
        raise unsupported(f"pooling {unknown[0]!r}")
    return {"modes": modes, "include_prompt": bool(said.get("include_prompt", True))}, width * len(modes)


def _of_vectors(said: Mapping[str, Any]) -> None:
    for name in ("module_input_name", "module_output_name"):
        if said.get(name) not in (None, "sentence_embedding"):
            raise unsupported(f"a module over {said[name]!r}")


def _dense(said: Mapping[str, Any], dim: int) -> tuple[dict[str, Any], int]:
    _of_vectors(said)
    if int(said["in_features"]) != dim:
        raise ValueError(f"a Dense module of {said['in_features']} dimensions over vectors of {dim}")
    activation = str(said.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if not activation.startswith("torch."):
        raise unsupported(f"activation function {activation!r}")
    matters = {"bias": bool(said.get("bias", True)), "activation": activation.rsplit(".", 1)[-1]}
    if said.get("use_residual"):
        matters["use_residual"] = True
    return matters, int(said["out_features"])


def _layer_norm(said: Mapping[str, Any], dim: int) -> tuple[dict[str, Any], int]:
    if int(said["dimension"]) != dim:
        raise ValueError(f"a LayerNorm module of {said['dimension']} dimensions over vectors of {dim}")
    return {}, dim


def _normalize(said: Mapping[str, Any], dim: int) -> tuple[dict[str, Any], int]:
    _of_vectors(said)
    return {}, dim


def _as_it_is(said: Mapping[str, Any], dim: int) -> tuple[dict[str, Any], int]:
    return {}, dim


# By class: a module's configuration and the width before it, to what of it matters and the width behind it.
READERS: dict[str, Callable[[Mapping[str, Any], int], tuple[dict[str, Any], int]]] = {
    "Transformer": _as_it_is,
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
    "Dropout": _as_it_is,
    "StaticEmbedding": _as_it_is,
}
