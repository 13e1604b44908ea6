"""Tables that are open: each is opened once, and looked at again before it is used again.

To open a table reads its log since the last checkpoint, twice; to see that nothing was committed since takes one
request. A log may also be removed and begun anew, which deltalake does not notice when it looks for what is new: so an
open table counts only while its log still has the entry that it had when it was opened.
"""

from __future__ import annotations

from deltalake import DeltaTable

from jobs.state.object_path import ObjectPath
from jobs.state.storage import StatePath, delta_address

_Tag = tuple[int, float, int | str]  # size, time, and inode or ETag: what tells a file from one that took its place


class _Opened(DeltaTable):
    """A table, with the entry that its log had for the version that was opened."""

    def __init__(self, folder: StatePath) -> None:
        super().__init__(**delta_address(folder))
        self.folder, self.opened_at = folder, self.version()
        self.entry, _ = self._look()

    def refreshed(self) -> bool:
        """Bring it to the newest version; False where its log is not what it was. One request, where nothing is new."""
        entry, newer = self._look()
        if entry is None or entry != self.entry:
            return False
        if newer:
            self.update_incremental()
        return True

    def _look(self) -> tuple[_Tag | None, bool]:
        """What the entry is now, and whether there is a version after this one."""
        log, entry, after = self.folder / "_delta_log", f"{self.opened_at:020}.json", f"{self.version() + 1:020}.json"
        if isinstance(log, ObjectPath):
            told = log.tags(f"{self.opened_at:020}")
            return told.get(entry), after in told
        try:
            stat = (log / entry).stat()
        except FileNotFoundError:
            return None, False
        return (stat.st_size, stat.st_mtime_ns, stat.st_ino), (log / after).exists()


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
