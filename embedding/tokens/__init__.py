"""Counts tokens and turns texts into token ids, with the model's own tokenizer."""
