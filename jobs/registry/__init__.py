"""Models that were made here: numbered versions by name, each whole or not there, and aliases that stand for one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from embedding.errors import ConfigError

if TYPE_CHECKING:
    from jobs.config import Config
    from jobs.registry.base import Registry

PREFIX = "models:/"
CHAMPION, CHALLENGER = "champion", "challenger"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")


@dataclass(frozen=True, slots=True)
class Reference:
    """A model by its name and a version or an alias: ``models:/NAME/3`` or ``models:/NAME@champion``."""

    name: str
    version: int | None
    alias: str

    def __str__(self) -> str:
        return f"{PREFIX}{self.name}" + (f"@{self.alias}" if self.version is None else f"/{self.version}")


def reference_of(text: str) -> Reference:
    """Read a reference. Raises ConfigError for what is none."""
    found = re.fullmatch(rf"{PREFIX}({NAME.pattern})(?:@({NAME.pattern})|/([1-9][0-9]{{0,8}}))", text)
    if found is None:
        raise ConfigError(f"model.name: {text!r}: write {PREFIX}NAME@ALIAS or {PREFIX}NAME/VERSION")
    return Reference(found[1], int(found[3]) if found[3] else None, found[2] or "")


def open_registry(config: Config) -> Registry:
    """The registry of ``[registry]``: a folder, or a server that speaks MLflow's API."""
    uri = config.registry.uri
    if "://" in uri:
        from jobs.registry.mlflow import MlflowRegistry

        return MlflowRegistry(uri, config.cache / "registry")
    from jobs.registry.folder import FolderRegistry

    return FolderRegistry(config.path(uri))
