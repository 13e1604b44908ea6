"""Fine-tunes a model on pairs of texts that belong together, and measures what that did. Texts stay in memory."""
