"""Where the model of a configuration lies, be it one of the registry: an alias is looked up once for a command."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from embedding.errors import ConfigError
from embedding.models.packaged import model_path
from embedding.models.space import short_hash
from jobs.registry import PREFIX, Reference, open_registry, reference_of
from jobs.registry.taints import hours_since
from jobs.state.storage import StatePath

if TYPE_CHECKING:
    from jobs.config import Config


def pinned_name(config: Config, name: str) -> str:
    """A model's name with its version in place of an alias. Raises ConfigError for one that is not there."""
    if not name.startswith(PREFIX):
        return name
    wanted = reference_of(name)
    return str(Reference(wanted.name, open_registry(config).resolve(wanted), ""))


def pinned(config: Config) -> Config:
    """A configuration whose model is named by its version, whatever an alias stands for a moment later."""
    name = pinned_name(config, config.model.name)
    if name == config.model.name:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"name": name})})


def refuse_tainted(config: Config) -> None:
    """Raise ConfigError where the model has seen what was purged longer ago than it may be used.

    Asked before anything is encoded, and not before a purge or a look: these go on.
    """
    name = config.model.name
    if not name.startswith(PREFIX):
        return
    found, registry = reference_of(pinned_name(config, name)), open_registry(config)
    assert found.version is not None
    if (taint := registry.taint(found.name, found.version)) is None:
        return
    if (hours := hours_since(taint)) >= config.registry.tainted_hours:
        raise ConfigError(
            f"model.name: {found} has seen {taint.documents:,} documents that were purged {hours:,.0f} hours ago; "
            "name another model, or one that was trained since without them (registry.tainted_hours)"
        )


def model_folder(config: Config, name: str = "") -> Path:
    """The folder of a model, of ``model.name`` without a ``name``. Raises ConfigError."""
    name = name or config.model.name
    if not name.startswith(PREFIX):
        return model_path(name, config.base)
    wanted, registry = reference_of(name), open_registry(config)
    return registry.model(wanted.name, registry.resolve(wanted))


def training_folder(config: Config, root: StatePath) -> Path:
    """Where trainings over a state keep their checkpoints on this machine, a folder for each name."""
    return config.cache / "training" / short_hash([str(root)])


def clear_trainings(config: Config, root: StatePath) -> int:
    """Remove what trainings that do not run have left here: it may be of what is purged. Returns how many folders."""
    gone, folder = 0, training_folder(config, root)
    for name in folder.iterdir() if folder.is_dir() else ():
        try:
            with FileLock(name / ".lock", timeout=0):
                for left in name.iterdir():
                    if left.is_dir():
                        shutil.rmtree(left)
                        gone += 1
        except Timeout:
            continue  # it is marked when it registers
    return gone
