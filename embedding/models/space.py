"""The embedding space: everything that decides a vector, hashed into one ``space_id``.

Two vectors may be compared only if their ``space_id`` is the same.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from embedding.errors import ConfigError
from embedding.models.folder import ModelFolder, read_folder
from embedding.models.packaged import OwnEngine, own_engine, tokenizer_file
from embedding.models.prompts import PromptOverrides
from embedding.models.tokenizer_json import tokenizer_digest
from embedding.models.weights import tensors_digest, weight_files
from embedding.records import Metric

_IDENTITY = "2"  # change it with what a fingerprint of a model covers: graphs of another cover are then not its own


def short_hash(description: object) -> str:
    """16 hex digits over something that JSON can say, the same whatever the order of its keys."""
    return hashlib.blake2b(json.dumps(description, sort_keys=True).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, slots=True)
class Space:
    """What shapes a vector, and what compares it (``metric``).

    Fingerprints are hex digests of files; ``dim`` is the output dimension.
    """

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
    metric: Metric = "cosine"

    @property
    def model_id(self) -> str:
        """Short stable hash over what an encoder is made from: one model's converted graphs serve many spaces."""
        return short_hash([_IDENTITY, self.weights, self.tokenizer, self.pooling, self.normalised, self.dim])

    @property
    def encoder_id(self) -> str:
        """Short stable hash over what decides the vector of a given text: spaces with one share their queries."""
        return short_hash([self.model_id, self.prompt, self.dtype])

    @property
    def chunking_id(self) -> str:
        """Short stable hash over what decides which chunks a text is cut into: spaces with one share their chunks."""
        return short_hash([self.tokenizer, self.chunker, self.normaliser])

    @property
    def space_id(self) -> str:
        """Short stable hash over all fields; cosine, which every space had before there was another, is not in it."""
        said = asdict(self)
        return short_hash({name: value for name, value in said.items() if (name, value) != ("metric", "cosine")})


def _digest(*files: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            while block := stream.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()[:32]


def describe_space(
    path: Path,
    *,
    chunker: str,
    normaliser: str,
    runs: bool = True,
    prompts: PromptOverrides | None = None,
    dimensions: int | None = None,
) -> Space:
    """Describe the space of the vectors of a model of ``model_path``, without loading it.

    ``prompts`` and ``dimensions`` stand in place of the folder's; a package with an engine has its own. Without
    ``runs`` the folder only counts tokens for a model that is somewhere else: ``weights`` and ``pooling`` are then
    empty and ``dim`` is 0.

    Raises ConfigError where a part is missing, or would not give the model's own vectors.
    """
    try:
        if (engine := own_engine(path)) is not None:
            return _describe_own(path, engine, chunker=chunker, normaliser=normaliser)
        tokenizer = _kept(tokenizer_digest(tokenizer_file(path)))
        folder = read_folder(path, prompts, dimensions) if runs else None
        return Space(
            weights=_kept(_weights(folder)) if folder else "",
            tokenizer=tokenizer,
            pooling=_kept(_pooling(folder)) if folder else "",
            normalised=folder.normalised if folder else False,
            max_tokens=folder.max_tokens if folder else 0,
            prompt=json.dumps(folder.prompts if folder and any(folder.prompts) else [None, None]),
            chunker=chunker,
            normaliser=normaliser,
            dim=folder.dim if folder else 0,
            dtype="float32",
            metric=folder.metric if folder else "cosine",
        )
    except (OSError, KeyError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(f"model.name: the model folder {path.name!r} is incomplete: {_why(error)}") from error


def _why(error: Exception) -> str:
    """In words, and without the path to the folder."""
    if isinstance(error, OSError) and error.filename:
        if Path(error.filename).name == "tokenizer.json":
            return "it has no tokenizer.json; load and save it once with sentence-transformers, which writes one"
        return f"{Path(error.filename).name}: {error.strerror}"
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _weights(folder: ModelFolder) -> str:
    """Digest over what the transformer and the modules after it are made of, their numbers and their settings."""
    parts = [short_hash(folder.config), tensors_digest(weight_files(folder.transformer), prefix=folder.prefix)]
    parts += [tensors_digest(weight_files(m.folder)) for m in folder.modules if m.kind in ("Dense", "LayerNorm")]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _pooling(folder: ModelFolder) -> str:
    return json.dumps([[module.kind, module.config] for module in folder.modules], sort_keys=True)


# The packaged default model keeps what version 0.1 called its parts, and with it its space and all that is stored.
_NAMES_OF_0_1 = {
    "14356833dc708d1458170277cc3bd6e5": "5076c6045d315992ac1325636e50a5a0",
    "038851d9ddfde09ef2e7e495cf265125": "c02ffb8defdab4eb99046737f0ba24ab",
    '[["Pooling", {"include_prompt": true, "modes": ["mean"]}], ["Normalize", {}]]': (
        '{"pooling_mode_cls_token": false, "pooling_mode_max_tokens": false, '
        '"pooling_mode_mean_sqrt_len_tokens": false, "pooling_mode_mean_tokens": true, "word_embedding_dimension": 384}'
    ),
}


def _kept(part: str) -> str:
    return _NAMES_OF_0_1.get(part, part)


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
