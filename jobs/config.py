"""The configuration: one TOML file, overridden by ``EMBEDMILL__SECTION__KEY``, frozen once loaded.

Relative paths are taken from the folder of the file, so that a command means the same from every folder.
"""

from __future__ import annotations

import difflib
import os
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Union

import platformdirs
from pydantic import Field, ValidationError, create_model, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)
from pydantic_settings.exceptions import SettingsError

from embedding.errors import ConfigError
from embedding.extensions import load_extensions
from indexers import IndexAddress, Settings, find_index
from jobs.config_fields import ReadStorage, about, check_web_address
from jobs.config_operation import Registry, Serve, Slo, Telemetry, Training
from jobs.config_places import check_apart, place
from jobs.config_sections import Gate, IndexTarget, Limits, Model, Ray, Search, Spark, StateTarget, Text
from jobs.config_sources import SOURCE_SECTIONS, TEAM_PATTERN, SourceConfig

ENV_PREFIX = "EMBEDMILL__"


class Config(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter="__")

    sources: Annotated[tuple[SourceConfig, ...], about("what is indexed; one `[[sources]]` each", min_length=1)]
    text: Text = Text()
    model: Model = Model()
    index: IndexTarget = IndexTarget()
    state: StateTarget = StateTarget()
    spark: Spark = Spark()
    ray: Ray = Ray()
    limits: Limits = Limits()
    gate: Gate = Gate()
    search: Search = Search()
    telemetry: Telemetry = Telemetry()
    slo: Slo = Slo()
    training: Training = Training()
    registry: Registry = Registry()
    serve: Serve = Serve()
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
        """This configuration with another model, with its own prompts, and vectors and chunks of its own length."""
        update: dict[str, object] = {"name": name, "max_tokens": None}
        if name != self.model.name:
            update |= dict.fromkeys(("query_prompt", "document_prompt", "dimensions"))
        return self.model_copy(update={"model": self.model.model_copy(update=update)})

    def path(self, uri: str) -> Path:
        """A configured path, from the folder of the configuration file."""
        return (self.base / Path(uri).expanduser()).resolve()

    @property
    def model_cache(self) -> Path:
        """Folder of converted models, on this machine and not with the state: a copy serves every state on it."""
        return self.path(self.model.cache) if self.model.cache else self.cache / "models"

    @property
    def cache(self) -> Path:
        """Folder of what a machine works out once."""
        return platformdirs.user_cache_path("embedmill")

    def index_address(self) -> IndexAddress:
        """Where the index is, with what this configuration says of it."""
        target, files = self.index, {}
        for key in ("tls_ca", "tls_cert", "tls_key"):
            given = getattr(target, key)
            files[key] = str(self.path(given)) if given else ""
        settings = Settings(
            token=target.token.get_secret_value(),
            database=target.database,
            tls_server_name=target.tls_server_name,
            writers=target.writers,
            hybrid=target.hybrid,
            storage=target.storage,
            **files,
        )
        return IndexAddress(target.kind, self.index_uri, target.name, settings)

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

    _check_variables()
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


def _check_variables() -> None:
    """Raise ConfigError for a variable of a section that there is none of: it would be passed over."""
    for name in os.environ:
        written = re.fullmatch(rf"EMBEDMILL_({'|'.join(Config.model_fields)})__.*", name, re.IGNORECASE)
        if written is not None:
            raise ConfigError(f"{name}: is it {ENV_PREFIX}{name[len('EMBEDMILL_') :]}? it sets nothing as it is")
        if not name.upper().startswith(ENV_PREFIX):
            continue
        section = name[len(ENV_PREFIX) :].lower().split("__")[0]
        if section not in Config.model_fields:
            near = difflib.get_close_matches(section, Config.model_fields, 1)
            fix = f"is it {near[0]}?" if near else f"there are {', '.join(Config.model_fields)}"
            raise ConfigError(f"{name}: the configuration has no section {section!r}; {fix}")


def variables_of(location: tuple[int | str, ...]) -> list[str]:
    """The variables that set a key, itself or with what it is in, the nearest first, in capitals."""
    return [ENV_PREFIX + "__".join(map(str, location[:depth])).upper() for depth in range(len(location), 0, -1)]


