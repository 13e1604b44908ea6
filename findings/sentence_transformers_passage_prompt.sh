#!/usr/bin/env bash
# Versions: sentence-transformers 6.2.0, transformers 5.23.0, torch 2.13.0.
# Behaviour: a model saved with the prompts "query" and "passage", as those of the E5 family are, gets its prompt before
#   queries and none before documents: `encode_document` is documented to take the first prompt there is of "document",
#   "passage" and "corpus", but every model has one named "document", which is empty where none was saved, and so that is
#   always the first. A default prompt does not help: `encode_query` and `encode_document` both name a prompt, so that
#   `default_prompt_name` is never looked at, and only the plain `encode` puts it there.
#   Nothing is said. Documents that were encoded by `encode_document` then lie apart from where the model was trained to
#   put them, and from what `encode(..., prompt_name="passage")` gives. What works is to name the prompt "document".
# Source: sentence_transformers/sentence_transformer/model.py of 6.2.0: the docstring of `encode_document` on one side,
#   `_default_prompts = {"query": None, "document": None}` and the loop over the three names on the other;
#   `_validate_prompts` in sentence_transformers/base/model.py turns what is left of these into empty strings.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 sentence-transformers==6.2.0 transformers==5.23.0 2>/dev/null
cat > "$work/ask.py" <<'PY'
import logging, sys
import numpy as np, torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.utils import logging as said

logging.disable(logging.CRITICAL)
said.disable_progress_bar()
work, text = sys.argv[1], "the harbour office moves"
names = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *"query passage : the harbour office moves".split()]
tokenizer = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer.post_processor = processors.TemplateProcessing(
    single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, pad_token="[PAD]", cls_token="[CLS]",
                        sep_token="[SEP]", unk_token="[UNK]").save_pretrained(f"{work}/bare")
torch.manual_seed(1)
BertModel(BertConfig(vocab_size=len(names), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                     intermediate_size=64, max_position_embeddings=32)).save_pretrained(f"{work}/bare")


def saved(name, **more):
    """The model with prompts, saved and opened again as its users open it."""
    parts = [Transformer(f"{work}/bare"), Pooling(32), Normalize()]
    SentenceTransformer(modules=parts, device="cpu", **more).save_pretrained(f"{work}/{name}")
    return SentenceTransformer(f"{work}/{name}", device="cpu", local_files_only=True)


def same(a, b):
    return bool(np.allclose(a, b, atol=1e-5))


e5 = {"query": "query: ", "passage": "passage: "}
found = []
for name, model in (("passage", saved("passage", prompts=e5)),
                    ("passage and default", saved("default", prompts=e5, default_prompt_name="passage")),
                    ("document", saved("document", prompts={"query": "query: ", "document": "passage: "}))):
    bare = model.encode(text, prompt="")
    prompted = model.encode("passage: " + text, prompt="")
    document = model.encode_document(text)
    found.append((same(document, prompted), same(document, bare), same(model.encode_query(text), bare)))
    print(f"saved as {name!r}: encode_document puts the prompt there: {found[-1][0]}, none: {found[-1][1]}; "
          f"encode_query none: {found[-1][2]}")
sys.exit(found != [(False, True, False), (False, True, False), (True, False, False)])
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/ask.py" "$work"

# Saw, on Python 3.11:
# saved as 'passage': encode_document puts the prompt there: False, none: True; encode_query none: False
# saved as 'passage and default': encode_document puts the prompt there: False, none: True; encode_query none: False
# saved as 'document': encode_document puts the prompt there: True, none: False; encode_query none: False
