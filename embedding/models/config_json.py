"""What of a transformer's config.json shapes its vectors, the same whichever version of transformers has saved it.

Reads no more than the file: asking transformers itself would cost every command the seconds of its import.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# What of config.json shapes no vector: who saved it, how it was trained, and what stands on top of it.
_IDLE = {
    "_name_or_path",
    "adapters",
    "architectures",
    "bos_token_id",
    "classifier_bias",
    "classifier_pooling",
    "chunk_size_feed_forward",
    "decoder_bias",
    "deterministic_flash_attn",
    "dtype",
    "eos_token_id",
    "finetuning_task",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "label2id",
    "language",
    "max_length",
    "name",
    "num_labels",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pretraining_tp",
    "problem_type",
    "reference_compile",
    "repad_logits_with_grad",
    "return_dict",
    "sparse_pred_ignore_index",
    "sparse_prediction",
    "tie_word_embeddings",
    "tokenizer_class",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
# Of generating text, which versions before 5 of transformers wrote into every model's configuration.
_IDLE |= {
    "bad_words_ids",
    "begin_suppress_tokens",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "length_penalty",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "return_dict_in_generate",
    "suppress_tokens",
    "task_specific_params",
    "temperature",
    "tf_legacy_loss",
    "top_k",
    "top_p",
    "torchscript",
    "typical_p",
    "use_bfloat16",
}
# What a newer version writes though an older one left it out.
_SAME_AS_ABSENT: dict[str, object] = {
    "add_cross_attention": False,
    "cross_attention_hidden_size": None,
    "is_decoder": False,
    "is_encoder_decoder": False,
    "position_embedding_type": "absolute",
    "pruned_heads": {},
}
_ROTATIONS = ("global_rope_theta", "local_rope_theta")  # ModernBERT's, before version 5 of transformers


def canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a config.json shapes a vector, the same after it is saved by another version."""
    return {
        name: value
        for name, value in _of_today(config).items()
        if name not in _IDLE
        and "dropout" not in name
        and not (name in _SAME_AS_ABSENT and value == _SAME_AS_ABSENT[name])
    }


def _of_today(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json as transformers 5 writes it: rotations under one name, and nothing that follows from the rest."""
    found, kind = dict(config), config.get("model_type")
    scaling = found.pop("rope_scaling", None) or {}
    old = {name: found.pop(name, None) for name in ("rope_theta", "rope_local_base_freq", *_ROTATIONS)}
    if not found.get("rope_parameters"):
        found.pop("rope_parameters", None)
        whole, near = old["global_rope_theta"] or old["rope_theta"], old["local_rope_theta"]
        near = near or old["rope_local_base_freq"]
        of_whole = _rotation(whole, scaling)
        if near is not None:
            found["rope_parameters"] = {"full_attention": of_whole, "sliding_attention": _rotation(near, {})}
        elif whole is not None or scaling:
            found["rope_parameters"] = of_whole
    elif "rope_type" in found["rope_parameters"]:  # its older name may be there still, beside it
        found["rope_parameters"] = {n: value for n, value in found["rope_parameters"].items() if n != "type"}
    if kind in ("llama", "mistral") and found.get("head_dim") is None:
        found["head_dim"] = found["hidden_size"] // found["num_attention_heads"]
    layers = range(int(found.get("num_hidden_layers", 0)))
    every = found.get("global_attn_every_n_layers", 1) if kind == "modernbert" else 1
    usual = ["sliding_attention" if layer % every else "full_attention" for layer in layers]
    # Without the switch these two have no layer that looks at its neighbours alone.
    if (kind == "modernbert" or (kind in ("qwen2", "qwen3") and not found.get("use_sliding_window"))) and (
        found.get("layer_types") == usual
    ):
        del found["layer_types"]
    return found


def _rotation(theta: float | None, scaling: Mapping[str, Any]) -> dict[str, Any]:
    said = {"rope_type": scaling.get("rope_type") or scaling.get("type") or "default"}
    said |= {} if theta is None else {"rope_theta": theta}
    return said | {name: value for name, value in scaling.items() if name not in ("type", "rope_type")}