def _variable(location: tuple[int | str, ...]) -> str:
    """The variable that has set a key, "" where it is of the file."""
    return next((name for one in variables_of(location) for name in os.environ if name.upper() == one), "")


def _settings_of(file: Path) -> type[Config]:
    """``Config`` read from this file, with the sections of the sources that extensions have added."""

    class FromFile(Config):
        model_config = SettingsConfigDict(toml_file=file)

    section: Any = Annotated[Union[tuple(SOURCE_SECTIONS.values())], Field(discriminator="kind")]  # noqa: UP007
    sources: Any = (Annotated[tuple[section, ...], Field(min_length=1)], ...)
    return create_model("FromFile", __base__=FromFile, sources=sources)


def _fault(location: tuple[int | str, ...], message: str, kind: str) -> str:
    # pydantic puts the union's tag, the kind of a source or of a reranker, third in the location
    tagged = location[:1] == ("sources",) and len(location) > 2 and location[2] in SOURCE_SECTIONS
    tagged = tagged or location[:2] == ("search", "rerank")
    parts = (*location[:2], *location[3:]) if tagged else location
    key = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        message = "unknown key; remove it or correct its spelling"
    elif kind in ("model_type", "model_attributes_type", "dict_type", "dataclass_type"):
        message = f"must be a table; write [{'.'.join(p for p in parts if isinstance(p, str))}] and its keys below it"
    elif kind == "tuple_type" and parts == ("sources",):
        message = "must be tables; write [[sources]] above the keys of each"
    message = message.removeprefix("Value error, ")
    if variable := _variable(location):
        key = f"{variable}: {key}"
    # A validator of a whole list says itself which entry it means: "[0].team_id: ..."
    return f"{key or 'sources'}{message if message.startswith('[') else f': {message}'}"


def _check_paths(file: Path, config: Config) -> None:
    places = {f"sources[{n}].uri": source.uri for n, source in enumerate(config.sources)}
    for key, given in (places | {"state.uri": config.state.uri, "index.uri": config.index.uri}).items():
        if "\0" in given:
            raise ConfigError(f"{file}: {key}: a path has no character of number 0")
    unnamed: dict[tuple[str, str | None, str], int] = {}
    for number, source in enumerate(config.sources):
        root = source.uri if "://" in source.uri else str(config.path(source.uri))
        if source.id is None and (twin := unnamed.setdefault((source.kind, source.team_id, root), number)) != number:
            raise ConfigError(
                f"{file}: sources[{number}]: the same as sources[{twin}] (kind, team_id and uri); remove one of them, "
                "or give each an id"
            )
        if "://" not in source.uri:
            _check_there(f"{file}: sources[{number}].uri", config.path(source.uri), source)
    index = find_index(config.index.kind)
    if index.server or (config.index.kind == "milvus" and "://" in config.index.uri):
        try:
            check_web_address(config.index.uri)
        except ValueError:
            server = index.server or "a Milvus server"
            raise ConfigError(f"{file}: index.uri: give the address of {server}, http(s)://host:port") from None
    _check_apart(file, config)


def _check_there(key: str, root: Path, source: SourceConfig) -> None:
    if not root.exists():
        raise ConfigError(f"{key}: no such path: {source.uri}")
    if source.needs_folder and not root.is_dir():
        raise ConfigError(f"{key}: not a folder: {source.uri}")


def _check_apart(file: Path, config: Config) -> None:
    read = {
        f"sources[{n}].uri": place(source.uri, getattr(source, "storage", ReadStorage()).address, config.path)
        for n, source in enumerate(config.sources)
    }
    registry = place(config.registry.uri, "", config.path)
    written = {
        "state.uri": place(config.state.uri, config.state.storage.address, config.path),
        "index.uri": place(config.index.uri, "", config.path),
        "registry.uri": registry if registry and Path(registry[1]).exists() else None,  # most have none
    }
    check_apart(file, read, written)


def default_config_file() -> Path:
    """``EMBEDMILL_CONFIG``, else ``embedmill.toml`` in the current folder."""
    return Path(os.environ.get("EMBEDMILL_CONFIG") or "embedmill.toml")
