"""Model folders and the embedding space that they define."""
