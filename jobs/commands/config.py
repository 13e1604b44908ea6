"""The command ``config``: the effective configuration, where each value comes from, secrets masked."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from jobs.bodies.answers import ConfigBody, Origin, Setting
from jobs.config import ENV_PREFIX, load_config, variables_of
from jobs.redaction import MASK, is_secret, masked

if TYPE_CHECKING:
    from jobs.config import Config


def show_config(file: Path) -> ConfigBody:
    """Load a configuration file and list every setting in force.

    Raises ConfigError for a file that is missing or wrong.
    """
    return ConfigBody(file=str(file), settings=effective(load_config(file), file, list(os.environ)))


def effective(config: Config, file: Path, environment: Collection[str]) -> tuple[Setting, ...]:
    """Every setting in force: its key, its value without secrets, and its origin (environment, file or default).

    ``environment`` are the names of the variables that were there when the configuration was loaded.
    """
    written = tomllib.loads(file.read_text(encoding="utf-8"))
    given = {name.upper() for name in environment if name.upper().startswith(ENV_PREFIX)}
    return tuple(
        Setting(key=_dotted(path), value=_shown(path, value), origin=_origin(path, written, given))
        for path, value in _leaves(config.model_dump(), ())
    )


def _leaves(value: object, path: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for number, inner in enumerate(value):
            yield from _leaves(inner, (*path, number))
    else:
        yield path, value


def _shown(path: tuple[str | int, ...], value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if not isinstance(value, str):
        return value
    # Properties of Spark have names of their own; our own keys that hold a secret have its type.
    if path[:2] == ("spark", "properties") and is_secret(str(path[-1])):
        return MASK
    return masked(value)


def _origin(path: tuple[str | int, ...], written: Any, given: Collection[str]) -> Origin:
    if any(name in given for name in variables_of(path)):
        return "environment"
    at = written
    for part in path:
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            return "default"
    return "file"


def _dotted(path: tuple[str | int, ...]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")
