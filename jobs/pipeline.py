"""What every command works with: configuration, state, space, index, Spark and Ray, each opened on first use."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from embedding.buckets import SCHEME
from embedding.chunking import CHUNKER_VERSION, ChunkLimits
from embedding.encoders.backends import AUTO, check_backend
from embedding.encoders.spec import EncoderSpec
from embedding.errors import ConfigError, LeaseHeldError, ResourceError, SpaceMismatchError
from embedding.models.packaged import own_engine, tokenizer_file
from embedding.models.prompts import PromptOverrides, Purpose
from embedding.models.space import Space, describe_space, short_hash
from embedding.models.stored import StoredModel, find_stored
from embedding.records import CHUNK
from embedding.text.slack import NORMALISER_VERSION
from embedding.text.template import Template
from embedding.tokens.counter import prompt_tokens
from indexers import find_index
from indexers.base import must_live
from jobs import termination
from jobs.config import Config
from jobs.engines.memory import give_back_memory
from jobs.engines.ray import ray_runs, start_ray
from jobs.extract.cutting import ROW_VERSION, Chunking
from jobs.registry.use import model_folder, noted_before, pinned, refuse_tainted, with_name
from jobs.state.lease import Lease
from jobs.state.run_target import RunTarget
from jobs.state.state_folder import state_root
from jobs.state.state_id import own_id, refuse_other
from jobs.state.store import State
from jobs.state.work_folder import open_scratch
from jobs.telemetry.progress import Progress

if TYPE_CHECKING:
    from indexers.base import Index
    from jobs.embed.encoder_process import EncoderProcess
    from jobs.state.frames import Frames

# With more chunks whole tables are compared by Spark.
IN_PROCESS_CHUNKS = 4_000_000
MIN_CHUNK_TOKENS = 16
FEW_BYTES = 1_000_000  # of sources, in which there is seldom more text than one shard takes
TOKEN_BYTES = 8  # of sources to a token: between JSON, which has more, and what is compressed


@dataclass(frozen=True, slots=True)
class _Model:
    """The model of a configuration, opened: where it lies, and what follows from its files."""

    stored: StoredModel | None
    folder: Path
    limits: ChunkLimits
    space: Space


class Pipeline:
    """Everything a command works with: configuration, state, sources, space, index and progress.

    A command that ``needs_model`` not works also where the registry does not answer: ``space_id``, the name of the
    model and the cut of the state are then those that the newest run noted, and ``unasked`` says why.
    """

    def __init__(self, config: Config, progress: Progress, *, needs_model: bool = True) -> None:
        self.progress, self.unasked = progress, ""
        self._model: _Model | None = None
        key = config.state.hash_key.get_secret_value()
        try:
            self.config = pinned(config)
            self._model = _open_model(self.config, progress)
        except ResourceError as error:
            state = None if needs_model else State(state_root(config), hash_key=key)
            noted = None if state is None else noted_before(config, state)
            if state is None or noted is None:
                raise
            self.unasked = f"{error}; going by {noted.name}, as run {noted.run_id} did"
            self.config, self.state = with_name(config, noted.name), state.of_cut(noted.cut)
            self.space_id, self.encoder_id = noted.space_id, noted.encoder_id
        else:
            self.space_id, self.encoder_id = self.space.space_id, self.space.encoder_id
            self.state = State(state_root(config), cut=self.space.chunking_id, hash_key=key)
        self.wrote, self.refused = "", False  # the run that has held the lease; it was refused it
        self._index: Index | None = None
        self._frames: Frames | None = None
        self._in_process = False  # the frames are
        self._encoding: Future[EncoderSpec] | None = None
        self._process: EncoderProcess | None = None

    # -- parts -------------------------------------------------------------------------------------------------------

    @property
    def _opened(self) -> _Model:
        """The opened model. Raises ResourceError where it could not be asked for."""
        if self._model is None:
            raise ResourceError(self.unasked)
        return self._model

    @property
    def stored(self) -> StoredModel | None:
        """The model's copy from an object store; None of one that lies elsewhere."""
        return self._opened.stored

    @property
    def model(self) -> Path:
        """The model's folder."""
        return self._opened.folder

    @property
    def limits(self) -> ChunkLimits:
        """How long a text may be for the model."""
        return self._opened.limits

    @property
    def space(self) -> Space:
        """The embedding space of the configuration."""
        return self._opened.space

    def index(self) -> Index:
        """The index, opened on first use."""
        if self._index is None:
            self._index = self.config.index_address().open()
        return self._index

    def has_index(self) -> bool:
        """Whether there is an index to ask; a Milvus Lite file that does not exist yet is not created by asking."""
        return "://" in self.config.index_uri or Path(self.config.index_uri).exists()

    def rows_of(self, version: str) -> int | None:
        """Rows that the index counts of a version; None where there is no such version."""
        there = self.has_index() and version in self.index().versions()
        return self.index().count(version) if there else None

    @property
    def first_version(self) -> str:
        """The name of an index's first version."""
        return f"{self.config.index.name}__v1"

    def live(self) -> str:
        """The version behind the alias, or the name that the first one gets."""
        return (self.index().live() if self.has_index() else None) or self.first_version

    def must_live(self) -> str:
        """The version behind the alias. Raises ConfigError where there is none yet."""
        return must_live(self.index().live() if self.has_index() else None, self.config.index.name)

    def ensure_version(self, version: str) -> None:
        """Create a version where it is missing, with no row in the ledger: an index that was lost holds nothing."""
        index = self.index()
        if version not in index.versions():
            if self.state.count("published", pc.field("index") == version):
                self.state.drop("published", f"`index` = '{version}'")
            if version in (served := self.state.served() or ()):  # of an index that was lost
                self.state.keep_served(name for name in served if name != version)
            space, owner = self.space, own_id(self.state.root)
            index.create_version(version, space_id=self.space_id, dim=space.dim, owner=owner, metric=space.metric)
            refuse_other(self.state.root, version, index.owner_of(version))  # made by another state a moment ago

    def check_space(self, version: str) -> None:
        """Refuse an index of another space, naming both. Raises SpaceMismatchError."""
        found = self.index().space_of(version)
        if found != self.space_id:
            model, ours = self.state.spaces().get(found, {}).get("model", "unknown"), self.config.model.name
            # A new release that reads or cuts texts in another way has another space of the same model too.
            cause = "another release of embedmill, or other settings of the model, made it; " if model == ours else ""
            raise SpaceMismatchError(
                f"index {version} holds space {found} (model {model}), the configuration asks for {self.space_id} "
                f"({ours}); {cause}run `embedmill reindex`, or restore model.*"
            )

    def frames(self, reading: int = 0, *, whole: bool = False) -> Frames:
        """What compares tables, started on first use, for work that reads so many bytes of the sources.

        Spark, or for little work on this machine an engine in this process: Spark would take longer to start. Work that
        is not about ``whole`` tables is little however long these are, as it holds no more than what belongs to what
        was read.
        """
        spark = self.config.spark
        little = (
            spark.master.startswith("local")
            and "PYSPARK_GATEWAY_PORT" not in os.environ
            and reading < spark.in_process_mb * 1_000_000
            and not (whole and self.state.count("chunks") >= IN_PROCESS_CHUNKS)
        )
        if self._frames is not None and self._in_process and not little:
            self.end_frames()
            self._frames = None
        if self._frames is None:
            self._in_process = little
            if little:
                from jobs.state.duckdb_frames import DuckFrames

                open_scratch(self.state.engines, self.config.state.lease_seconds)
                self._frames = DuckFrames(self.state.engines / "duckdb", spark.driver_memory)
            else:
                from jobs.engines.agreement import check_spark
                from jobs.engines.spark import start_spark
                from jobs.state.spark_frames import SparkFrames

                with self.progress.phase("starting Spark"):
                    session = start_spark(self.config, self.state.engines, self.state.engine_log, reads=reading > 0)
                    if not spark.master.startswith("local"):
                        check_spark(session, self.state.root, None if self.stored else self.model)
                self._frames = SparkFrames(session)
        return self._frames

    def end_frames(self) -> None:
        """Give back what comparing tables took in this process; a later comparison begins anew."""
        if self._frames is not None:
            self._frames.close()
            give_back_memory()

    def encoder(self, purpose: Purpose = "document") -> EncoderSpec:
        """What encodes for this configuration; precision, and ``auto``, are chosen where it is used.

        Raises ConfigError for a model that has seen what was purged too long ago.
        """
        refuse_tainted(self.config)
        model = self.config.model
        own = model.backend == AUTO and own_engine(self.model) is not None
        return EncoderSpec(
            self.model.name if own else model.backend,
            self.model,
            self.config.model_cache / self.space.model_id,
            self.space.max_tokens,
            self.space.dim,
            model.threads or os.cpu_count() or 1,
            model.batch_tokens,
            purpose=purpose,
            prompts=_prompts(self.config),
            remote=model.remote,
            stored=self.stored,
            owner=self._owner() if purpose == "document" else "",
        )

    def batches(self) -> EncoderSpec | None:
        """What encodes, where it makes batch jobs; None where it makes none."""
        remote = self.config.model.remote
        return self.encoder() if remote is not None and remote.batch is not None else None

    def _owner(self) -> str:
        """What batch jobs of this state are called by: no name of a bucket or a job tells more than that."""
        remote = self.config.model.remote
        if remote is None or remote.batch is None:
            return ""
        return hashlib.blake2b(b"batch jobs", key=self.state.hash_key, digest_size=5).hexdigest()

    def start_encoding(self, reading: int) -> None:
        """Begin to start what encodes, beside other work, for a run that reads so many bytes of the sources.

        A guess at what ``encodes_alone`` will say; both starts wait more than they compute.
        """
        few = reading < FEW_BYTES or self._one_is_enough(reading // TOKEN_BYTES)
        if few and self._ray_is_away():
            self.encoder_process()
        else:
            self._begin_on_ray()

    def encodes_alone(self, shards: int, tokens: int) -> bool:
        """Whether one process encodes, without Ray, whose start takes longer than it would gain.

        So many tokens in so many shards. A Ray that runs, or starts, is used; and one that was asked for by its
        address.
        """
        return (shards == 1 or self._one_is_enough(tokens)) and self._ray_is_away()

    def _one_is_enough(self, tokens: int) -> bool:
        """Whether Ray would have one actor for so many tokens, and few of them."""
        model = self.config.model
        return max(model.actors, model.max_actors) == 1 and tokens < self.config.ray.min_tokens

    def encoder_process(self) -> EncoderProcess:
        """The process that encodes alone, begun on first use."""
        if self._process is None:
            from jobs.embed.encoder_process import EncoderProcess

            self._process = EncoderProcess(self.encoder(), gpus=self.config.model.gpus_per_actor != 0)
        return self._process

    def _ray_is_away(self) -> bool:
        """Whether Ray is left out where there is little to encode.

        Not where GPUs are asked for that are not here: of Ray that is an error, and in silence it is slow.
        """
        from embedding.encoders.choose import has_gpu

        away = self.config.ray.address == "local" and self._encoding is None and not ray_runs()
        return away and (not self.config.model.gpus_per_actor or has_gpu())

    def _begin_on_ray(self) -> None:
        self._end_process()  # begun for less than there is: it would hold a model, and a GPU, beside the actors
        if self._encoding is None:
            from jobs.embed.embed import ready

            thread = ThreadPoolExecutor(1, "encoding")
            self._encoding = thread.submit(ready, self.config, self.state, self.encoder())
            thread.shutdown(wait=False)

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.close()
            self._process = None

    def start_ray(self) -> None:
        """Wait for the Ray that encodes, or start one for other work."""
        if self._encoding is not None:
            self._encoding.result()
        else:
            start_ray(self.config, self.state.engines)

    def encoding(self) -> EncoderSpec:
        """What encodes on Ray, which is then started. Raises what its start raised."""
        self._begin_on_ray()
        assert self._encoding is not None
        return self._encoding.result()

    @contextmanager
    def writable(self, run_id: str, wait: float) -> Iterator[Lease]:
        """Hold the lease for a run. In the block ``state`` commits under its number; else it is open for reading.

        Raises LeaseHeldError where another run holds the lease for more than ``wait`` seconds.
        """
        reading, seconds = self.state, self.config.state.lease_seconds
        with ExitStack() as held:
            try:
                lease = held.enter_context(
                    Lease(reading.root, run_id=run_id, seconds=seconds, wait=wait, newest=reading.newest_fence)
                )
            except LeaseHeldError:
                self.refused = True
                raise
            self.state, self.wrote = reading.for_writing(lease.number), run_id
            try:
                yield lease
            finally:
                self.state = reading

    def chunking(self) -> Chunking:
        """What executors cut text with."""
        text = self.config.text
        limits = find_index(self.config.index.kind).max_bytes()
        shown = short_hash([text.lexical])
        return Chunking(
            tokenizer_file(self.model),
            self.limits,
            self.state.hash_key,
            f"{self.space.chunker}:{shown}:{text.conversations}:{ROW_VERSION}",
            {column: limit for column, limit in limits.items() if column in CHUNK.names},
            text.context,
            shown,
            text.conversations,
            self.stored,
        )

    def target(self, version: str, run_id: str) -> RunTarget:
        """A ``version`` of the index in the configured space, as a run writes and compares it."""
        text = self.config.text
        return RunTarget(self.state, version, self.space_id, run_id, Template.parse(text.lexical), text.rename_tokens)

    def close(self) -> None:
        """Let go of the index; the next use opens it again."""
        if self._encoding is not None and not termination.came():
            wait([self._encoding])  # an engine that is still starting would outlive its log
        self._end_process()
        if self._index is not None:
            self._index.close()
            self._index = None
        if self._frames is not None:
            self._frames.close()
            self._frames = None


def _prompts(config: Config) -> PromptOverrides:
    return PromptOverrides(config.model.query_prompt, config.model.document_prompt)


def _stored(config: Config) -> StoredModel | None:
    """The model of a configuration that has it in an object store."""
    name, storage = config.model.name, config.model.storage
    if not name.startswith(SCHEME):
        return None
    weights = config.model.remote is None
    return find_stored(storage.prefix(name), config.model_cache, weights=weights)


def _open_model(config: Config, progress: Progress) -> _Model:
    """Raises ConfigError for a model that is not there, ResourceError where its registry does not answer."""
    stored = _stored(config)
    if stored is not None:
        with progress.phase("copying the model"):
            stored.fetch()
    folder = stored.folder if stored else model_folder(config)
    return _Model(stored, folder, *describe(config, folder))


def _check_overrides(config: Config, model: Path) -> None:
    """Raise ConfigError for a prompt or a dimension of what does not take one."""
    for key in ("query_prompt", "document_prompt", "dimensions"):
        if getattr(config.model, key) is not None and (config.model.remote or own_engine(model)):
            what = "a service" if config.model.remote else f"{config.model.name}, which brings its own engine,"
            raise ConfigError(f"model.{key}: {what} takes none from here; remove it")


def describe(config: Config, model: Path) -> tuple[ChunkLimits, Space]:
    """The chunk limits and the embedding space of a configuration.

    Raises ConfigError for limits that the model does not have.
    """
    backend = check_backend(config.model.backend)
    if backend is not None and backend.precisions is not None and own_engine(model) is not None:
        raise ConfigError(f'model.backend: {config.model.name} brings its own engine; use "auto"')
    remote, prompts = config.model.remote, _prompts(config)
    _check_overrides(config, model)
    space = describe_space(
        model,
        chunker="",
        normaliser=NORMALISER_VERSION,
        runs=remote is None,
        prompts=prompts,
        dimensions=config.model.dimensions,
    )
    if remote is not None:
        space = replace(
            space,
            weights=f"{config.model.backend} {remote.model}",
            pooling="service",
            normalised=remote.normalise,
            max_tokens=remote.max_tokens,
            dim=remote.dim,
        )
    if config.model.max_tokens is not None:
        if config.model.max_tokens > space.max_tokens:
            raise ConfigError(f"model.max_tokens: {config.model.name} takes at most {space.max_tokens}")
        space = replace(space, max_tokens=config.model.max_tokens)
    room = space.max_tokens - (prompt_tokens(model, prompts) if remote is None else 0)
    if room < min(MIN_CHUNK_TOKENS, space.max_tokens):
        raise ConfigError(f"model.name: the model's prompt leaves {room} of {space.max_tokens} tokens for a text")
    limits = ChunkLimits(max_tokens=room, overlap_tokens=min(config.model.overlap_tokens, room // 4))
    cut = f"{CHUNKER_VERSION}:{limits.max_tokens}:{limits.overlap_tokens}:{limits.max_chars}"
    if config.text.context.parts:  # texts alone keep the space that they had before there were templates
        cut += f":{config.text.encoded}"
    space = replace(space, chunker=cut)
    if backend is not None and backend.space:
        space = replace(space, weights=backend.space, pooling=backend.space)
    return limits, space
