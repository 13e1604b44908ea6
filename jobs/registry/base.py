"""What every registry does, wherever it keeps its models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from embedding.errors import ConfigError
from jobs.bodies.models import Card, Taint
from jobs.registry import CHAMPION, Reference


class Registry(ABC):
    """Numbered versions of models by name, each whole or not there, and aliases that stand for one.

    ``where`` names it in messages. Every method raises ResourceError where the registry cannot be used.
    """

    where: str

    @abstractmethod
    def names(self) -> list[str]:
        """Names that have a version, in order."""

    @abstractmethod
    def versions(self, name: str) -> list[int]:
        """The versions of a name, in order; empty for one that is not known."""

    @abstractmethod
    def standing(self, name: str, alias: str) -> list[int]:
        """What an alias has stood for and is still there, the newest last; empty where it stands for none."""

    @abstractmethod
    def model(self, name: str, version: int) -> Path:
        """The folder of a version's model, which sentence-transformers can load."""

    @abstractmethod
    def card(self, name: str, version: int) -> Card:
        """What is known of a version. Raises ResourceError for a card that cannot be read."""

    @abstractmethod
    def manifest(self, name: str, version: int) -> pa.Table:
        """The documents that a version has seen; see jobs/registry/manifest.py. Raises OSError or ArrowException."""

    @abstractmethod
    def taint(self, name: str, version: int) -> Taint | None:
        """The first purge of what a version has seen; None where there was none."""

    @abstractmethod
    def check_writable(self, name: str) -> None:
        """Raise ResourceError where no version of a name could be added; makes nothing."""

    @abstractmethod
    def add(
        self, name: str, model: Path, manifest: pa.Table, card: Callable[[int], Card], taint: Taint | None = None
    ) -> int:
        """Keep a model, byte for byte, as the next version, with its card and its mark; returns its number."""

    @abstractmethod
    def point(self, name: str, alias: str, version: int) -> None:
        """Let an alias stand for a version."""

    @abstractmethod
    def step_back(self, name: str, alias: str) -> None:
        """Let an alias stand again for what it stood for before."""

    @abstractmethod
    def mark(self, name: str, version: int, taint: Taint) -> None:
        """Mark a version whose documents were purged; the first mark stays."""

    @abstractmethod
    def remove(self, name: str, version: int) -> None:
        """Remove a version with all of its files; its number is not given again."""

    def resolve(self, wanted: Reference) -> int:
        """The version that a reference stands for. Raises ConfigError where there is none, naming those that are."""
        if wanted.version is not None:
            known = self.versions(wanted.name)
            if wanted.version in known:
                return wanted.version
            shown = ", ".join(map(str, known)) or "none"
            raise ConfigError(f"model.name: {wanted}: {self.where} has no such version; it has {shown}")
        standing = self.standing(wanted.name, wanted.alias)
        if not standing:
            known = self.versions(wanted.name)
            fix = (
                f"`embedmill promote {wanted.name}` makes one the {CHAMPION}"
                if known
                else "`embedmill train` makes one"
            )
            raise ConfigError(f"model.name: {wanted}: stands for no version in {self.where}; {fix}")
        return standing[-1]
