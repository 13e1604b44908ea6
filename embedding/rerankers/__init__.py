"""Rerankers: models that read a query and a text together, of this machine or behind HTTP."""
