"""Computes the difference between the desired chunks and the index, and what closing it costs."""
