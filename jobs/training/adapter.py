"""Low-rank adapters (LoRA): few numbers beside the weights are trained, and merged into them at the end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def adapt(model: SentenceTransformer, rank: int) -> None:
    """Freeze the weights of a model, and put an adapter beside each matrix of its transformer."""
    from peft import LoraConfig, get_peft_model

    for part in model:
        part.requires_grad_(False)  # also what follows the transformer: ``merged`` takes it from the base
    first = cast(Any, model[0])
    first.model = get_peft_model(first.model, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear"))


def merged(model: SentenceTransformer, fresh: SentenceTransformer, folder: Path) -> SentenceTransformer:
    """A ``fresh`` base with the adapter of ``model``, which goes through ``folder``, merged into its weights.

    Merged in place, what is saved does not load again: its weights have the names that the adapter gave them, and the
    library fills in others by chance.
    """
    from peft import PeftModel

    cast(Any, model[0]).model.save_pretrained(str(folder / "adapter"))
    first = cast(Any, fresh[0])
    first.model = PeftModel.from_pretrained(first.model, str(folder / "adapter")).merge_and_unload()
    return fresh
