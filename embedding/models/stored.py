"""A model below a prefix of an object store: each machine keeps one copy of it, and takes no other for it.

A copy is known by the names, sizes and ETags of the listing that the command began with, so that all machines that work
for it have the same files, or say that they changed.
"""

from __future__ import annotations

import hashlib
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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
        for file in self.files:
            self._fetch(file)

    def fetch_file(self, path: Path) -> None:
        """Copy one file, by where it will be. Raises ResourceError."""
        wanted = path.relative_to(self.folder).as_posix()
        for file in self.files:
            if file.path == wanted:
                self._fetch(file)

    def _fetch(self, file: StoredObject) -> None:
        target = self.folder / file.path
        if target.is_file():  # put there whole
            return
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
        try:
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with part.open("wb") as sink:
                for start in range(0, file.size, _PIECE):
                    stop = min(start + _PIECE, file.size)
                    sink.write(self.prefix.read_range(file.path, start, stop, file.etag))
            part.replace(target)
        except OSError as error:
            raise ResourceError(f"model.name: {self.prefix}: cannot copy {file.path}: {error.strerror}") from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def find_stored(prefix: Prefix, cache: Path) -> StoredModel:
    """List a model; ``cache`` is the folder of all copies. Raises ConfigError where there is none."""
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
    files = tuple(one for one in found if not (one.path.endswith(".bin") and PurePosixPath(one.path).parent in whole))
    said = repr(sorted((one.path, one.fingerprint) for one in files))
    known_by = hashlib.blake2b(said.encode(), digest_size=8).hexdigest()
    return StoredModel(prefix, cache / "stored" / known_by / (prefix.key.rpartition("/")[2] or "model"), files)


def _wanted(found: StoredObject) -> bool:
    *folders, name = found.path.split("/")
    other = _OTHER_FOLDERS.intersection(folders) or PurePosixPath(name).suffix.lower() in _OTHER_FILES
    return not other and not any(part.startswith(".") and part not in (".", "..") for part in (*folders, name))
