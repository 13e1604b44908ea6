"""A registry in a folder, which machines may share: ``NAME/VERSION/`` with the model's files as they were made.

A version is copied beside its place and renamed into it, so that it is there whole or not at all. Who writes holds the
lock of the name; who reads holds nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from filelock import FileLock

from embedding.atomic_file import flush, replace_file
from embedding.errors import ResourceError
from jobs.bodies.models import Card, Taint
from jobs.registry import NAME, Reference
from jobs.registry.base import Registry

_MODEL, _CARD, _MANIFEST, _TAINT, _ALIASES = "model", "card.json", "manifest.parquet", "tainted.json", "aliases.json"


class FolderRegistry(Registry):
    """The registry below ``root``, which is made by the first model."""

    def __init__(self, root: Path) -> None:
        self.root, self.where = root, str(root)

    # -- reading -----------------------------------------------------------------------------------------------------

    def resolve(self, wanted: Reference) -> int:
        """See ``Registry``. Raises ResourceError for a version where there is nothing at all: it was there once."""
        if wanted.version is not None and not (self.root.is_dir() and any(self.root.iterdir())):
            raise ResourceError(f"registry.uri: {self.root} holds nothing; is it mounted?")
        return super().resolve(wanted)

    def names(self) -> list[str]:
        """See ``Registry``."""
        if not self.root.is_dir():
            return []
        return sorted(one.name for one in self.root.iterdir() if NAME.fullmatch(one.name) and self.versions(one.name))

    def versions(self, name: str) -> list[int]:
        """See ``Registry``."""
        folder = self.root / name
        found = (one.name for one in folder.iterdir()) if folder.is_dir() else ()
        return sorted(int(one) for one in found if re.fullmatch("[1-9][0-9]*", one))

    def standing(self, name: str, alias: str) -> list[int]:
        """See ``Registry``."""
        try:
            said = json.loads((self.root / name / _ALIASES).read_bytes())
        except FileNotFoundError:
            return []
        there = set(self.versions(name))
        return [version for version in said.get(alias, []) if version in there]

    def model(self, name: str, version: int) -> Path:
        """See ``Registry``."""
        return self._of(name, version) / _MODEL

    def card(self, name: str, version: int) -> Card:
        """See ``Registry``."""
        file = self._of(name, version) / _CARD
        try:
            return Card.model_validate_json(file.read_bytes(), strict=False)
        except (OSError, ValueError) as error:
            raise ResourceError(f"{file}: cannot be read ({type(error).__name__})") from None

    def manifest(self, name: str, version: int) -> pa.Table:
        """See ``Registry``."""
        return pq.read_table(self._of(name, version) / _MANIFEST)

    def taint(self, name: str, version: int) -> Taint | None:
        """See ``Registry``."""
        try:
            return Taint.model_validate_json((self._of(name, version) / _TAINT).read_bytes())
        except FileNotFoundError:
            return None

    # -- writing -----------------------------------------------------------------------------------------------------

    def check_writable(self, name: str) -> None:
        """See ``Registry``."""
        folder = self.root / name
        there = next(one for one in (folder, *folder.parents) if one.exists())
        if not os.access(there, os.W_OK):
            raise ResourceError(f"registry.uri: {there}: cannot be written to")

    def add(
        self, name: str, model: Path, manifest: pa.Table, card: Callable[[int], Card], taint: Taint | None = None
    ) -> int:
        """See ``Registry``. It is copied beside its place and renamed into it."""
        with self._locked(name) as folder:
            version = max((*self.versions(name), *self._gone(folder)), default=0) + 1
            part = folder / f".{version}.{uuid.uuid4().hex}"
            try:
                shutil.copytree(model, part / _MODEL)
                pq.write_table(manifest, part / _MANIFEST)
                replace_file(part / _CARD, card(version).to_json().encode())
                if taint is not None:
                    replace_file(part / _TAINT, taint.to_json().encode())
                for file in [*part.rglob("*"), part]:
                    flush(file)
                part.rename(folder / str(version))
            except BaseException:
                shutil.rmtree(part, ignore_errors=True)
                raise
            flush(folder)
        return version

    def point(self, name: str, alias: str, version: int) -> None:
        """See ``Registry``."""
        self._keep(name, alias, lambda standing: [*(one for one in standing if one != version), version])

    def step_back(self, name: str, alias: str) -> None:
        """See ``Registry``."""
        self._keep(name, alias, lambda standing: standing[:-1])

    def mark(self, name: str, version: int, taint: Taint) -> None:
        """See ``Registry``."""
        with self._locked(name):
            if self.taint(name, version) is None:
                replace_file(self._of(name, version) / _TAINT, taint.to_json().encode())

    def remove(self, name: str, version: int) -> None:
        """See ``Registry``."""
        with self._locked(name) as folder:
            (folder / str(version)).rename(folder / f".{version}.gone")
            _clear(folder)
            flush(folder)

    def _keep(self, name: str, alias: str, change: Callable[[Sequence[int]], Sequence[int]]) -> None:
        with self._locked(name) as folder:
            try:
                said = json.loads((folder / _ALIASES).read_bytes())
            except FileNotFoundError:
                said = {}
            said[alias] = list(change(self.standing(name, alias)))
            replace_file(folder / _ALIASES, json.dumps(said).encode())

    @contextmanager
    def _locked(self, name: str) -> Iterator[Path]:
        folder = self.root / name
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(folder / ".lock"):
                _clear(folder)
                yield folder
        except OSError as error:
            raise ResourceError(f"registry.uri: {folder}: {error.strerror or type(error).__name__}") from None

    def _gone(self, folder: Path) -> list[int]:
        """Numbers that were removed: an empty folder stays of each."""
        return [int(one.name.split(".")[1]) for one in folder.glob(".*.gone")]

    def _of(self, name: str, version: int) -> Path:
        return self.root / name / str(version)


def _clear(folder: Path) -> None:
    """Remove what was killed half-way: a version that was being added, a small file, what a removed version left.

    Of a removed version the empty folder stays: its number is not given again.
    """
    for left in folder.glob(".*"):
        if left.name == ".lock":
            continue
        if left.name.endswith(".gone"):
            for inside in left.iterdir():
                shutil.rmtree(inside) if inside.is_dir() else inside.unlink()
        elif left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink()
