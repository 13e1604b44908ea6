"""The state: ACID tables (Delta Lake) below one folder or prefix, the hash key, the spaces, and the live versions.

Distributed writers call ``write_part`` and hand back a ``Part``; only the driver commits, in one transaction.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Self

from embedding.errors import ConfigError
from jobs.state.fencing import refuse_unfenced
from jobs.state.hash_key import given_key, make_key, stored_key
from jobs.state.maintained_tables import MaintainedTables
from jobs.state.state_folder import Marker, open_folder, read_marker, scratch_of, write_marker
from jobs.state.storage import StatePath


class State(MaintainedTables):
    """Handle on the tables below ``root``. Opening creates the folder, private to the user.

    Of the tables that are kept for each way of cutting texts it shows and changes the rows of ``cut`` alone; without
    one it shows all, and changes none.

    ``fence`` is the number of the lease under which it commits, and creates a table or the hash key that is missing.
    Without one it is open for reading: a table that never was there has no rows, and every method that changes what is
    there raises ValueError. ``for_writing`` gives the same tables with a number.

    Raises ConfigError for a folder that is not embedmill's and for a hash key of another length, ResourceError for one
    that cannot be used, DamagedStateError where the hash key was lost.
    """

    def __init__(self, root: StatePath, *, cut: str | None = None, hash_key: str = "", fence: int = 0) -> None:
        super().__init__(root, cut, fence)
        self.private = open_folder(root)
        self._key = given_key(hash_key) or stored_key(root)
        if fence and not self._key:
            self._key = make_key(root)

    @property
    def hash_key(self) -> bytes:
        """The key of content hashes. Raises ConfigError where nothing has been written yet."""
        self._key = self._key or stored_key(self.root)
        if not self._key:
            raise ConfigError(f"state.uri: nothing was written to {self.root} yet; run `embedmill run` first")
        return self._key

    # -- space ---------------------------------------------------------------------------------------------------

    def spaces(self) -> dict[str, dict[str, str]]:
        """What was made here: ``model``, ``cut`` and, where it was noted, ``encoder`` by space_id.

        Raises ConfigError for a state of another format, DamagedStateError for a marker that is no JSON.
        """
        return {space_id: dict(space) for space_id, space in read_marker(self.root).spaces.items()}

    def note_space(self, space_id: str, model: str, encoder: str = "") -> None:
        """Remember a space, its model's name, its cut and its ``Space.encoder_id``. Call it while holding the lease."""
        marker = read_marker(self.root)
        if space_id not in marker.spaces:
            noted = {"model": model, "cut": self.cut or ""} | ({"encoder": encoder} if encoder else {})
            self._mark(replace(marker, spaces={**marker.spaces, space_id: noted}))

    def served(self) -> tuple[str, ...] | None:
        """Index versions that were ever live; None where only releases that did not note them have written."""
        return read_marker(self.root).served

    def keep_served(self, versions: Iterable[str]) -> None:
        """Remember these versions, and no others, as ever live. Call it only while holding the lease."""
        self._mark(replace(read_marker(self.root), served=tuple(versions)))

    def _mark(self, marker: Marker) -> None:
        refuse_unfenced(self._fence)
        write_marker(self.root, marker)

    def for_writing(self, fence: int) -> Self:
        """The same tables, to commit to under the lease of this number (1 or higher)."""
        state = self.fenced_by(fence)
        state._key = self._key or stored_key(self.root) or make_key(self.root)
        return state

    # -- work ----------------------------------------------------------------------------------------------------

    @property
    def scratch(self) -> Path:
        """Folder of what never leaves this machine."""
        return scratch_of(self.root)

    @property
    def engines(self) -> Path:
        """Scratch folder of this process's engines, which outlive a run."""
        return self.scratch / f"engines-{socket.gethostname()}-{os.getpid()}"

    @property
    def engine_log(self) -> Path:
        """What the engines wrote to standard error."""
        return self.scratch / "engines.log"

    def work(self, run_id: str) -> StatePath:
        """Scratch folder of one run. Holds text, so it is private and goes when the run ends."""
        folder = self.root / "work" / run_id
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        return folder
