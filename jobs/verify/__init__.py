"""Proves that the index holds the desired chunks, and examines a new version before the alias moves to it."""
