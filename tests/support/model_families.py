"""A tiny model of random weights of each family that people take embeddings from, with its family's own tokenizer.

Tokenizers are made here of the texts of the fidelity gate, the same in each process. Nothing is fetched.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedding.encoders.fidelity import probes
from tests.support.model_folders import WIDTH, bare

INSTRUCT = "Instruct: Given a question, find the messages that answer it\nQuery: "
ENDS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")  # as RoBERTa numbers them


# -- tokenizers --------------------------------------------------------------------------------------------------------


def _word_pieces(first: tuple[str, ...]) -> dict[str, int]:
    """Each letter, alone and within a word, and the commonest words. The library's trainer is another in each process."""
    from tokenizers import normalizers, pre_tokenizers

    normaliser, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    counts = Counter(word for text in probes() for word, _ in splitter.pre_tokenize_str(normaliser.normalize_str(text)))
    letters = sorted({letter for word in counts for letter in word})
    pieces = [*first, *letters, *(f"##{letter}" for letter in letters), *_commonest(counts)]
    return {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}


def _commonest(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda word: (-counts[word], word))[:40]


def _byte_pairs(first: tuple[str, ...]) -> tuple[dict[str, int], Any]:
    """A vocabulary of all bytes, and its merges as pairs: no text has an unknown token."""
    import json

    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        probes(),
        trainers.BpeTrainer(vocab_size=600, special_tokens=list(first), initial_alphabet=alphabet, show_progress=False),
    )
    said = json.loads(tokenizer.to_str())["model"]
    return said["vocab"], [(left, right) for left, right in said["merges"]]


def _pieces(first: tuple[str, ...]) -> list[tuple[str, float]]:
    """SentencePiece's unigrams and their scores: each letter, and the commonest words. The trainer would not do, either."""
    from tokenizers import pre_tokenizers

    splitter = pre_tokenizers.Metaspace()
    counts = Counter(word for text in probes() for word, _ in splitter.pre_tokenize_str(text))
    letters = Counter(letter for word in counts.elements() for letter in word)
    whole = letters.total()
    scores = {word: math.log(counts[word] / counts.total()) for word in _commonest(counts)}
    scores |= {letter: math.log(count / whole) - 4 for letter, count in sorted(letters.items()) if letter not in scores}
    return [*((piece, 0.0) for piece in first), *scores.items()]


def _bert() -> Any:
    from transformers import BertTokenizer

    return BertTokenizer(vocab=_word_pieces(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")))


def _mpnet() -> Any:
    from transformers import MPNetTokenizer

    return MPNetTokenizer(vocab=_word_pieces(("<s>", "<pad>", "</s>", "[UNK]", "<mask>")))


def _roberta() -> Any:
    from transformers import RobertaTokenizer

    vocabulary, merges = _byte_pairs(ENDS)
    return RobertaTokenizer(vocab=vocabulary, merges=merges)


def _xlm_roberta() -> Any:
    from transformers import XLMRobertaTokenizer

    return XLMRobertaTokenizer(vocab=_pieces(ENDS))


def _t5() -> Any:
    from transformers import T5Tokenizer

    return T5Tokenizer(vocab=_pieces(("<pad>", "</s>", "<unk>")), extra_ids=0)


def _modernbert() -> Any:
    """As its makers saved it: a tokenizer of no class of its own, whose tokenizer.json is all."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    marks = ("[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]")
    vocabulary, merges = _byte_pairs(marks)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = dict(zip(("unk_token", "cls_token", "sep_token", "pad_token", "mask_token"), marks, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def _qwen() -> Any:
    """Byte pairs with an end after each text, which the vector is taken from; padded at the beginning."""
    from tokenizers import processors
    from transformers import Qwen2Tokenizer

    vocabulary, merges = _byte_pairs(("<|endoftext|>",))
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, padding_side="left")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <|endoftext|>", pair="$A $B <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    return tokenizer


# -- models ------------------------------------------------------------------------------------------------------------


def _modules() -> Any:
    from sentence_transformers.sentence_transformer import modules

    return modules


def _normalised() -> list[Any]:
    return [_modules().Normalize()]


def _projected() -> list[Any]:
    import torch

    torch.manual_seed(3)
    dense = _modules().Dense(WIDTH, 24, bias=False, activation_function=torch.nn.Identity())
    return [dense, _modules().Normalize()]


def _saved(folder: Path, modules: list[Any], **more: Any) -> Path:
    from sentence_transformers import SentenceTransformer

    SentenceTransformer(modules=modules, device="cpu", **more).save_pretrained(str(folder), create_model_card=False)
    return folder


def _transformer(folder: Path, kind: str, tokenizer: Any, limit: int, config: dict[str, Any]) -> Any:
    tokenizer.model_max_length = limit
    usual = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id, "max_position_embeddings": limit + 2}
    bare(kind, noise=0.4, **usual | config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return _modules().Transformer(str(folder))


def _static(folder: Path) -> Path:
    import torch

    torch.manual_seed(4)
    tokenizer = _bert()
    static = _modules().StaticEmbedding(tokenizer, embedding_weights=torch.randn(len(tokenizer), WIDTH))
    return _saved(folder / "model", [static, *_normalised()])


def _of(
    kind: str,
    tokenizer: Callable[[], Any],
    rest: Callable[[], list[Any]] = _normalised,
    *,
    pooling: str = "mean",
    limit: int = 128,
    **more: Any,
) -> Callable[[Path], Path]:
    """What makes a model in a folder; ``more`` is ``config`` of the transformer, and what SentenceTransformer takes."""
    config = more.pop("config", {})

    def make(folder: Path) -> Path:
        first = _transformer(folder / "bare", kind, tokenizer(), limit, config)
        return _saved(folder / "model", [first, _modules().Pooling(WIDTH, pooling_mode=pooling), *rest()], **more)

    return make


_T5 = {"d_model": WIDTH, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 2}
_QWEN = {"num_key_value_heads": 2, "head_dim": 16}
_MODERNBERT = {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2, "local_attention": 64}


def _unevenly() -> list[Any]:
    """A layer that leaves vectors of lengths other than 1, and different."""
    import torch

    torch.manual_seed(5)
    return [_modules().Dense(WIDTH, 24, bias=True, activation_function=torch.nn.ReLU())]


def dot_model(folder: Path) -> Path:
    """A model that compares vectors by their dot product, and gives them at any length, as msmarco-*-dot-* do."""
    return _of("bert", _bert, _unevenly, similarity_fn_name="dot")(folder)


# Each as well-known models of its family are made: their pooling, prompts, heads and limits.
FAMILIES: dict[str, Callable[[Path], Path]] = {
    "bert": _of("bert", _bert, pooling="cls", prompts={"query": "Represent this sentence for searching: "}),
    "roberta": _of("roberta", _roberta),
    "xlm-roberta": _of("xlm-roberta", _xlm_roberta, prompts={"query": "query: ", "document": "passage: "}),
    "mpnet": _of("mpnet", _mpnet, list),
    "t5": _of("t5", _t5, _projected, config=_T5),
    "modernbert": _of("modernbert", _modernbert, pooling="cls", limit=8_192, config=_MODERNBERT),
    "nomic-bert": _of(
        "nomic_bert", _bert, limit=2_048, prompts={"query": "search_query: ", "document": "search_document: "}
    ),
    "qwen3": _of("qwen3", _qwen, pooling="lasttoken", limit=4_096, config=_QWEN, prompts={"query": INSTRUCT}),
    "static": _static,
}
