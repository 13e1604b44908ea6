"""Where the model of a configuration lies, be it one of the registry: an alias is looked up once for a command."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from embedding.errors import ConfigError
from embedding.models.packaged import model_path
from embedding.models.space import short_hash
from jobs.registry import PREFIX, Reference, open_registry, reference_of
from jobs.registry.taints import hours_since
from jobs.state.integrity import damage_error, find_damage
from jobs.state.storage import StatePath

if TYPE_CHECKING:
    from jobs.config import Config
    from jobs.state.store import State


def pinned_name(config: Config, name: str) -> str:
    """A model's name with its version in place of an alias. Raises ConfigError for one that is not there."""
    if not name.startswith(PREFIX):
        return name
    wanted = reference_of(name)
    return str(Reference(wanted.name, open_registry(config).resolve(wanted), ""))


def pinned(config: Config) -> Config:
    """A configuration whose model is named by its version, whatever an alias stands for a moment later."""
    return with_name(config, pinned_name(config, config.model.name))


def with_name(config: Config, name: str) -> Config:
    """A configuration with this name of its model, and all else as it is."""
    if name == config.model.name:
        return config
    return config.model_copy(update={"model": config.model.model_copy(update={"name": name})})


@dataclass(frozen=True, slots=True)
class Noted:
    """What a run noted of its model: the ``name`` with its version, its space, what encodes, the cut of its texts."""

    run_id: str
    name: str
    space_id: str
    encoder_id: str
    cut: str


def noted_before(config: Config, state: State) -> Noted | None:
    """What the newest run with the configured model noted, whatever an alias stood for; None where there was none.

    Raises DamagedStateError.
    """
    spaces = state.spaces()
    try:
        runs = state.read("runs", ["run_id", "started_at", "report"]).sort_by([("started_at", "descending")])
    except Exception as error:
        if found := find_damage(state.root):
            raise damage_error(state.root, found[0]) from error
        raise
    for row in runs.to_pylist():
        space_id = json.loads(row["report"])["space_id"]
        space = spaces.get(space_id)
        if space is not None and _stands_for(config.model.name, space["model"]):
            return Noted(row["run_id"], space["model"], space_id, space.get("encoder", ""), space["cut"])
    return None


def _stands_for(name: str, pinned_to: str) -> bool:
    """Whether a configured name may have been pinned to this one."""
    if not (name.startswith(PREFIX) and pinned_to.startswith(PREFIX)):
        return name == pinned_to
    asked, found = reference_of(name), reference_of(pinned_to)
    return asked.name == found.name and asked.version in (None, found.version)


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
