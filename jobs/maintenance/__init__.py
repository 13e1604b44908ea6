"""Erases purged documents and rebuilds damaged tables."""
