"""The keys of the configuration that hold a secret, by their type. Each way to deploy has to refuse them in the clear."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, SecretStr

from jobs.config import Config


def secret_keys(model: type[BaseModel], path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The keys of the configuration that hold a secret."""
    for name, field in model.model_fields.items():
        for kind in _types(field.annotation):
            if kind is SecretStr:
                yield (*path, name)
            elif issubclass(kind, BaseModel):
                yield from secret_keys(kind, (*path, name))


def _types(annotation: Any) -> Iterator[type]:
    if isinstance(annotation, type) and typing.get_origin(annotation) is None:
        yield annotation
    for inner in typing.get_args(annotation):
        yield from _types(inner)


SECRET_KEYS = sorted(set(secret_keys(Config)))
