"""Small sentence-transformers folders of random weights, of every architecture, with a tokenizer made here."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

WIDTH = 32
MARKS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # as RoBERTa numbers them: padding is not 0
TEXTS = [
    "the quick brown fox",
    "a",
    "lazy dog " * 9,
    "pack my box with five dozen liquor jugs",
    "fox dog " * 40,
    "unknown ß",
    "jugs",
    "how vexingly quick daft zebras jump over the box",
]
# What a configuration needs beside what ``bare`` gives it.
ADDED: dict[str, dict[str, Any]] = {
    "qwen2": {"num_key_value_heads": 2},
    "qwen3": {"num_key_value_heads": 2, "head_dim": 16},
    "mistral": {"num_key_value_heads": 2},
    "llama": {"num_key_value_heads": 2},
    "gemma3_text": {"num_key_value_heads": 2, "head_dim": 16},
    "t5": {"d_model": WIDTH, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 2},
    "mt5": {"d_model": WIDTH, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 2},
}
DECODERS = ("qwen2", "qwen3", "mistral", "llama")


def save_tokenizer(folder: Path, *, limit: int = 64, lower: bool = False) -> None:
    """Words of TEXTS and letters, cut as WordPiece does, with RoBERTa's numbers for the marks."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for text in TEXTS for word in text.split() if word.isascii()})
    letters = [mark + letter for letter in "abcdefghijklmnopqrstuvwxyz" for mark in ("", "##")]
    names = dict.fromkeys([*MARKS, *words, *letters])
    vocabulary = {name: number for number, name in enumerate(names)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", max_input_chars_per_word=100))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if lower:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=limit,
        bos_token="<s>",
        cls_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        sep_token="</s>",
        unk_token="<unk>",
        mask_token="<mask>",
    ).save_pretrained(str(folder))


def bare(kind: str, *, noise: float = 0.1, **more: Any) -> Any:
    """A transformer of an architecture: two layers, 32 dimensions, no weight left as it is made.

    The more ``noise`` its weights have, the more its vectors say of a text's words.
    """
    import torch
    from transformers import AutoConfig, AutoModel

    usual: dict[str, Any] = {
        "vocab_size": 160,
        "hidden_size": WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 66,
        "pad_token_id": 1,
    }
    own: dict[str, dict[str, Any]] = {
        "albert": {"embedding_size": 16},
        "electra": {"embedding_size": 16},
        "modernbert": {"global_attn_every_n_layers": 2, "local_attention": 8, "cls_token_id": 0, "sep_token_id": 2},
        "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
        "deberta-v2": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"]},
        "distilbert": {"dim": WIDTH, "n_layers": 2, "n_heads": 2, "hidden_dim": 64},
    }
    torch.manual_seed(5)
    model = AutoModel.from_config(AutoConfig.for_model(kind, **(usual | own.get(kind, {}) | more)))
    with torch.no_grad():  # biases are made 0, which would hide one that is left out
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * noise)
    return model


def saved(
    folder: Path,
    kind: str = "bert",
    pooling: Any = "mean",
    rest: Callable[[], list[Any]] | None = None,
    *,
    limit: int = 64,
    lower: bool = False,
    config: dict[str, Any] | None = None,
    **more: Any,
) -> Path:
    """Save a model as sentence-transformers does; ``more`` goes to SentenceTransformer, ``config`` to the transformer."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    (folder / "bare").mkdir(parents=True)
    bare(kind, **(config or {})).save_pretrained(folder / "bare")
    save_tokenizer(folder / "bare", limit=limit, lower=lower)
    modules = [Transformer(str(folder / "bare")), Pooling(WIDTH, pooling_mode=pooling)]
    modules += rest() if rest else [Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu", **more)
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"


def changed(folder: Path, name: str, **values: Any) -> Path:
    """Change keys of a JSON file of a folder; None takes one away."""
    file = folder / name
    said = json.loads(file.read_text()) if file.is_file() else {}
    said |= values
    file.write_text(json.dumps({key: value for key, value in said.items() if value is not None}))
    return folder
