"""Where the model of a configuration lies, be it one of the registry: an alias is looked up once for a command."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from embedding.errors import ConfigError
from embedding.models.packaged import model_path
from jobs.registry import PREFIX, Reference, open_registry, reference_of
from jobs.scope import parse_moment

if TYPE_CHECKING:
    from jobs.config import Config

_HOUR = 3_600_000_000  # µs


def pinned(config: Config) -> Config:
    """A configuration whose model is named by its version, whatever an alias stands for a moment later.

    Raises ConfigError for a model that is not there, and for one that has seen what was purged too long ago.
    """
    name = config.model.name
    if not name.startswith(PREFIX):
        return config
    wanted, registry = reference_of(name), open_registry(config)
    found = Reference(wanted.name, registry.resolve(wanted), "")
    assert found.version is not None
    if (taint := registry.taint(found.name, found.version)) is not None:
        hours = (time.time() * 1e6 - parse_moment(taint.purged_at, "purged_at")) / _HOUR
        if hours >= config.registry.tainted_hours:
            raise ConfigError(
                f"model.name: {found} has seen {taint.documents:,} documents that were purged {hours:,.0f} hours ago; "
                "train anew without them, or name another model (registry.tainted_hours)"
            )
    model = config.model.model_copy(update={"name": str(found)})
    return config.model_copy(update={"model": model})


def model_folder(config: Config, name: str = "") -> Path:
    """The folder of a model of a pinned configuration, of ``model.name`` without a ``name``. Raises ConfigError."""
    name = name or config.model.name
    if not name.startswith(PREFIX):
        return model_path(name, config.base)
    wanted, registry = reference_of(name), open_registry(config)
    return registry.model(wanted.name, registry.resolve(wanted))
