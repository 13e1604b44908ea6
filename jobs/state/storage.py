"""The storage seam: what a state asks of a folder and of a prefix in an object store, where the two differ.

A ``StatePath`` is a path of either kind; both are read alike. All that writes, removes or hands a path to a library
goes through here.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TypeAlias, TypedDict, cast

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyarrow.fs import FileSystem, LocalFileSystem

from embedding import atomic_file
from embedding.atomic_file import flush
from embedding.errors import ConfigError
from jobs.state.object_path import ObjectPath
from jobs.state.path_alias import delta_uri, plain

StatePath: TypeAlias = Path | ObjectPath


_FEW_FILES = 8  # of which each is asked for by itself
_PIECE = 8_000_000  # bytes of a file that are in memory while it is copied


class DeltaAddress(TypedDict):
    """Arguments of deltalake that say where a table is."""

    table_uri: str
    storage_options: dict[str, str] | None


def replace_file(file: StatePath, data: bytes, *, durable: bool = True) -> None:
    """Write a small private file; see ``atomic_file.replace_file``. What a store took is durable."""
    if isinstance(file, ObjectPath):
        file.write_bytes(data)
    else:
        atomic_file.replace_file(file, data, durable=durable)


def create_file(file: StatePath, data: bytes) -> bool:
    """Write a small private file where there is none, durably; else False. Of several at once one succeeds."""
    if isinstance(file, ObjectPath):
        return file.create(data)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    atomic_file.replace_file(temporary, data)
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    flush(file.parent)
    return True


@contextmanager
def new_file(file: StatePath) -> Iterator[IO[bytes]]:
    """Write a file piece by piece, whose folder is there. In a store there is none before the block has ended well."""
    if isinstance(file, ObjectPath):
        with file.writing() as sink:
            yield cast("IO[bytes]", sink)
    else:
        with file.open("wb") as local:
            yield local


def copy_file(source: StatePath, target: StatePath) -> None:
    """Write a private file as another one is, in place of what is there. The folder of ``target`` is there."""
    if isinstance(target, Path):
        target.unlink(missing_ok=True)
        target.touch(0o600)
    with new_file(target) as sink:
        if isinstance(source, ObjectPath):
            for piece in source.pieces(_PIECE):
                sink.write(piece)
        else:
            with source.open("rb") as file:
                shutil.copyfileobj(file, sink, _PIECE)


def remove_all(folder: StatePath) -> None:
    """Remove a folder with all that is in it; nothing where there is none."""
    if isinstance(folder, ObjectPath):
        folder.remove_all()
    else:
        shutil.rmtree(folder, ignore_errors=True)


def remove_files(folder: StatePath, paths: Sequence[str]) -> None:
    """Remove files of a folder by their path in it; one that is not there does no harm."""
    if isinstance(folder, ObjectPath):
        folder.remove(paths)
    else:
        for path in paths:
            (folder / path).unlink(missing_ok=True)


def sizes_below(folder: StatePath) -> Mapping[str, int]:
    """Bytes of all files below a folder, by their path in it."""
    if isinstance(folder, ObjectPath):
        return folder.sizes()
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            file = Path(parent, name)
            with suppress(FileNotFoundError):  # gone since
                found[file.relative_to(folder).as_posix()] = file.stat().st_size
    return found


def sizes_of(folder: StatePath, paths: Iterable[str]) -> dict[str, int | None]:
    """Bytes of some files of a folder; None of one that is not there. Of many in a store it takes a listing of all."""
    if isinstance(folder, ObjectPath):
        wanted = list(paths)
        if len(wanted) > _FEW_FILES:
            there = folder.sizes()
            return {path: there.get(path) for path in wanted}
    found: dict[str, int | None] = {}
    for path in paths:
        try:
            found[path] = (folder / path).stat().st_size
        except OSError:
            found[path] = None
    return found


# -- libraries ---------------------------------------------------------------------------------------------------------


def delta_address(folder: StatePath) -> DeltaAddress:
    """What to tell deltalake of a table's folder."""
    if isinstance(folder, ObjectPath):
        return DeltaAddress(table_uri=str(folder), storage_options=folder.bucket.delta_options())
    return DeltaAddress(table_uri=delta_uri(folder), storage_options=None)


def open_delta(folder: StatePath) -> DeltaTable:
    """A table at its newest version. Raises TableNotFoundError where there is none."""
    return DeltaTable(**delta_address(folder))


def data_address(path: StatePath) -> tuple[FileSystem, str]:
    """What pyarrow reads a path with, and what it calls it there."""
    if isinstance(path, ObjectPath):
        return path.filesystem(), path.address
    return LocalFileSystem(), str(plain(path))


def file_address(path: StatePath) -> tuple[FileSystem, str]:
    """``data_address`` of what is read once: without an alias, which stays until this process ends."""
    return (path.filesystem(), path.address) if isinstance(path, ObjectPath) else (LocalFileSystem(), str(path))


def open_parquet(file: StatePath, *, checked: bool = False) -> pq.ParquetFile:
    """A Parquet file to read; ``checked`` compares the checksums of its pages where it has them."""
    if isinstance(file, ObjectPath):
        system, address = file_address(file)
        return pq.ParquetFile(address, filesystem=system, page_checksum_verification=checked)
    return pq.ParquetFile(file, page_checksum_verification=checked)


def read_parquet(file: StatePath, columns: list[str] | None = None) -> pa.Table:
    """The rows of a Parquet file; names of its folders are no columns."""
    with open_parquet(file) as data:
        return data.read(columns)


def keeps_versions(root: StatePath) -> bool:
    """Whether what is removed below a place stays there as a former version, as in a bucket with versioning."""
    return isinstance(root, ObjectPath) and (root / "proof" / uuid.uuid4().hex).keeps_versions()


# -- proof -------------------------------------------------------------------------------------------------------------


def prove(root: StatePath) -> None:
    """Raise ConfigError for an object store that would let two runs write at once, or hides what was just written.

    Some take a condition on a write and disregard it. A folder needs no proof.
    """
    if not isinstance(root, ObjectPath):
        return
    file = root / "proof" / uuid.uuid4().hex
    try:
        if not file.create(b"1") and file.read_bytes() != b"1":  # not one whose first answer was lost
            raise ConfigError(_unfit(root, "says that a new object was there already"))
        if file.create(b"2") or file.read_bytes() != b"1":
            raise ConfigError(_unfit(root, "writes over an object that it is told to create only (If-None-Match)"))
        if [path.name for path in file.parent.glob(file.name)] != [file.name]:
            raise ConfigError(_unfit(root, "does not list an object that was just written"))
    finally:
        file.unlink(missing_ok=True)


def _unfit(root: StatePath, why: str) -> str:
    return f"state.uri: the store of {root} {why}; a state in it would be damaged by the next run. Use another store"
