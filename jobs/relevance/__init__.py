"""Relevance: golden sets, metrics of ranked answers, and whether one system answers better than another."""
