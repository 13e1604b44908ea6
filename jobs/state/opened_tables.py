"""Tables that are open: each is opened once, and looked at again before it is used again.

To open a table reads its log since the last checkpoint, twice; to see that nothing was committed since takes one
request. A log may also be removed and begun anew, which deltalake does not notice when it looks for what is new: so an
open table counts only while its log still has the entry that it had when it was opened.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path

from deltalake import DeltaTable

from jobs.state.object_path import ObjectPath
from jobs.state.storage import StatePath, delta_address

_ENTRY = re.compile(r"\d{20}\.json")
_Tag = tuple[int, float, int | str]  # size, time, and inode or ETag: what tells a file from one that took its place


class _Opened(DeltaTable):
    """A table, with the entry that its log had for the version that it was last seen at."""

    def __init__(self, folder: StatePath) -> None:
        super().__init__(**delta_address(folder))
        self._log, self._seen = folder / "_delta_log", self.version()
        self._entry = self._entries()(self._seen)

    def refreshed(self) -> bool:
        """Bring it to the newest version; False where its log is not what it was. One request, where nothing is new."""
        entry = self._entries()
        if self._entry is None or entry(self._seen) != self._entry:
            return False
        if entry(self.version() + 1) is not None:
            self.update_incremental()
        # None of a version that came after the listing: then it is opened anew the next time.
        self._seen, self._entry = self.version(), entry(self.version())
        return True

    def _entries(self) -> Callable[[int], _Tag | None]:
        """What tells the entry of a version, from that on which was seen; None where there is none."""
        log = self._log
        if isinstance(log, ObjectPath):
            return {int(name[:20]): tag for name, tag in log.tags(f"{self._seen:020}") if _ENTRY.fullmatch(name)}.get
        return partial(_tag, log)


def _tag(log: Path, version: int) -> _Tag | None:
    try:
        stat = (log / f"{version:020}.json").stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns, stat.st_ino


class OpenedTables:
    """The open tables below ``root``. Threads may share it.

    Only who has taken a table out advances it or commits to it, so that nothing changes between a check of its lease
    and the commit that was checked. One that was shown may be advanced by a later caller: ask it at once.
    """

    def __init__(self, root: StatePath) -> None:
        self._root = root
        self._idle: dict[str, _Opened] = {}

    def shown(self, name: str) -> DeltaTable:
        """A table at its newest version, to read from. Raises TableNotFoundError where there is none."""
        table = self.taken(name)
        self.put_back(name, table)
        return table

    def taken(self, name: str) -> DeltaTable:
        """A table at its newest version, for the caller alone. Raises TableNotFoundError where there is none."""
        table = self._idle.pop(name, None)
        return table if table is not None and table.refreshed() else _Opened(self._root / name)

    def put_back(self, name: str, table: DeltaTable) -> None:
        """Give back a table that was taken and is whole. Asks for nothing: the next caller looks for what is new."""
        if isinstance(table, _Opened):  # else it was created a moment ago
            self._idle[name] = table
