"""Limits of Milvus on the strings of a row."""

from __future__ import annotations

from collections.abc import Mapping

from indexers.base import KEY_BYTES

# UTF-8 bytes by column; 65,535 is the most that a VARCHAR takes.
MAX_BYTES: Mapping[str, int] = {**KEY_BYTES, "text": 65_535, "lexical": 65_535, "meta": 65_535}
