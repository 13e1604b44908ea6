"""A model below a prefix of an object store: each machine keeps one copy of it, and takes no other for it.

A copy is known by the names, sizes and ETags of the listing that the command began with, so that all machines that work
for it have the same files, or say that they changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from filelock import FileLock

from embedding.atomic_file import flush
from embedding.buckets import Prefix, StoredObject
from embedding.errors import ConfigError, ResourceError

# Beside a model there are often its forms for other programs, several times its size.
_OTHER_FOLDERS = {"coreml", "onnx", "openvino", "tflite"}
_OTHER_FILES = {".ckpt", ".gguf", ".h5", ".mlmodel", ".msgpack", ".onnx", ".onnx_data", ".ot", ".tflite"}
_PIECE = 1 << 24  # bytes that are asked for at once


@dataclass(frozen=True, slots=True)
class StoredModel:
    """A model's files in an object store, and the ``folder`` that a machine's copy of them is in."""

    prefix: Prefix
    folder: Path
    files: tuple[StoredObject, ...]

    def fetch(self) -> None:
        """Copy what of it is not here yet. Raises ResourceError."""
        self._fetch(self.files)

    def fetch_file(self, path: Path) -> None:
        """Copy one file, by where it will be. Raises ResourceError."""
        wanted = path.relative_to(self.folder).as_posix()
        self._fetch([file for file in self.files if file.path == wanted])

    def _fetch(self, files: Sequence[StoredObject]) -> None:
        """One process of a machine copies at a time, and the next finds it done."""
        if not self._missing(files):
            return
        file = files[0]
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with FileLock(self.folder.with_name(f"{self.folder.name}.lock")):
                for file in self._missing(files):
                    self._copy(file)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise ResourceError(f"model.name: {self.prefix}: cannot copy {file.path}: {why}") from None

    def _missing(self, files: Sequence[StoredObject]) -> list[StoredObject]:
        """Those that are not here, or not whole, as after a loss of power."""
        return [file for file in files if _size(self.folder / file.path) != file.size]

    def _copy(self, file: StoredObject) -> None:
        target = self.folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        part = target.with_name(f".{target.name}.part")  # one that a killed process left is written over
        with part.open("wb") as sink:
            for start in range(0, file.size, _PIECE):
                stop = min(start + _PIECE, file.size)
                sink.write(self.prefix.read_range(file.path, start, stop, file.etag))
        flush(part)
        part.replace(target)
        flush(target.parent)


def find_stored(prefix: Prefix, cache: Path, *, weights: bool = True) -> StoredModel:
    """List a model; ``cache`` is the folder of all copies. Without ``weights`` it only counts tokens.

    Raises ConfigError where there is none.
    """
    try:
        found = [one for one in prefix.listing() if _wanted(one)]
    except OSError as error:
        raise ConfigError(
            f"model.name: {prefix}: {error.strerror}; look at the credentials in the environment and at model.storage"
        ) from None
    if not any(one.path == "modules.json" for one in found):
        raise ConfigError(f"model.name: no sentence-transformers modules.json is below {prefix}")
    if strange := [one.path for one in found if {"", ".", ".."} & set(one.path.split("/"))]:
        raise ConfigError(f"model.name: {prefix}: {len(strange)} of its keys can be no path of a file")
    whole = {PurePosixPath(one.path).parent for one in found if one.path.endswith(".safetensors")}
    files = tuple(one for one in found if not _left_out(PurePosixPath(one.path), whole, weights=weights))
    said = repr(sorted((one.path, one.fingerprint) for one in files))
    known_by = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return StoredModel(prefix, cache / "stored" / known_by / (prefix.name or "model"), files)


def _wanted(found: StoredObject) -> bool:
    *folders, name = found.path.split("/")
    other = _OTHER_FOLDERS.intersection(folders) or PurePosixPath(name).suffix.lower() in _OTHER_FILES
    return not other and not any(part.startswith(".") and part not in (".", "..") for part in (*folders, name))


def _left_out(path: PurePosixPath, whole: set[PurePosixPath], *, weights: bool) -> bool:
    if path.suffix == ".bin":
        return not weights or path.parent in whole
    return path.suffix == ".safetensors" and not weights


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1
