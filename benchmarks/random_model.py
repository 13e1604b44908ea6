"""Saves a BERT of random weights with a WordPiece tokenizer of invented words, for machines without a model.

Its speed is that of a trained model of the same shape; its vectors mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from string import ascii_lowercase

_MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SIGNS = (",", ".", "?", "!", "-", "/", "a", "i")


@dataclass(frozen=True, slots=True)
class Shape:
    """Of a BERT: ``width`` of a token's vector, ``inner`` of the layer between."""

    words: int
    width: int
    layers: int
    heads: int
    inner: int


MINILM = Shape(30_522, 384, 6, 12, 1_536)
TINY = Shape(2_000, 64, 2, 2, 128)


def save_random_bert(folder: Path, shape: Shape, *, max_tokens: int = 256) -> Path:
    """Save it as sentence-transformers does: mean of the tokens, length 1. Returns the model's folder."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
    from transformers import BertConfig, BertModel, BertTokenizer

    invented = ("".join(letters) for length in (2, 3, 4) for letters in product(ascii_lowercase, repeat=length))
    words = [*_MARKS, *_SIGNS, *islice(invented, shape.words - len(_MARKS) - len(_SIGNS))]
    torch.manual_seed(5)
    bare = folder / "bare"
    BertModel(
        BertConfig(
            vocab_size=len(words),
            hidden_size=shape.width,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            intermediate_size=shape.inner,
            max_position_embeddings=512,
        )
    ).save_pretrained(bare)
    vocabulary = {word: number for number, word in enumerate(words)}
    BertTokenizer(vocab=vocabulary, model_max_length=max_tokens).save_pretrained(str(bare))
    model = SentenceTransformer(
        modules=[Transformer(str(bare)), Pooling(shape.width, pooling_mode="mean"), Normalize()], device="cpu"
    )
    model.save_pretrained(str(folder / "model"), create_model_card=False)
    return folder / "model"
