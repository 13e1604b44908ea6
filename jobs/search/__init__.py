"""Searches: one query or many over one version of the index, each encoder opened once."""
