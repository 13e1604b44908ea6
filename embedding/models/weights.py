"""Weights by their tensors: one digest for the same names, shapes and numbers, whatever file they lie in.

Reads safetensors and PyTorch's zip files without torch, whose import takes seconds. Of a pickle nothing is run: it may
name tensors and storages and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import pickle
import re
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

# What transformers loads in a folder, in its order; modules of sentence-transformers know the first and the third.
_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
_SAFE = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "bf16",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_STORAGE = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "bf16",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
# No vector of a text is made of these: places that are counted anyway, heads of what a model was trained for, and the
# pooler of BERT's family, which stands beside the token states that are pooled.
_UNUSED = re.compile(r"(^|\.)(position_ids|token_type_ids)$|^(pooler|cls|lm_head|classifier|qa_outputs|vocab_\w+)\.")
_OLD_NAMES = (("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias"))


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of a file: numpy's name of its type (or "bf16"), its shape, and its numbers, little-endian."""

    dtype: str
    shape: tuple[int, ...]
    data: memoryview | bytes


def weight_files(folder: Path) -> list[Path]:
    """The files that are loaded of a folder; those of the other formats beside them count for nothing.

    Raises FileNotFoundError where there are none, ValueError for an index of shards that reaches out of the folder.
    """
    for name in _FILES:
        file = folder / name
        if not file.is_file():
            continue
        if file.suffix != ".json":
            return [file]
        shards = sorted(set(json.loads(file.read_text())["weight_map"].values()))
        if any(Path(shard).name != shard for shard in shards):
            raise ValueError(f"{name} names files of another folder")
        return [folder / shard for shard in shards]
    raise FileNotFoundError(f"no {_FILES[0]} and no {_FILES[2]}")


def tensors_digest(files: Sequence[Path], *, prefix: str = "") -> str:
    """32 hex digits over the tensors of some files: their names without ``prefix``, shapes and numbers.

    Half-width numbers count as the float32 that they are widened to. A file of a kind that is not known counts by its
    bytes: then a copy in another format is another one.
    """
    found: dict[str, str] = {}
    for file in files:
        try:
            for name, tensor in _tensors(file):
                name = _canonical(name, prefix)
                if not _UNUSED.search(name):
                    found[name] = _digest(tensor)
        except (zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError, TypeError, struct.error) as error:
            if file.suffix != ".bin":
                raise ValueError(f"{file.name} is damaged ({type(error).__name__})") from None
            with file.open("rb") as stream:
                found = {f"file {file.name}": hashlib.file_digest(stream, "sha256").hexdigest()}
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()[:32]


def tensor_shape(files: Sequence[Path], names: Sequence[str]) -> tuple[int, ...]:
    """The shape of the first tensor with one of the ``names``.

    Raises KeyError where there is none, ValueError for a file that is damaged or of a kind that is not known.
    """
    for file in files:
        try:
            for name, tensor in _tensors(file):
                if name in names:
                    return tensor.shape
        except (zipfile.BadZipFile, pickle.UnpicklingError, KeyError, ValueError, TypeError, struct.error) as error:
            raise ValueError(f"{file.name} is damaged ({type(error).__name__})") from None
    raise KeyError(names[0])


def _canonical(name: str, prefix: str) -> str:
    for old, new in _OLD_NAMES:
        name = name.replace(old, new)
    return name.removeprefix(prefix)


def _digest(tensor: Tensor) -> str:
    digest = hashlib.sha256(json.dumps([tensor.dtype if _kept(tensor.dtype) else "<f4", *tensor.shape]).encode())
    data: memoryview | bytes = tensor.data
    if tensor.dtype == "bf16":
        data = (np.frombuffer(data, "<u2").astype("<u4") << np.uint32(16)).tobytes()
    elif tensor.dtype == "<f2":
        data = np.frombuffer(data, "<f2").astype("<f4").tobytes()
    digest.update(data)
    return digest.hexdigest()


def _kept(dtype: str) -> bool:
    return dtype not in ("bf16", "<f2")


def _tensors(file: Path) -> Iterator[tuple[str, Tensor]]:
    with file.open("rb") as stream:
        if file.suffix == ".safetensors":
            yield from _safe(stream)
        else:
            yield from _zipped(stream)


def _safe(stream: BinaryIO) -> Iterator[tuple[str, Tensor]]:
    """The format's page says: eight bytes of length, a JSON header, the numbers."""
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > os.fstat(stream.fileno()).st_size:
        raise struct.error("shorter than its first bytes say")
    header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
        for name, said in header.items():
            start, end = (8 + length + offset for offset in said["data_offsets"])
            if end > len(view):
                raise struct.error("shorter than its header says")
            with view[start:end] as data:
                yield name, Tensor(_SAFE.get(said["dtype"], said["dtype"]), tuple(said["shape"]), data)


# -- PyTorch's zip files -----------------------------------------------------------------------------------------------


class _Names(pickle.Unpickler):
    """Reads which tensor is where: (storage, offset, shape, strides), storage being ("storage", type, key, …)."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if (module, name) in (("torch._utils", "_rebuild_tensor_v2"), ("torch._utils", "_rebuild_parameter")):
            return _place if name == "_rebuild_tensor_v2" else _parameter
        if module in ("torch", "torch.storage") and name in _STORAGE:
            return name
        raise pickle.UnpicklingError(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return pid


def _place(storage: Any, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any) -> Any:
    return storage, offset, tuple(shape), tuple(strides)


def _parameter(place: Any, *_: Any) -> Any:
    return place


def _zipped(stream: BinaryIO) -> Iterator[tuple[str, Tensor]]:
    with zipfile.ZipFile(stream) as archive:
        table = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if table is None:
            raise zipfile.BadZipFile("no table of tensors")
        found = _Names(archive.open(table)).load()
        if not isinstance(found, dict) or not all(isinstance(place, tuple) for place in found.values()):
            raise pickle.UnpicklingError("not a table of tensors")
        for name, (storage, offset, shape, strides) in found.items():
            _, kind, key, *_ = storage
            dtype = _STORAGE[kind]
            raw = archive.read(f"{table.removesuffix('data.pkl')}data/{key}")
            yield name, Tensor(dtype, shape, _laid(raw, dtype, offset, shape, strides))


def _laid(raw: bytes, dtype: str, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    numbers = np.frombuffer(raw, "<u2" if dtype == "bf16" else dtype)
    last = offset + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if 0 in shape:
        return b""
    if offset < 0 or min(strides, default=0) < 0 or last >= len(numbers):
        raise pickle.UnpicklingError("a tensor that is longer than its numbers")
    width = numbers.itemsize
    view: npt.NDArray[Any] = np.lib.stride_tricks.as_strided(
        numbers[offset:], shape, [stride * width for stride in strides], writeable=False
    )
    return view.tobytes()
