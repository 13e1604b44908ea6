"""Where a state is: whether that is ours, private to the user, and its marker (format, spaces, live versions)."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedding.buckets import SCHEME, Bucket
from embedding.errors import ConfigError, DamagedStateError, RefusedError, ResourceError
from jobs.state.hash_key import KEY_FILE
from jobs.state.object_path import ObjectPath
from jobs.state.storage import StatePath, replace_file
from jobs.state.tables import TABLES

if TYPE_CHECKING:
    from jobs.config import Config

FORMAT = 4
FORMER = 3  # with a folder for each team; `embedmill state migrate` rewrites it
MARKER = "embedmill.json"
# Any of these shows that a folder is ours. The marker alone would not do: it comes only once the lease is held.
_OURS = (MARKER, KEY_FILE, "lease.json", "lease", "proof", "work", *TABLES)


def state_root(config: Config, uri: str | None = None) -> StatePath:
    """The folder of a configuration's state, or its prefix in an object store; or those of another ``uri``.

    Raises ValueError for a uri that is neither.
    """
    storage = config.state.storage
    uri = config.state.uri if uri is None else type(config.state)(uri=uri).uri
    if not uri.startswith(SCHEME):
        return config.path(uri)
    bucket, _, prefix = uri.removeprefix(SCHEME).partition("/")
    return ObjectPath(Bucket(bucket, storage.address, storage.region, storage.allow_http), prefix.rstrip("/"))


def open_folder(root: StatePath) -> bool:
    """Create the folder where it is missing; returns whether it is closed to other users of this machine.

    Raises ConfigError for a folder with something else in it or with a state of another format, ResourceError where it
    cannot be used.
    """
    private = make_place(root)
    _refuse_other_format(root, place_marker(root) or {})
    return private


def make_place(root: StatePath) -> bool:
    """``open_folder``, whatever the format of a state that is there, and whether it was moved."""
    if isinstance(root, ObjectPath):
        names = {path.name for path in root.iterdir()}
        if names and not names.intersection(_OURS):
            raise ConfigError(f"state.uri: {root} is not empty and not embedmill's; give a prefix of its own")
        if not names:
            _refuse_nested(root)
        return True
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        private = close_to_others(root)
        ours = any((root / name).exists() for name in _OURS)
        if not ours and any(p.name != "milvus.db" for p in root.iterdir() if p.name[0] != "."):
            raise ConfigError(f"state.uri: {root} is not empty and not embedmill's; give a folder of its own")
        if not ours:
            _refuse_nested(root)
    except OSError as error:
        raise ResourceError(f"state.uri: cannot use {root}: {error.strerror}") from None
    return private


def _refuse_nested(root: StatePath) -> None:
    """Refuse to begin a state inside of another one: whoever removes that, or copies it, takes it for a part.

    Rights on the prefix alone are enough for a state: what is above it is then not looked at.
    """
    above = root.parent
    while above != above.parent:
        with suppress(RefusedError):
            if (above / MARKER).exists() and (above / KEY_FILE).exists():
                raise ConfigError(f"state.uri: {root} lies in another state, {above}; give a place of its own")
        above = above.parent


def close_to_others(folder: Path) -> bool:
    """Take the rights of group and others off a folder, whatever the umask; False where it is not ours to change."""
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        try:
            folder.chmod(mode & ~0o077)
        except PermissionError:
            return False
    return True


def scratch_of(root: StatePath) -> Path:
    """The folder of what never leaves this machine: scratch and log of its engines.

    In a state's own folder; of one in an object store a private folder where temporary files go. Raises ResourceError
    where another user has that.
    """
    if isinstance(root, Path):
        return root / "work"
    name = hashlib.blake2b(str(root).encode(), digest_size=8).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"embedmill-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise ResourceError(f"{folder} belongs to another user; remove it, or set TMPDIR to a folder of your own")
    close_to_others(folder)
    return folder


@dataclass(frozen=True, slots=True)
class Marker:
    """What the marker of a state holds: the spaces by id, and the index versions that were ever live.

    A space has ``model``, ``cut`` and, of releases that note it, ``encoder`` (``Space.encoder_id``).
    ``served`` is None in a state that only releases without it have written to.
    """

    spaces: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    served: tuple[str, ...] | None = None


def read_marker(root: StatePath) -> Marker:
    """Read the marker; an empty one where there is none.

    Raises DamagedStateError for a marker that cannot be read, ConfigError for one of another format.
    """
    marker = root / MARKER
    try:
        found = json.loads(marker.read_text())
        if not isinstance(found, dict):
            raise ValueError("no object")
    except FileNotFoundError:
        return Marker()
    except ValueError:
        raise DamagedStateError(f"state.uri: {marker} is damaged; remove it: the next run writes it again") from None
    _refuse_other_format(root, found)
    served = found.get("served")
    return Marker(found["spaces"], None if served is None else tuple(served))


def place_marker(root: StatePath) -> dict[str, Any] | None:
    """All that the marker says, whatever the format; None without one that can be read."""
    try:
        found = json.loads((root / MARKER).read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def format_of(root: StatePath) -> int | None:
    """The format of a state; None without a marker that says it."""
    return _format(place_marker(root))


def _format(said: Mapping[str, Any] | None) -> int | None:
    found = (said or {}).get("format")
    return found if isinstance(found, int) else None


def restamp(root: StatePath) -> None:
    """Let the marker say the format of today, and else what it said."""
    replace_file(root / MARKER, json.dumps(json.loads((root / MARKER).read_text()) | {"format": FORMAT}).encode())


def _refuse_other_format(root: StatePath, said: Mapping[str, Any]) -> None:
    """Raise ConfigError for a state whose marker says ``said``, where that is of no use here."""
    if "copying" in said:
        raise ConfigError(
            f"state.uri: {root} is an unfinished copy; run `embedmill state copy {said['copying']} {root}` to its end"
        )
    if "moved" in said:
        raise ConfigError(f"state.uri: the state of {root} was moved to {said['moved']}; give that as state.uri")
    found = _format(said)
    if found == FORMER:
        raise ConfigError(
            f"state.uri: {root} has format {FORMER}, this version writes {FORMAT}; run `embedmill state migrate`, "
            "which rewrites its tables and encodes nothing"
        )
    if found not in (None, FORMAT):
        raise ConfigError(f"state.uri: {root} has format {found}, this version writes {FORMAT}; give a new folder")


def write_marker(root: StatePath, marker: Marker) -> None:
    """Write the marker."""
    body: dict[str, object] = {"format": FORMAT, "spaces": dict(marker.spaces)}
    if marker.served is not None:
        body["served"] = marker.served
    replace_file(root / MARKER, json.dumps(body).encode())
