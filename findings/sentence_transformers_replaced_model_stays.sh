#!/usr/bin/env bash
# Versions: sentence-transformers 6.2.0, transformers 5.23.0, torch 2.13.0.
# Behaviour: one replaces the transformer of a SentenceTransformer to compile it, to put an adapter around it or to take
#   another's weights: `model[0].auto_model = changed`. No error is raised, and nothing changes: `auto_model` is a property
#   that has no setter, and torch's Module takes every assignment of a module as a new child without looking for one. The
#   name still gives the old transformer, which encodes, is trained and is saved; a compiled one is never run, so that a
#   comparison of speed finds "no difference". The child that nobody calls is there all the same: the model has twice the
#   parameters, an optimizer gets all of them, half without a gradient for ever, and a checkpoint holds both.
#   What works is to assign `model[0].model`.
# Source: sentence_transformers/base/modules/transformer.py of 6.2.0, the property `auto_model`, which returns `self.model`;
#   `Module.__setattr__` of torch/nn/modules/module.py, which puts a Module into `_modules` whatever the class has.
set -euo pipefail
work=$(mktemp -d); trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 sentence-transformers==6.2.0 transformers==5.23.0 2>/dev/null
cat > "$work/ask.py" <<'PY'
import logging, sys
import numpy as np, torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from transformers.utils import logging as said

logging.disable(logging.CRITICAL)
said.disable_progress_bar()
work, text = sys.argv[1], "the harbour office moves"
names = ["[PAD]", "[UNK]", *text.split()]
tokenizer = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]"))
tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=32, pad_token="[PAD]",
                        unk_token="[UNK]").save_pretrained(f"{work}/bare")
config = BertConfig(vocab_size=len(names), hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                    intermediate_size=64, max_position_embeddings=32)
torch.manual_seed(1)
BertModel(config).save_pretrained(f"{work}/bare")
other = BertModel(config).eval()  # of other random weights


def opened():
    return SentenceTransformer(modules=[Transformer(f"{work}/bare"), Pooling(32)], device="cpu")


found = []
for name in ("auto_model", "model"):
    model = opened()
    before, count = model.encode(text), sum(one.numel() for one in model.parameters())
    setattr(model[0], name, other)
    model(model.preprocess([text]))["sentence_embedding"].sum().backward()
    idle = sum(one.grad is None for one in other.parameters()) == len(list(other.parameters()))
    other.zero_grad()
    model.save_pretrained(f"{work}/{name}", create_model_card=False)
    saved = SentenceTransformer(f"{work}/{name}", device="cpu", local_files_only=True).encode(text)
    times = sum(one.numel() for one in model.parameters()) / count
    found.append((bool(np.allclose(before, model.encode(text))), bool(np.allclose(before, saved)), idle, times))
    print(f"{name} assigned: encodes as before {found[-1][0]}, saved as before {found[-1][1]}, "
          f"the new one gets no gradient {idle}, parameters {times:.0f} x")
sys.exit(found != [(True, True, True, 2.0), (False, False, False, 1.0)])
PY
HF_HUB_OFFLINE=1 "$work/venv/bin/python" "$work/ask.py" "$work"

# Saw, on Python 3.11:
# auto_model assigned: encodes as before True, saved as before True, the new one gets no gradient True, parameters 2 x
# model assigned: encodes as before False, saved as before False, the new one gets no gradient False, parameters 1 x
